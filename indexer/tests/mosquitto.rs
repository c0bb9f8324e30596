//! Debian's Mosquitto with the settings and the access list that the project ships: the same matrix, and its known gaps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod matrix;
mod secured;
mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use edge_identity::access::Action;
use edge_identity::broker_files::{MOSQUITTO_CONF, mosquitto_acl};
use edge_identity::subject::{Role, Subject};
use matrix::{CASES, Case, topic_for};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, Incoming};
use secured::{Ca, Holder, lasting_s, options, subject};
use support::DEADLINE;

/// Where the test tells a client that nothing more comes.
const MARK: &str = "test/mark";
/// Who may do everything, for the test alone.
const TESTER: &str = "tester";

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
    assert_eq!(shipped("mosquitto.acl.example"), mosquitto_acl(&examples()));
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

struct Client {
    client: AsyncClient,
    connection: EventLoop,
}

impl Client {
    async fn connect(
        ca: &mut Ca,
        broker: SocketAddr,
        role: Role,
        name: &str,
    ) -> Result<Self, ConnectionError> {
        let tls = ca.holder(role, name);
        let (client, connection) = AsyncClient::new(options(broker, name, tls), 8);
        let mut connected = Self { client, connection };
        connected
            .next(|event| match event {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => Some(Ok(())),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .await?;
        Ok(connected)
    }

    async fn next<T>(
        &mut self,
        mut wanted: impl FnMut(Result<Event, ConnectionError>) -> Option<T>,
    ) -> T {
        let polling = async {
            loop {
                if let Some(found) = wanted(self.connection.poll().await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(DEADLINE, polling).await.unwrap()
    }

    async fn publish(&mut self, topic: &str) -> bool {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, "x")
            .await
            .unwrap();
        self.next(|event| match event {
            Ok(Event::Incoming(Incoming::PubAck(ack))) => {
                Some(ack.reason != PubAckReason::NotAuthorized)
            }
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .await
    }

    /// Whether a message that the filter matches reaches this client. Mosquitto takes every subscription, and holds
    /// back what may not be read.
    async fn hears(&mut self, filter: &str, tester: &mut Client) -> bool {
        self.client
            .subscribe(filter, QoS::AtLeastOnce)
            .await
            .unwrap();
        self.next(|event| match event {
            Ok(Event::Incoming(Incoming::SubAck(_))) => Some(()),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .await;
        let topic = match filter.strip_prefix("$share/") {
            Some(shared) => shared.split_once('/').unwrap().1,
            None => filter,
        };
        let topic = topic.replace(['+', '#'], "x");
        if !topic.starts_with('$') {
            assert!(tester.publish(&topic).await, "{topic}");
        }
        assert!(tester.publish(MARK).await);
        let mut has_heard = false;
        self.next(|event| match event {
            Ok(Event::Incoming(Incoming::Publish(publish))) => {
                let heard = String::from_utf8_lossy(&publish.topic).into_owned();
                has_heard |= heard == topic;
                (heard == MARK).then_some(())
            }
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .await;
        self.client.unsubscribe(filter).await.unwrap();
        self.next(|event| match event {
            Ok(Event::Incoming(Incoming::UnsubAck(_))) => Some(()),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .await;
        has_heard
    }
}

/// What Mosquitto's file cannot say: that requests to any box are read as a member of the shared subscription only.
fn is_known_gap(role: Role, case: &Case) -> bool {
    role == Role::Box && case.action == Action::Subscribe && case.topic.contains("/any/infer/")
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
    for subject in &subjects {
        acl += &mosquitto_acl([subject]);
        acl += &mark;
    }
    acl += &format!("user {TESTER}\ntopic readwrite #\n");
    let mosquitto = Mosquitto::start(&mut ca, folder.path(), &acl).await;
    let mut tester = Client::connect(&mut ca, mosquitto.address, Role::Admin, TESTER)
        .await
        .unwrap();
    let mut wrong = Vec::new();
    for (role, name) in roles {
        let mut client = Client::connect(&mut ca, mosquitto.address, role, &name)
            .await
            .unwrap();
        client
            .client
            .subscribe(MARK, QoS::AtLeastOnce)
            .await
            .unwrap();
        for case in CASES {
            let topic = topic_for(case, &name);
            let allowed = match case.action {
                Action::Publish => client.publish(&topic).await,
                Action::Subscribe => client.hears(&topic, &mut tester).await,
            };
            let expected = case.roles.contains(&role) || is_known_gap(role, case);
            if allowed != expected {
                wrong.push(format!("{role} {:?} {topic}: {allowed}", case.action));
            }
        }
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
    let acl = mosquitto_acl(&[
        subject(Role::Sensor, "cam-1"),
        subject(Role::Sensor, "cam-2"),
    ]);
    let mosquitto = Mosquitto::start(&mut ca, folder.path(), &acl).await;
    Client::connect(&mut ca, mosquitto.address, Role::Sensor, "cam-2")
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
