//! Who believes whom: real TLS handshakes in memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::{sync::Arc, time::Duration};

use edge_identity::{
    authority::{Authority, new_key},
    certificate::Identity,
    key::{CertificateFingerprint, KeyFingerprint},
    pem,
    subject::{Role, Subject},
    tls::{Clients, Credentials, client, server},
    verify::{Revocations, Trust},
};
use rustls::{
    ClientConnection, ServerConnection,
    pki_types::{ServerName, UnixTime},
    time_provider::TimeProvider,
};
use support::{DAY_S, Holder, NOW_S, at, authority, id, lasting, subject};

#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// Everybody's rights, or nobody's.
#[derive(Debug)]
struct AllRevoked(bool);

impl Revocations for AllRevoked {
    fn is_revoked(&self, _key: &KeyFingerprint) -> bool {
        self.0
    }
}

/// What somebody shows.
fn credentials(authority: &Authority, subject: &Subject) -> Arc<Credentials> {
    let holder = Holder::new();
    let issued = authority
        .issue(subject, &holder.public, at(NOW_S), &[])
        .unwrap();
    let key = pem::private_key(holder.key_pem.as_bytes()).unwrap();
    let credentials = Arc::new(Credentials::default());
    let chain = authority.server_chain(issued.certificate);
    credentials.set_with_key(chain, &key).unwrap();
    credentials
}

struct Meeting<'a> {
    /// Whose the server is, and as what.
    server: (&'a Authority, Subject),
    clients: Clients,
    client: Option<(&'a Authority, Subject)>,
    trust: Trust,
    client_clock_s: u64,
    is_revoked: bool,
}

impl<'a> Meeting<'a> {
    fn of(region: &'a Authority) -> Self {
        Self {
            server: (region, subject(Role::Indexer, "indexer")),
            clients: Clients::Certified,
            client: Some((region, subject(Role::Box, "box-1"))),
            trust: Trust::Root(region.root().clone()),
            client_clock_s: NOW_S,
            is_revoked: false,
        }
    }

    /// Whom the server sees, or why they do not come together.
    fn happens(self) -> Result<Option<Identity>, String> {
        let (authority, who) = &self.server;
        let mut server_config = server(
            authority.root(),
            self.clients,
            Arc::new(AllRevoked(self.is_revoked)),
            credentials(authority, who),
        )
        .unwrap();
        server_config.time_provider = Arc::new(Clock(NOW_S));
        let shown = self
            .client
            .as_ref()
            .map(|(authority, who)| credentials(authority, who));
        let mut client_config = client(self.trust, id("lab"), shown).unwrap();
        client_config.time_provider = Arc::new(Clock(self.client_clock_s));

        let mut server = ServerConnection::new(Arc::new(server_config)).unwrap();
        let name = ServerName::try_from("any.name.at.all").unwrap();
        let mut client = ClientConnection::new(Arc::new(client_config), name).unwrap();
        for _ in 0..10 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                server.read_tls(&mut left).unwrap();
                let processed = server.process_new_packets();
                processed.map_err(|error| format!("server: {error}"))?;
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                client.read_tls(&mut left).unwrap();
                let processed = client.process_new_packets();
                processed.map_err(|error| format!("client: {error}"))?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        let version = server.protocol_version().unwrap();
        assert_eq!(version, rustls::ProtocolVersion::TLSv1_3);
        let shown = server.peer_certificates();
        Ok(shown.map(|chain| Identity::read(&chain[0]).unwrap()))
    }
}

#[test]
fn those_of_one_region_believe_each_other() {
    let region = authority("lab");
    let seen = Meeting::of(&region).happens().unwrap().unwrap();
    assert_eq!(seen.subject, subject(Role::Box, "box-1"));
    let broker = Meeting {
        server: (&region, subject(Role::Broker, "broker")),
        ..Meeting::of(&region)
    };
    broker.happens().unwrap();
}

#[test]
fn a_pinned_root_is_enough_to_begin_with() {
    let region = authority("lab");
    let pinned = Trust::Pinned(CertificateFingerprint::of(region.root()));
    let enrolling = Meeting {
        clients: Clients::Any,
        client: None,
        trust: pinned,
        ..Meeting::of(&region)
    };
    assert_eq!(enrolling.happens().unwrap(), None);
    let wrong = Meeting {
        trust: Trust::Pinned(CertificateFingerprint([7; 32])),
        ..Meeting::of(&region)
    };
    let error = wrong.happens().unwrap_err();
    assert!(error.contains("does not show the region's root"), "{error}");
    assert!(error.contains("0707"), "{error}");
}

#[test]
fn strangers_are_refused_on_both_sides() {
    let (region, other) = (authority("lab"), authority("lab"));
    let no_certificate = Meeting {
        client: None,
        ..Meeting::of(&region)
    };
    let error = no_certificate.happens().unwrap_err();
    assert!(error.starts_with("server:"), "{error}");
    for clients in [Clients::Certified, Clients::Any] {
        let foreign_client = Meeting {
            clients,
            client: Some((&other, subject(Role::Box, "box-1"))),
            ..Meeting::of(&region)
        };
        let error = foreign_client.happens().unwrap_err();
        assert!(error.starts_with("server:"), "{error}");
    }
    let foreign_server = Meeting {
        server: (&other, subject(Role::Indexer, "indexer")),
        ..Meeting::of(&region)
    };
    let error = foreign_server.happens().unwrap_err();
    assert!(error.starts_with("client:"), "{error}");
}

#[test]
fn who_lost_his_rights_is_told_so() {
    let region = authority("lab");
    for clients in [Clients::Certified, Clients::Any] {
        let revoked = Meeting {
            clients,
            is_revoked: true,
            ..Meeting::of(&region)
        };
        let error = revoked.happens().unwrap_err();
        assert!(
            error.starts_with("server:") && error.contains("Revoked"),
            "{error}"
        );
    }
}

#[test]
fn nobody_but_a_server_is_one() {
    let region = authority("lab");
    for role in [
        Role::Box,
        Role::Sensor,
        Role::App,
        Role::Checker,
        Role::Admin,
    ] {
        let impostor = Meeting {
            server: (&region, subject(role, "indexer")),
            ..Meeting::of(&region)
        };
        let error = impostor.happens().unwrap_err();
        assert!(error.starts_with("client:"), "{role}: {error}");
    }
    // And a broker beside the indexer is no client.
    let broker = Meeting {
        client: Some((&region, subject(Role::Broker, "broker"))),
        ..Meeting::of(&region)
    };
    assert!(broker.happens().unwrap_err().starts_with("server:"));
}

#[test]
fn a_region_is_not_another() {
    let region = authority("home");
    let elsewhere = Subject {
        region: id("home"),
        ..subject(Role::Indexer, "indexer")
    };
    let client = Subject {
        region: id("home"),
        ..subject(Role::Box, "box-1")
    };
    let meeting = Meeting {
        server: (&region, elsewhere),
        client: Some((&region, client)),
        ..Meeting::of(&region)
    };
    let error = meeting.happens().unwrap_err();
    assert!(error.contains("belongs to region home, not lab"), "{error}");
    // And it issues in its own name only: one root may stand above several.
    let (_, public) = new_key().unwrap();
    let foreign = region.issue(&subject(Role::Box, "box-1"), &public, lasting(7), &[]);
    assert!(foreign.is_err(), "{foreign:?}");
}

#[test]
fn a_clock_that_stands_at_1970_hinders_nobody_and_one_ahead_is_told() {
    let region = authority("lab");
    let behind = Meeting {
        client_clock_s: 0,
        ..Meeting::of(&region)
    };
    behind.happens().unwrap();
    let ahead = Meeting {
        client_clock_s: NOW_S + 8 * DAY_S,
        ..Meeting::of(&region)
    };
    let error = ahead.happens().unwrap_err();
    assert!(error.contains("expired"), "{error}");
}
