//! What an indexer is told to do, as checked values.

use std::net::SocketAddr;

use edge_protocol::{BrokerUrl, Id};

use crate::broker::Listeners;
use crate::identity::IdentitySettings;
use crate::store::StoreSettings;

/// Which broker carries the region.
#[derive(Debug, Clone)]
pub enum BrokerChoice {
    /// One inside this process, listening here.
    Embedded(Listeners),
    /// One outside.
    Outside(BrokerUrl),
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
    /// The region's authority; needed wherever there is TLS.
    pub identity: Option<IdentitySettings>,
    /// Where the API and the page are served.
    pub http: SocketAddr,
    /// Names of this machine, by which browsers reach the page.
    pub hosts: Vec<String>,
    /// Where keys enrol, and the API is served to those with certificates.
    pub https: Option<SocketAddr>,
    /// The store.
    pub store: StoreSettings,
    /// Boxes that are known at once.
    pub boxes_limit: usize,
}
