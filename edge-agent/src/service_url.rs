//! Where a service of the region is: `http://HOST[:PORT][/PATH]`.

use std::{fmt, str::FromStr};

use reqwest::Url;

/// Address of a service over HTTP. Its path ends in `/`, so that what is below it can be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl(Url);

/// Why a text is no service's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServiceUrlError {
    /// Not of the form of a URL, or no `http://` in front.
    #[error("a service is given as http://HOST:PORT/PATH, such as http://127.0.0.1:8080")]
    Form,
    /// `https://`.
    #[error("this version speaks HTTP without TLS only: http://HOST:PORT/PATH")]
    Tls,
    /// A user name, a query or a fragment.
    #[error(
        "only host, port and path are taken: http://HOST:PORT/PATH, without user name or parameters"
    )]
    Extra,
}

impl ServiceUrl {
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
        match url.scheme() {
            "http" => {}
            "https" => return Err(ServiceUrlError::Tls),
            _ => return Err(ServiceUrlError::Form),
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
            ("https://edge.example", Err(ServiceUrlError::Tls)),
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
}
