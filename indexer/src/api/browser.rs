//! What a page of another site may make a browser do here: nothing. A request that changes something and comes from
//! another site is refused, and so is one that asks for this machine by a name that is not its own, which is how a
//! foreign page gets around that (DNS rebinding).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiError;

/// Names of this machine. Over TLS the certificate says them, and browsers compare.
pub(super) type Names = Option<Arc<[String]>>;

/// Lets through what a page of this site, or no page at all, asks for.
pub(super) async fn no_foreign_page(
    State(names): State<Names>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if names.is_some_and(|names| !is_own_name(headers, &names)) {
        return ApiError::OtherHost.into_response();
    }
    if !request.method().is_safe() && is_foreign(headers) {
        return ApiError::OtherSite.into_response();
    }
    next.run(request).await
}

/// Whether the request is for an address, `localhost`, or one of `names`. Programs may leave the name out; browsers
/// do not.
fn is_own_name(headers: &HeaderMap, names: &[String]) -> bool {
    let Some(asked) = headers.get(header::HOST) else {
        return true;
    };
    let authority = asked
        .to_str()
        .ok()
        .and_then(|text| text.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host();
        let bare = host.trim_matches(['[', ']']);
        bare.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || names.iter().any(|name| name.eq_ignore_ascii_case(host))
    })
}

/// Whether a page of another site asks: the browser says so (Fetch Metadata), or where the page is from.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    match (text("origin"), text("host")) {
        (None, _) => false,
        (Some(origin), Some(host)) => origin
            .split_once("://")
            .is_none_or(|(_, from)| from != host),
        (Some(_), None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = header::HeaderName::from_static(name);
            (name, value.parse().unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn a_machine_is_asked_by_its_own_names() {
        let names = ["region.lan".to_owned()];
        for (host, own) in [
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("192.168.1.2", true),
            ("localhost:8080", true),
            ("Region.lan:8080", true),
            ("evil.example:8080", false),
            ("region.lan.evil.example", false),
            ("", false),
            ("a@127.0.0.1.evil.example", false),
        ] {
            assert_eq!(
                is_own_name(&headers(&[("host", host)]), &names),
                own,
                "{host}"
            );
        }
        assert!(is_own_name(&HeaderMap::new(), &names));
    }

    #[test]
    fn another_sites_page_is_known() {
        for (pairs, foreign) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")][..], false),
            (&[("sec-fetch-site", "none")][..], false),
            (&[("sec-fetch-site", "same-site")][..], true),
            (&[("sec-fetch-site", "cross-site")][..], true),
            (&[("host", "a:1"), ("origin", "http://a:1")][..], false),
            (&[("host", "a:1"), ("origin", "http://b")][..], true),
            (&[("host", "a:1"), ("origin", "null")][..], true),
            (&[("origin", "http://a:1")][..], true),
        ] {
            assert_eq!(is_foreign(&headers(pairs)), foreign, "{pairs:?}");
        }
    }
}
