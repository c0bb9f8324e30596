//! Boxes come, talk and go; the region shows it. Real broker, real MQTT, real HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod support;

use std::time::Duration;

use edge_indexer::settings::BrokerChoice;
use edge_protocol::metric::{self, of_model};
use edge_protocol::sparkplug::{HostState, Value, state_topic};
use edge_protocol::{Id, limit};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use support::{FakeBox, World, payload, settings};

const LOAD: &str = metric::CPU_LOAD_PERCENT;

#[tokio::test(flavor = "multi_thread")]
async fn a_box_lives_and_dies() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let success = of_model("digits", metric::SUCCESS);
    let mut fake = FakeBox::connect(world.indexer.mqtt(), "box-1", 3).await;
    let model = (success.as_str(), Value::UInt(4));
    fake.birth(7, &[(LOAD, Value::Double(12.5)), model]).await;
    let born = world.wait_online("box-1", true).await;
    assert_eq!(born["board"], "host-sim");
    assert_eq!(born["agent_version"], "0.1.0");
    assert_eq!(born["metrics"][LOAD], 12.5);
    assert!(born["clock_skew_ms"].as_i64().unwrap().abs() < 5_000);
    assert_eq!(born["warnings"], serde_json::json!([]));

    fake.data(
        1,
        &[(LOAD, Value::Double(50.0)), (&success, Value::UInt(9))],
    )
    .await;
    world
        .wait("data arrived", "/api/v1/boxes/box-1", |json| {
            json["metrics"][LOAD] == 50.0
        })
        .await;
    let (_, region) = world.get("/api/v1/region").await;
    assert_eq!(region["region"], "home");
    assert_eq!(region["boxes_online"], 1);
    assert_eq!(region["requests_total"], 9);
    assert_eq!(region["telemetry_messages"], 2);

    let path = format!("/api/v1/boxes/box-1/history?metric={LOAD}");
    let points = world
        .wait("both values are in the history", &path, |points| {
            points.as_array().is_some_and(|points| points.len() == 2)
        })
        .await;
    assert_eq!(
        (&points[0]["value"], &points[1]["value"]),
        (&12.5.into(), &50.0.into())
    );
    assert!(points[0]["at_ms"].as_u64() <= points[1]["at_ms"].as_u64());

    fake.cut();
    let dead = world.wait_online("box-1", false).await;
    assert_eq!(dead["metrics"][LOAD], 50.0, "the last known values stay");
    world.wait_event("box-offline").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_messages_and_missed_births_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let mut stranger = FakeBox::connect(world.indexer.mqtt(), "stranger", 1).await;
    stranger.data(9, &[(LOAD, Value::Double(1.0))]).await;
    stranger.asked_for_birth().await;
    world.wait_online("stranger", false).await;
    stranger.birth(7, &[]).await;
    world.wait_online("stranger", true).await;

    let mut forgetful = FakeBox::connect(world.indexer.mqtt(), "forgetful", 1).await;
    forgetful.birth(7, &[]).await;
    forgetful.data(1, &[]).await;
    forgetful.data(3, &[]).await;
    forgetful.asked_for_birth().await;
    let event = world.wait_event("sequence-gap").await;
    assert_eq!(event["box"], "forgetful");
    let (_, region) = world.get("/api/v1/region").await;
    assert_eq!(region["rebirths_requested"], 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_boxes_with_one_id_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let broker = world.indexer.mqtt();
    // The same client id too: the broker throws the other out each time, and publishes its will.
    for (bd_seq, instance) in [(1, 7), (1, 8), (2, 7), (2, 8)] {
        let mut fake = FakeBox::connect(broker, "twin", bd_seq).await;
        fake.birth(instance, &[(LOAD, Value::UInt(instance * 10 + bd_seq))])
            .await;
        world
            .wait("it was heard", "/api/v1/boxes/twin", |json| {
                json["metrics"][LOAD] == instance * 10 + bd_seq
            })
            .await;
    }
    let event = world.wait_event("duplicate-box-id").await;
    assert_eq!(event["box"], "twin");
    let (_, twin) = world.get("/api/v1/boxes/twin").await;
    assert_eq!(twin["warnings"], serde_json::json!(["duplicate-box-id"]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_are_counted_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let mut fake = FakeBox::connect(world.indexer.mqtt(), "box-1", 1).await;
    fake.birth(7, &[]).await;
    let hostile: [(&str, Vec<u8>); 6] = [
        ("spBv1.0/home/NBIRTH/box-1", b"not protobuf".to_vec()),
        ("spBv1.0/home/NDATA/box-1", vec![0xff; 4_096]),
        (
            "spBv1.0/home/NDATA/box-1",
            vec![0; limit::SPARKPLUG_MAX_BYTES + 1],
        ),
        (
            "spBv1.0/home/NBIRTH/UPPER",
            payload(Some(0), &[]).to_bytes(),
        ),
        ("spBv1.0/home/NOTHING/box-1", Vec::new()),
        ("spBv1.0/home/NBIRTH/box-2/device", Vec::new()),
    ];
    let count = hostile.len();
    for (topic, bytes) in hostile {
        fake.publish(topic, bytes).await;
    }
    fake.data(
        1,
        &[
            (LOAD, Value::Double(2.0)),
            ("text", Value::Text("<script>alert(1)</script>".into())),
        ],
    )
    .await;
    let region = world
        .wait("all were counted", "/api/v1/region", |json| {
            json["hostile_messages"] == count
        })
        .await;
    assert_eq!(region["boxes_total"], 1);
    let event = world.wait_event("hostile-payload").await;
    assert!(
        event["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty())
    );
    let shown = world.wait_online("box-1", true).await;
    assert_eq!(shown["metrics"]["text"], "<script>alert(1)</script>");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_says_when_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let broker = world.indexer.mqtt().clone();
    let mut options = MqttOptions::new("watcher", broker.host, broker.port);
    options.set_outgoing_inflight_upper_limit(16);
    let (client, mut connection) = AsyncClient::new(options, 8);
    let topic = state_topic(&Id::new("indexer").unwrap());
    client.subscribe(&topic, QoS::AtLeastOnce).await.unwrap();
    let mut next = async || {
        let polling = async {
            loop {
                if let Event::Incoming(Incoming::Publish(publish)) =
                    connection.poll().await.unwrap()
                {
                    return serde_json::from_slice::<HostState>(&publish.payload).unwrap();
                }
            }
        };
        tokio::time::timeout(support::DEADLINE, polling)
            .await
            .unwrap()
    };
    let online = next().await;
    assert!(online.online);

    // An earlier connection's will that arrives late is corrected.
    let stale = serde_json::to_vec(&HostState {
        online: false,
        timestamp: 1,
    })
    .unwrap();
    client
        .publish(&topic, QoS::AtLeastOnce, true, stale)
        .await
        .unwrap();
    assert!(!next().await.online);
    assert_eq!(next().await, online);

    let ((), last) = tokio::join!(world.stop(), next());
    assert_eq!((last.online, last.timestamp), (false, online.timestamp));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_broker_may_be_away() {
    let folder = tempfile::tempdir().unwrap();
    let carrier = World::start(settings(folder.path())).await;
    let broker = carrier.indexer.mqtt().clone();
    let mut proxy = support::Proxy::start(&broker).await;
    let beside = tempfile::tempdir().unwrap();
    let mut outside = settings(beside.path());
    outside.indexer = Id::new("second").unwrap();
    outside.broker = BrokerChoice::Outside(proxy.address());
    let world = World::start(outside).await;
    let mut fake = FakeBox::connect(&broker, "box-1", 1).await;
    fake.birth(7, &[]).await;
    world.wait_online("box-1", true).await;

    proxy.cut();
    world.wait_event("broker-lost").await;
    let (status, health) = world.get("/healthz").await;
    assert_eq!((status, &health["status"]), (503, &"degraded".into()));
    world.wait_online("box-1", false).await; // nobody knows, so nobody is told otherwise

    proxy.mend().await;
    world
        .wait("the indexer is healthy again", "/healthz", |health| {
            health["status"] == "ok"
        })
        .await;
    // The subscription follows the connection: speak until it is heard.
    let mut seq = 0;
    let asked = async {
        loop {
            seq += 1;
            fake.data(seq, &[]).await;
            let asked = fake.asked_for_birth();
            if tokio::time::timeout(Duration::from_millis(200), asked)
                .await
                .is_ok()
            {
                return;
            }
        }
    };
    tokio::time::timeout(support::DEADLINE, asked)
        .await
        .unwrap();
    fake.birth(7, &[]).await;
    world.wait_online("box-1", true).await;
    world.stop().await;
    carrier.stop().await;
}
