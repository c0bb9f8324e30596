//! What an indexer is told to do, as checked values.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use edge_protocol::Id;

use crate::store::StoreSettings;

/// Where an MQTT broker is: `mqtt://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Name or address; IPv6 in brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why a text is no broker's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokerAddressError {
    /// Not `mqtt://`.
    #[error("a broker is given as mqtt://HOST:PORT")]
    Scheme,
    /// No host.
    #[error("the host is missing in mqtt://HOST:PORT")]
    Host,
    /// Not a port.
    #[error("the port in mqtt://HOST:PORT is a number from 1 to 65535")]
    Port,
}

impl FromStr for BrokerAddress {
    type Err = BrokerAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("mqtt://")
            .ok_or(BrokerAddressError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            Some(port) => port
                .parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or(BrokerAddressError::Port)?,
            None => 1_883,
        };
        let bare_ipv6 = host.contains(':') && !host.starts_with('[');
        if host.is_empty() || bare_ipv6 || host.contains(['/', '@', '?', ' ']) {
            return Err(BrokerAddressError::Host);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mqtt://{}:{}", self.host, self.port)
    }
}

/// Which broker carries the region.
#[derive(Debug, Clone)]
pub enum BrokerChoice {
    /// One inside this process, listening here.
    Embedded(SocketAddr),
    /// One outside.
    Outside(BrokerAddress),
}

/// All that an indexer needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The region.
    pub region: Id,
    /// This indexer.
    pub indexer: Id,
    /// The broker.
    pub broker: BrokerChoice,
    /// Where the API and the page are served.
    pub http: SocketAddr,
    /// The store.
    pub store: StoreSettings,
    /// Boxes that are known at once.
    pub boxes_limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, host, port) in [
            ("mqtt://broker:1884", "broker", 1_884),
            ("mqtt://broker", "broker", 1_883),
            ("mqtt://10.0.0.1:1/", "10.0.0.1", 1),
            ("mqtt://[::1]:1883", "[::1]", 1_883),
            ("mqtt://[::1]", "[::1]", 1_883),
        ] {
            let address: BrokerAddress = text.parse().unwrap();
            assert_eq!(
                (address.host.as_str(), address.port),
                (host, port),
                "{text}"
            );
        }
        for (text, error) in [
            ("broker:1883", BrokerAddressError::Scheme),
            ("mqtts://broker", BrokerAddressError::Scheme),
            ("mqtt://", BrokerAddressError::Host),
            ("mqtt://:1883", BrokerAddressError::Host),
            ("mqtt://user@broker", BrokerAddressError::Host),
            ("mqtt://::1:1883", BrokerAddressError::Host),
            ("mqtt://broker:0", BrokerAddressError::Port),
            ("mqtt://broker:port", BrokerAddressError::Port),
        ] {
            assert_eq!(text.parse::<BrokerAddress>(), Err(error), "{text}");
        }
    }
}
