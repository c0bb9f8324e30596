//! The region's memory: over restarts, over a full store, and never in the way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod support;

use edge_indexer::region::Sample;
use edge_indexer::store::{OpenError, Store};
use edge_protocol::sparkplug::Value;
use edge_protocol::{Id, metric};
use support::{FakeBox, World, settings};

const LOAD: &str = metric::CPU_LOAD_PERCENT;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_boxes_history_and_events() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let mut fake = FakeBox::connect(world.indexer.mqtt(), "box-1", 1).await;
    fake.birth(7, &[(LOAD, Value::Double(1.0))]).await;
    for seq in 1..=20 {
        let value = Value::UInt(seq);
        fake.data(seq, &[(LOAD, Value::Double(2.0)), ("count", value)])
            .await;
    }
    let before = world
        .wait("all arrived", "/api/v1/boxes/box-1", |json| {
            json["metrics"]["count"] == 20
        })
        .await;
    world.stop().await;

    let world = World::start(settings(folder.path())).await;
    let (_, after) = world.get("/api/v1/boxes/box-1").await;
    assert_eq!(after["online"], false, "until it is born again");
    for field in [
        "first_seen_ms",
        "last_seen_ms",
        "born_ms",
        "messages",
        "metrics",
        "board",
    ] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let (_, points) = world.get("/api/v1/boxes/box-1/history?metric=count").await;
    let values: Vec<_> = points
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["value"].as_u64().unwrap())
        .collect();
    assert_eq!(values, (1..=20).collect::<Vec<_>>());
    let (_, newest) = world
        .get("/api/v1/boxes/box-1/history?metric=count&limit=3")
        .await;
    assert_eq!(newest.as_array().unwrap().len(), 3);
    assert_eq!(newest[2]["value"], 20);
    let from = points[4]["at_ms"].as_u64().unwrap();
    let (_, part) = world
        .get(&format!(
            "/api/v1/boxes/box-1/history?metric=count&from_ms={from}&to_ms={from}"
        ))
        .await;
    assert!(
        part.as_array()
            .unwrap()
            .iter()
            .all(|point| point["at_ms"] == from)
    );
    assert!(
        part.as_array()
            .unwrap()
            .iter()
            .any(|point| point["value"] == 5)
    );
    world.wait_event("box-online").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_history_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = settings(folder.path());
    small.store.limit_mb = 1;
    let world = World::start(small).await;
    let mut fake = FakeBox::connect(world.indexer.mqtt(), "box-1", 1).await;
    fake.birth(7, &[]).await;
    // 400 bytes each: five times what fits, and less than what may wait to be written.
    let text = "x".repeat(400);
    for n in 0..12_000_u64 {
        fake.data(
            (n + 1) % 256,
            &[("text", Value::Text(text.clone())), ("n", Value::UInt(n))],
        )
        .await;
    }
    let region = world
        .wait("all were written", "/api/v1/region", |json| {
            json["store"]["samples_written"] == 12_001
        })
        .await;
    let store = &region["store"];
    assert_eq!(store["samples_dropped"], 0);
    assert!(store["samples_expired"].as_u64() > Some(8_000), "{store}");
    assert!(store["used_bytes"].as_u64() <= store["limit_bytes"].as_u64());
    assert_eq!(store["limit_bytes"], 1 << 20);
    let newest = world
        .wait(
            "the newest is there",
            "/api/v1/boxes/box-1/history?metric=n&limit=1",
            |points| points[0]["value"] == 11_999,
        )
        .await;
    assert_eq!(newest.as_array().unwrap().len(), 1);
    world
        .wait("the store is well", "/healthz", |health| {
            health["status"] == "ok"
        })
        .await;
    world.stop().await;
    let file = std::fs::metadata(folder.path().join("region.sqlite3")).unwrap();
    assert!(file.len() <= 1 << 20, "{} bytes", file.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_survived_said_and_recovered_from() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = settings(folder.path());
    small.store.limit_mb = 1;
    let world = World::start(small).await;
    let mut fake = FakeBox::connect(world.indexer.mqtt(), "box-1", 1).await;
    fake.birth(7, &[]).await;
    world
        .wait("the birth is written", "/api/v1/region", |json| {
            json["store"]["samples_written"] == 1
        })
        .await;
    // Somebody else takes all the room there is, and more.
    let file = folder.path().join("region.sqlite3");
    let somebody = rusqlite::Connection::open(file).unwrap();
    somebody.busy_timeout(support::DEADLINE).unwrap();
    somebody
        .execute_batch(
            "CREATE TABLE ballast (bytes BLOB); INSERT INTO ballast VALUES (zeroblob(3 << 20));",
        )
        .unwrap();
    let full = async |fake: &mut FakeBox, wanted: &str| {
        let mut seq = 0_u64;
        loop {
            seq += 1;
            fake.data(
                seq % 256,
                &[
                    ("n", Value::UInt(seq)),
                    ("text", Value::Text("x".repeat(400))),
                ],
            )
            .await;
            let (_, health) = world.get("/healthz").await;
            if health["status"] == wanted {
                return health;
            }
        }
    };
    let filling = full(&mut fake, "degraded");
    let health = tokio::time::timeout(support::DEADLINE, filling)
        .await
        .unwrap();
    assert!(
        health["reasons"][0].as_str().unwrap().contains("full"),
        "{health}"
    );
    let event = world.wait_event("store-failing").await;
    assert!(
        event["detail"]
            .as_str()
            .unwrap()
            .contains("--store-limit-mb")
    );
    fake.birth(7, &[("after", Value::Bool(true))]).await;
    world
        .wait("the region goes on", "/api/v1/boxes/box-1", |json| {
            json["metrics"]["after"] == true
        })
        .await;
    world
        .wait("what is lost is counted", "/api/v1/region", |json| {
            json["store"]["failing"].is_string()
                && json["store"]["samples_dropped"].as_u64() > Some(0)
        })
        .await;

    somebody.execute_batch("DROP TABLE ballast").unwrap();
    world
        .wait("the store writes again", "/healthz", |health| {
            health["status"] == "ok"
        })
        .await;
    world.wait_event("store-recovered").await;
    fake.data(1, &[("again", Value::UInt(1))]).await;
    world
        .wait(
            "history goes on",
            "/api/v1/boxes/box-1/history?metric=again",
            |points| points.as_array().is_some_and(|points| points.len() == 1),
        )
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_full_of_names_refuses_new_ones_and_keeps_the_known() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path()).store;
    Store::open(&settings).unwrap().0.close(Vec::new());
    let somebody = rusqlite::Connection::open(folder.path().join("region.sqlite3")).unwrap();
    somebody
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 65535) \
             INSERT INTO metric_names (name) SELECT 'm/' || i FROM n;",
        )
        .unwrap();

    let (store, _) = Store::open(&settings).unwrap();
    let sample = |names: std::ops::RangeInclusive<u64>| Sample {
        box_id: Id::new("box-1").unwrap(),
        at_ms: support::now_ms(),
        box_ms: None,
        arrived_ms: support::now_ms(),
        values: names
            .map(|n| (format!("m/{n}").into(), Value::UInt(n)))
            .collect(),
    };
    store.sample(sample(65_535..=65_537)); // one known, one that still fits, one too many
    store.sample(sample(65_538..=65_538));
    // More known names than keys are kept in memory.
    for first in (1..=20_000).step_by(400) {
        store.sample(sample(first..=first + 399));
    }
    let mut status = store.status();
    let written = status.wait_for(|view| view.samples_written == 51);
    let view = tokio::time::timeout(support::DEADLINE, written)
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert_eq!((view.values_refused, view.samples_dropped), (2, 1));
    tokio::task::spawn_blocking(move || store.close(Vec::new()))
        .await
        .unwrap();
    let names: i64 = somebody
        .query_row("SELECT count(*) FROM metric_names", [], |row| row.get(0))
        .unwrap();
    assert_eq!(names, 65_536);
}

#[test]
fn a_folder_belongs_to_one_indexer_and_a_store_to_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path()).store;
    let (store, _) = Store::open(&settings).unwrap();
    assert!(matches!(
        Store::open(&settings),
        Err(OpenError::InUse { .. })
    ));
    store.close(Vec::new());

    let file = folder.path().join("region.sqlite3");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(&settings).unwrap_err();
    assert!(matches!(error, OpenError::TooNew { found: 99, .. }));

    std::fs::write(&file, "no database").unwrap();
    let error = Store::open(&settings).unwrap_err();
    assert!(error.to_string().contains("move it away"), "{error}");
}
