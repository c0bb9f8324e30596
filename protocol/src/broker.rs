//! Where the broker is: `mqtts://HOST[:PORT]`, or `mqtt://HOST[:PORT]` without TLS.

use std::{fmt, str::FromStr};

/// Port of MQTT without TLS, as registered with IANA.
const PLAIN_PORT: u16 = 1883;
/// Port of MQTT over TLS, as registered with IANA.
const TLS_PORT: u16 = 8883;

/// Address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Name or address; an IPv6 address stands in brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Over TLS, where both sides show certificates.
    pub tls: bool,
}

/// Why a text is no broker's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// No `mqtt://` or `mqtts://` in front.
    #[error(
        "a broker is given as mqtts://HOST:PORT, such as mqtts://region.lan:8883, or as mqtt://HOST:PORT without TLS"
    )]
    Scheme,
    /// No or an impossible host.
    #[error("the host is missing or has characters that no host has; write mqtts://HOST:PORT")]
    Host,
    /// An IPv6 address with TLS, which the MQTT client library does not take.
    #[error("over TLS an IPv6 address cannot be used as it is; give the host's name")]
    Address,
    /// A port that is none.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// A path, a user name or parameters.
    #[error(
        "only host and port are taken: mqtts://HOST:PORT, without user name, path or parameters"
    )]
    Extra,
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(BrokerUrlError::Scheme)?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(BrokerUrlError::Scheme),
        };
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
            None if tls => TLS_PORT,
            None => PLAIN_PORT,
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
        if tls && host.starts_with('[') {
            return Err(BrokerUrlError::Address);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            tls,
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
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
            ("mqtt://10.0.0.7:1884", Ok(("10.0.0.7", 1884, false))),
            ("mqtt://edge.example/", Ok(("edge.example", 1883, false))),
            ("mqtt://[::1]:99", Ok(("[::1]", 99, false))),
            ("mqtt://[::1]", Ok(("[::1]", 1883, false))),
            ("mqtts://a:1", Ok(("a", 1, true))),
            ("mqtts://10.0.0.7", Ok(("10.0.0.7", 8883, true))),
            ("mqtts://[::1]", Err(BrokerUrlError::Address)),
            ("10.0.0.7:1883", Err(BrokerUrlError::Scheme)),
            ("http://a:1", Err(BrokerUrlError::Scheme)),
            ("tls://a:1", Err(BrokerUrlError::Scheme)),
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
            let read = read
                .as_ref()
                .map(|url| (url.host.as_str(), url.port, url.tls));
            assert_eq!(read, expected.as_ref().map(|x| *x), "{text}");
        }
    }
}
