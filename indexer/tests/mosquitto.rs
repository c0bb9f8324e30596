//! Debian's Mosquitto with the settings and the access list that the project ships: the same matrix, and its known gaps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod matrix;
mod outside;
mod secured;
mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use edge_identity::broker_files::{MOSQUITTO_CONF, mosquitto_acl, rmqtt_acl};
use edge_identity::limits::Limits;
use edge_identity::subject::{Role, Subject};
use outside::{Client, MARK, TESTER};
use rumqttc::v5::{AsyncClient, Event, Incoming};
use secured::{Ca, Holder, lasting_s, options, subject};
use support::DEADLINE;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("broker")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// One of each role, for the example that is shipped.
fn examples() -> Vec<Subject> {
    let names = [
        "box-1",
        "cam-1",
        "app-1",
        "checker-1",
        "admin-1",
        "indexer",
        "broker",
    ];
    let subjects = Role::ALL.into_iter().zip(names);
    subjects.map(|(role, name)| subject(role, name)).collect()
}

#[test]
fn what_is_shipped_is_what_is_written() {
    assert_eq!(shipped("mosquitto.conf"), MOSQUITTO_CONF);
    let examples = examples();
    let unbound = Limits::default();
    let list = || examples.iter().map(|subject| (subject, &unbound));
    assert_eq!(shipped("mosquitto.acl.example"), mosquitto_acl(list()));
    assert_eq!(shipped("rmqtt-acl.example.toml"), rmqtt_acl(list()));
    // Bound to two models: a line for each.
    let bound = Limits {
        models: vec![secured::id("digits"), secured::id("squeezenet")],
        per_minute: None,
    };
    let list = mosquitto_acl([(&subject(Role::Sensor, "cam-1"), &bound)]);
    for (model, count) in [("digits", 2), ("squeezenet", 2), ("+", 0)] {
        let asked = format!("/infer/{model}/cam-1");
        assert_eq!(list.matches(&asked).count(), count, "{list}");
    }
}

struct Mosquitto {
    process: Child,
    address: SocketAddr,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _waited = self.process.wait();
    }
}

impl Mosquitto {
    /// As the shipped settings say to start it, in `folder`.
    async fn start(ca: &mut Ca, folder: &Path, acl: &str) -> Self {
        let holder = Holder::new(Role::Broker, "broker");
        let hosts = ["127.0.0.1".to_owned()];
        let issued = ca
            .registry
            .issue(
                &ca.authority,
                &holder.subject,
                &holder.public,
                lasting_s(3_600),
                &hosts,
            )
            .unwrap();
        let (root, intermediate) = (
            ca.authority.root_pem().unwrap(),
            ca.authority.intermediate_pem().unwrap(),
        );
        let revoked = ca.registry.revoked_serials(secured::now_s()).unwrap();
        let revoked = ca.authority.revocation_list(&revoked, lasting_s(3_600));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        // Only the port, and the user: the files are for this test's user alone.
        let listen = format!("listener {} 127.0.0.1", address.port());
        let settings = MOSQUITTO_CONF.replace("listener 8883", &listen) + "user root\n";
        fs::create_dir_all(folder.join("broker")).unwrap();
        for (name, text) in [
            ("broker/certificate.pem", issued.pem + &intermediate + &root),
            ("broker/key.pem", holder.key_pem),
            ("clients-ca.pem", root + &intermediate),
            ("revoked.crl", revoked.unwrap()),
            ("mosquitto.acl", acl.to_owned()),
            ("mosquitto.conf", settings),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        let process = Command::new("mosquitto")
            .args(["-c", "mosquitto.conf"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(started.elapsed() < DEADLINE, "Mosquitto does not listen");
            tokio::task::yield_now().await;
        }
        Self { process, address }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_what_the_list_says_but_for_the_known_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let roles: Vec<(Role, String)> = Role::ALL
        .into_iter()
        .filter(|role| *role != Role::Broker)
        .map(|role| (role, format!("{role}-1")))
        .collect();
    let subjects: Vec<Subject> = roles
        .iter()
        .map(|(role, name)| subject(*role, name))
        .collect();
    let mark = format!("topic read {MARK}\n");
    let mut acl = String::new();
    let unbound = Limits::default();
    for subject in &subjects {
        acl += &mosquitto_acl([(subject, &unbound)]);
        acl += &mark;
    }
    acl += &format!("user {TESTER}\ntopic readwrite #\n");
    let mosquitto = Mosquitto::start(&mut ca, folder.path(), &acl).await;
    let tls = ca.holder(Role::Admin, TESTER);
    let mut tester = Client::connect(options(mosquitto.address, TESTER, tls))
        .await
        .unwrap();
    let mut wrong = Vec::new();
    for (role, name) in roles {
        let tls = ca.holder(role, &name);
        let mut client = Client::connect(options(mosquitto.address, &name, tls))
            .await
            .unwrap();
        wrong.extend(client.differs_from_matrix(role, &name, &mut tester).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let revoked = ca.holder(Role::Sensor, "cam-1");
    ca.registry
        .revoke(&secured::id("cam-1"), secured::now_s())
        .unwrap();
    let unbound = Limits::default();
    let acl = mosquitto_acl([
        (&subject(Role::Sensor, "cam-1"), &unbound),
        (&subject(Role::Sensor, "cam-2"), &unbound),
    ]);
    let mosquitto = Mosquitto::start(&mut ca, folder.path(), &acl).await;
    let tls = ca.holder(Role::Sensor, "cam-2");
    Client::connect(options(mosquitto.address, "cam-2", tls))
        .await
        .unwrap();
    let (_client, mut connection) =
        AsyncClient::new(options(mosquitto.address, "cam-1", revoked), 8);
    let refused = async {
        loop {
            match connection.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => panic!("it was accepted"),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    };
    let refused = tokio::time::timeout(DEADLINE, refused).await.unwrap();
    assert!(refused.to_lowercase().contains("revoked"), "{refused}");
}
