//! A region with an authority, for tests: its folder, certificates for whoever is needed, MQTT clients that show them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate and uses its part"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_identity::authority::{Authority, Lifetime, NewAuthority, new_key, request};
use edge_identity::client::{self, Answer, Server};
use edge_identity::enrolment::Ask;
use edge_identity::folder;
use edge_identity::pem;
use edge_identity::registry::Registry;
use edge_identity::subject::{Role, Subject};
use edge_identity::tls::{self, Credentials};
use edge_identity::verify::Trust;
use edge_indexer::broker::Listeners;
use edge_indexer::identity::IdentitySettings;
use edge_indexer::settings::{BrokerChoice, Settings};
use edge_protocol::Id;
use rumqttc::v5::MqttOptions;
use rumqttc::{TlsConfiguration, Transport};
use rustls::ClientConfig;

use crate::support::{REGION, settings};

pub const LOCAL: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

pub fn id(name: &str) -> Id {
    Id::new(name).unwrap()
}

pub fn subject(role: Role, name: &str) -> Subject {
    Subject {
        region: id(REGION),
        role,
        name: id(name),
    }
}

pub fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs()
}

pub fn lasting_s(for_s: u64) -> Lifetime {
    Lifetime {
        now_s: now_s(),
        for_s,
    }
}

/// The authority's folder, and what is in it.
pub struct Ca {
    pub folder: PathBuf,
    pub authority: Authority,
    pub registry: Registry,
}

/// A key and what it shows.
pub struct Holder {
    pub key_pem: String,
    pub public: Vec<u8>,
    pub subject: Subject,
}

impl Holder {
    pub fn new(role: Role, name: &str) -> Self {
        let (key_pem, public) = new_key().unwrap();
        Self {
            key_pem: key_pem.to_string(),
            public,
            subject: subject(role, name),
        }
    }

    pub fn ask(&self, token: Option<&str>) -> Ask {
        Ask {
            request: request(&self.subject, &self.key_pem).unwrap(),
            token: token.map(str::to_owned),
        }
    }
}

impl Ca {
    pub fn make(folder: &Path) -> Self {
        let folder = folder.join("ca");
        let region = id(REGION);
        let root = NewAuthority::root(&region, lasting_s(1 << 28)).unwrap();
        folder::write_intermediate(&root, &region, lasting_s(1 << 28), &folder).unwrap();
        let (authority, registry) = folder::open(&folder).unwrap();
        Self {
            folder,
            authority,
            registry,
        }
    }

    pub fn settings(&self, data: &Path) -> Settings {
        Settings {
            broker: BrokerChoice::Embedded(Listeners {
                tls: Some(LOCAL),
                insecure: None,
            }),
            identity: Some(IdentitySettings {
                folder: self.folder.clone(),
                hosts: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
                life_s: 7 * 24 * 3_600,
            }),
            https: Some(LOCAL),
            ..settings(data)
        }
    }

    /// A certificate by hand, as `edgectl ca issue` gives it.
    pub fn issue(&mut self, holder: &Holder, lifetime: Lifetime) -> Arc<ClientConfig> {
        let issued = self
            .registry
            .issue(
                &self.authority,
                &holder.subject,
                &holder.public,
                lifetime,
                &[],
            )
            .unwrap();
        let credentials = Arc::new(Credentials::default());
        let chain = vec![issued.certificate, self.authority.intermediate().clone()];
        let key = pem::private_key(holder.key_pem.as_bytes()).unwrap();
        credentials.set_with_key(chain, &key).unwrap();
        self.client(Some(credentials))
    }

    /// For who has that name; a certificate is made for it.
    pub fn holder(&mut self, role: Role, name: &str) -> Arc<ClientConfig> {
        self.issue(&Holder::new(role, name), lasting_s(3_600))
    }

    /// For who has no certificate, or these credentials.
    pub fn client(&self, credentials: Option<Arc<Credentials>>) -> Arc<ClientConfig> {
        let trust = Trust::Root(self.authority.root().clone());
        Arc::new(tls::client(trust, id(REGION), credentials).unwrap())
    }

    pub async fn enrol(&self, server: &Server, ask: &Ask) -> Answer {
        client::enrol(server, self.client(None), ask).await.unwrap()
    }
}

pub fn server(address: SocketAddr) -> Server {
    Server {
        host: address.ip().to_string(),
        port: address.port(),
    }
}

pub fn options(broker: SocketAddr, client_id: &str, tls: Arc<ClientConfig>) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, broker.ip().to_string(), broker.port());
    let config = TlsConfiguration::Rustls(tls);
    options
        .set_transport(Transport::tls_with_config(config))
        .set_keep_alive(Duration::from_secs(20));
    options
}
