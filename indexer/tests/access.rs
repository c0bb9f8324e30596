//! The access list, role by role, on the embedded broker: what it grants and what it refuses, as clients see it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod matrix;
mod secured;
mod support;

use std::num::NonZeroU32;
use std::sync::Arc;

use edge_identity::access::Action;
use edge_identity::limits::Limits;
use edge_identity::subject::Role;
use matrix::{CASES, topic_for};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, LastWill, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, Incoming};
use rustls::ClientConfig;
use secured::{Ca, id, options};
use support::{DEADLINE, World};

async fn next<T>(
    connection: &mut EventLoop,
    mut wanted: impl FnMut(Result<Event, ConnectionError>) -> Option<T>,
) -> T {
    let polling = async {
        loop {
            if let Some(found) = wanted(connection.poll().await) {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, polling).await.unwrap()
}

/// The broker's answer to CONNECT.
async fn connected(connection: &mut EventLoop) -> Result<(), ConnectReturnCode> {
    next(connection, |event| match event {
        Ok(Event::Incoming(Incoming::ConnAck(_))) => Some(Ok(())),
        Ok(_) => None,
        // An earlier connection of the same client still ends.
        Err(ConnectionError::ConnectionRefused(ConnectReturnCode::ServerUnavailable)) => None,
        Err(ConnectionError::ConnectionRefused(code)) => Some(Err(code)),
        Err(error) => panic!("{error}"),
    })
    .await
}

async fn may_publish(client: &AsyncClient, connection: &mut EventLoop, topic: &str) -> bool {
    client
        .publish(topic, QoS::AtLeastOnce, false, "x")
        .await
        .unwrap();
    next(connection, |event| match event {
        Ok(Event::Incoming(Incoming::PubAck(ack))) => {
            Some(ack.reason != PubAckReason::NotAuthorized)
        }
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    })
    .await
}

async fn may_subscribe(client: &AsyncClient, connection: &mut EventLoop, filter: &str) -> bool {
    client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    next(connection, |event| match event {
        Ok(Event::Incoming(Incoming::SubAck(ack))) => Some(matches!(
            ack.return_codes[0],
            SubscribeReasonCode::Success(_)
        )),
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_what_the_list_says_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let world = World::start(ca.settings(folder.path())).await;
    let broker = world.indexer.listeners().unwrap().tls.unwrap();
    let mut wrong = Vec::new();
    for role in Role::ALL {
        if role == Role::Broker {
            continue;
        }
        let name = format!("{role}-1");
        let tls = ca.holder(role, &name);
        let (client, mut connection) = AsyncClient::new(options(broker, &name, tls), 8);
        connected(&mut connection).await.unwrap();
        for case in CASES {
            let topic = topic_for(case, &name);
            let allowed = match case.action {
                Action::Publish => may_publish(&client, &mut connection, &topic).await,
                Action::Subscribe => may_subscribe(&client, &mut connection, &topic).await,
            };
            if allowed != case.roles.contains(&role) {
                wrong.push(format!("{role} {:?} {topic}: {allowed}", case.action));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_and_a_will_are_the_certificates_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let world = World::start(ca.settings(folder.path())).await;
    let broker = world.indexer.listeners().unwrap().tls.unwrap();
    let tls = ca.holder(Role::Box, "box-1");
    let connect = |client_id: &str, will: Option<&str>, tls: &Arc<ClientConfig>| {
        let mut options = options(broker, client_id, Arc::clone(tls));
        if let Some(topic) = will {
            options.set_last_will(LastWill::new(topic, "x", QoS::AtLeastOnce, false, None));
        }
        // A name that a client claims says nothing.
        options.set_credentials("indexer", "x");
        AsyncClient::new(options, 8).1
    };
    let refused = Err(ConnectReturnCode::NotAuthorized);
    for (client_id, will, expected) in [
        ("box-1", None, Ok(())),
        ("box-1.telemetry", Some("spBv1.0/home/NDEATH/box-1"), Ok(())),
        (
            "box-1.telemetry",
            Some("spBv1.0/home/NDEATH/box-2"),
            refused,
        ),
        ("box-1.x", Some("spBv1.0/STATE/indexer"), refused),
        ("box-1.x", Some("edge/v1/home/box/box-2/wake"), refused),
        ("box-2.telemetry", None, refused),
        ("box-10", None, refused),
        ("indexer.host", None, refused),
    ] {
        let mut connection = connect(client_id, will, &tls);
        assert_eq!(
            connected(&mut connection).await,
            expected,
            "{client_id} {will:?}"
        );
    }
    world.stop().await;
}

/// Limits count at once, and without another certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_keeps_to_its_models_and_its_quota() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let tls = ca.holder(Role::Sensor, "cam-1");
    let bound = Limits {
        models: vec![id("digits")],
        per_minute: NonZeroU32::new(3),
    };
    ca.registry.limit(&id("cam-1"), &bound).unwrap();
    let world = World::start(ca.settings(folder.path())).await;
    let broker = world.indexer.listeners().unwrap().tls.unwrap();
    let (client, mut connection) = AsyncClient::new(options(broker, "cam-1", tls), 8);
    connected(&mut connection).await.unwrap();
    let (digits, other) = (
        "edge/v1/home/any/infer/digits/cam-1",
        "edge/v1/home/any/infer/other/cam-1",
    );
    let mut taken = Vec::new();
    for topic in [other, digits, other, digits, digits, digits] {
        taken.push(may_publish(&client, &mut connection, topic).await);
    }
    assert_eq!(taken, [false, true, false, true, true, false]);
    // An admin frees it while it is connected.
    ca.registry.limit(&id("cam-1"), &Limits::default()).unwrap();
    let freed = async {
        while !may_publish(&client, &mut connection, other).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, freed).await.unwrap();
    world.stop().await;
}

/// Behind the front, the broker listens on this machine for the front alone.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_past_the_front() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::make(folder.path());
    let world = World::start(ca.settings(folder.path())).await;
    let front = world.indexer.listeners().unwrap().tls.unwrap();
    let process = std::process::id();
    let mut tried = 0;
    for port in listening_ports(process) {
        let known = [
            front.port(),
            world.indexer.http().port(),
            world.indexer.https().unwrap().port(),
        ];
        if known.contains(&port) {
            continue;
        }
        let mut options = rumqttc::v5::MqttOptions::new("box-1", "127.0.0.1", port);
        options.set_credentials("box-1", "x");
        let mut connection = AsyncClient::new(options, 8).1;
        if let Ok(Err(code)) = tokio::time::timeout(DEADLINE, connected(&mut connection)).await {
            assert_eq!(code, ConnectReturnCode::NotAuthorized);
            tried += 1;
        } else {
            panic!("port {port} lets strangers in");
        }
    }
    assert_eq!(tried, 1, "the broker inside was found and tried");
    world.stop().await;
}

/// TCP ports of 127.0.0.1 on which this process listens, as the kernel lists them.
fn listening_ports(process: u32) -> Vec<u16> {
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fd")).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[") {
            sockets.push(inode.trim_end_matches(']').to_owned());
        }
    }
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_listening = fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]);
        let (_, port) = fields[1].split_once(':')?;
        is_listening.then(|| u16::from_str_radix(port, 16).unwrap())
    });
    listening.collect()
}
