//! Where a service of the region is: `https://HOST[:PORT][/PATH]`, or `http://...` without TLS.

use std::{fmt, str::FromStr};

use edge_identity::client::Server;
use reqwest::Url;

/// Address of a service over HTTP. Its path ends in `/`, so that what is below it can be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl(Url);

/// Why a text is no service's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServiceUrlError {
    /// Not of the form of a URL, or neither `http://` nor `https://` in front.
    #[error(
        "a service is given as https://HOST:PORT/PATH or http://HOST:PORT/PATH, such as https://region.lan:8443"
    )]
    Form,
    /// A user name, a query or a fragment.
    #[error(
        "only host, port and path are taken: http://HOST:PORT/PATH, without user name or parameters"
    )]
    Extra,
}

impl ServiceUrl {
    /// The server, where it is reached over TLS.
    #[must_use]
    pub fn tls_server(&self) -> Option<Server> {
        let is_tls = self.0.scheme() == "https";
        let host = self.0.host_str()?.trim_matches(['[', ']']).to_owned();
        let port = self.0.port_or_known_default()?;
        is_tls.then_some(Server { host, port })
    }

    /// The address of `path`, which must not start with `/`, below this one.
    #[must_use]
    pub fn below(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    fn from_str(text: &str) -> Result<Self, ServiceUrlError> {
        let mut url = Url::parse(text).map_err(|_| ServiceUrlError::Form)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ServiceUrlError::Form);
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            return Err(ServiceUrlError::Extra);
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> serde::Deserialize<'de> for ServiceUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_an_address_and_refuses_the_rest() {
        for (text, expected) in [
            ("http://10.0.0.7:8080", Ok("http://10.0.0.7:8080/x")),
            ("http://edge.example/tuf", Ok("http://edge.example/tuf/x")),
            ("http://[::1]:99/a/", Ok("http://[::1]:99/a/x")),
            ("https://edge.example", Ok("https://edge.example/x")),
            ("ftp://edge.example", Err(ServiceUrlError::Form)),
            ("edge.example:80", Err(ServiceUrlError::Form)),
            ("", Err(ServiceUrlError::Form)),
            ("http://", Err(ServiceUrlError::Form)),
            ("http://a:99999", Err(ServiceUrlError::Form)),
            ("http://me:pw@a/", Err(ServiceUrlError::Extra)),
            ("http://a/?x=1", Err(ServiceUrlError::Extra)),
            ("http://a/#x", Err(ServiceUrlError::Extra)),
        ] {
            let read: Result<ServiceUrl, _> = text.parse();
            let read = read.map(|url| url.below("x"));
            assert_eq!(read, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_server_over_tls_has_a_host_and_a_port() {
        for (text, expected) in [
            ("https://10.0.0.7:8443", Some(("10.0.0.7", 8443))),
            ("https://edge.example/a", Some(("edge.example", 443))),
            ("https://[::1]:99", Some(("::1", 99))),
            ("http://edge.example", None),
        ] {
            let server = text.parse::<ServiceUrl>().unwrap().tls_server();
            let server = server.as_ref().map(|s| (s.host.as_str(), s.port));
            assert_eq!(server, expected, "{text}");
        }
    }
}
