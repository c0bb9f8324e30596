//! Where the broker is: `mqtt://HOST[:PORT]`.

use std::{fmt, str::FromStr};

/// Port of MQTT without TLS, as registered with IANA.
const DEFAULT_PORT: u16 = 1883;

/// Address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Name or address; an IPv6 address stands in brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why a text is no broker's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// No `mqtt://` in front.
    #[error("a broker is given as mqtt://HOST:PORT, such as mqtt://127.0.0.1:1883")]
    Scheme,
    /// `mqtts://` and the like.
    #[error("this version speaks MQTT without TLS only: mqtt://HOST:PORT")]
    Tls,
    /// No or an impossible host.
    #[error("the host is missing or has characters that no host has; write mqtt://HOST:PORT")]
    Host,
    /// A port that is none.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// A path, a user name or parameters.
    #[error(
        "only host and port are taken: mqtt://HOST:PORT, without user name, path or parameters"
    )]
    Extra,
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(BrokerUrlError::Scheme)?;
        match scheme {
            "mqtt" => {}
            "mqtts" | "ssl" | "tls" | "wss" => return Err(BrokerUrlError::Tls),
            _ => return Err(BrokerUrlError::Scheme),
        }
        let address = rest.strip_suffix('/').unwrap_or(rest);
        if address.contains(['/', '@', '?', '#']) {
            return Err(BrokerUrlError::Extra);
        }
        let (host, port) = match address.rfind([':', ']']) {
            Some(at) if address.get(at..).is_some_and(|rest| rest.starts_with(':')) => {
                address.split_at(at)
            }
            _ => (address, ""),
        };
        let port = match port.strip_prefix(':') {
            None => DEFAULT_PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(BrokerUrlError::Port)?,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_valid = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(is_name),
        };
        if !is_valid {
            return Err(BrokerUrlError::Host);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mqtt://{}:{}", self.host, self.port)
    }
}

impl<'de> serde::Deserialize<'de> for BrokerUrl {
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
            ("mqtt://10.0.0.7:1884", Ok(("10.0.0.7", 1884))),
            ("mqtt://edge.example/", Ok(("edge.example", 1883))),
            ("mqtt://[::1]:99", Ok(("[::1]", 99))),
            ("mqtt://[::1]", Ok(("[::1]", 1883))),
            ("10.0.0.7:1883", Err(BrokerUrlError::Scheme)),
            ("http://a:1", Err(BrokerUrlError::Scheme)),
            ("mqtts://a:1", Err(BrokerUrlError::Tls)),
            ("mqtt://", Err(BrokerUrlError::Host)),
            ("mqtt://:1883", Err(BrokerUrlError::Host)),
            ("mqtt://a b:1883", Err(BrokerUrlError::Host)),
            ("mqtt://::1:1883", Err(BrokerUrlError::Host)),
            ("mqtt://[zz]:1883", Err(BrokerUrlError::Host)),
            ("mqtt://a:0", Err(BrokerUrlError::Port)),
            ("mqtt://a:70000", Err(BrokerUrlError::Port)),
            ("mqtt://a:", Err(BrokerUrlError::Port)),
            ("mqtt://me:pw@a:1", Err(BrokerUrlError::Extra)),
            ("mqtt://a:1/x", Err(BrokerUrlError::Extra)),
        ] {
            let read: Result<BrokerUrl, _> = text.parse();
            let read = read.as_ref().map(|url| (url.host.as_str(), url.port));
            assert_eq!(read, expected.as_ref().map(|x| *x), "{text}");
        }
    }
}
