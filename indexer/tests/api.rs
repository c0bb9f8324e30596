//! The API as programs meet it: its document, its errors, its stream, its headers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod support;

use edge_indexer::settings::Settings;
use edge_protocol::metric;
use edge_protocol::sparkplug::Value;
use support::{FakeBox, World, settings};

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_path_answers_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let mut fake = FakeBox::connect(world.indexer.mqtt(), "box-1", 1).await;
    fake.birth(7, &[(metric::CPU_LOAD_PERCENT, Value::Double(1.0))])
        .await;
    world.wait_online("box-1", true).await;

    let (_, document) = world.get("/api/v1/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 9);
    for (path, item) in paths {
        let operation = &item["get"];
        let url = path.replace("{id}", "box-1");
        let required: Vec<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query" && parameter["required"] == true)
            .map(|parameter| {
                format!(
                    "{}={}",
                    parameter["name"].as_str().unwrap(),
                    metric::CPU_LOAD_PERCENT
                )
            })
            .collect();
        let url = format!("{url}?{}", required.join("&"));
        let answer = world.http.get(world.url(&url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        let content = &operation["responses"]["200"]["content"];
        let documented = content.as_object().unwrap().keys().next().unwrap();
        let answered = answer.headers()["content-type"].to_str().unwrap();
        assert!(
            answered.starts_with(documented.as_str()),
            "{url}: {answered} is not {documented}"
        );
    }
    // The fields of a box are those of its schema, and the other way round.
    let (_, shown) = world.get("/api/v1/boxes/box-1").await;
    let mut fields: Vec<_> = shown.as_object().unwrap().keys().collect();
    fields.sort();
    let schema = &document["components"]["schemas"]["BoxView"]["properties"];
    let mut documented: Vec<_> = schema.as_object().unwrap().keys().collect();
    documented.sort();
    assert_eq!(fields, documented);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_json_with_the_right_code() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    for (path, status) in [
        ("/api/v1/boxes/nobody", 404),
        ("/api/v1/boxes/NoName", 400),
        ("/api/v1/boxes/nobody/history?metric=x", 404),
        ("/api/v1/boxes?limit=0", 400),
        ("/api/v1/boxes?limit=many", 400),
        ("/api/v1/boxes?limits=1", 400),
        ("/api/v1/boxes?after=%2F", 400),
        ("/api/v1/events?limit=-1", 400),
        ("/api/v2/boxes", 404),
        ("/nothing", 404),
    ] {
        let (answered, body) = world.get(path).await;
        assert_eq!(answered, status, "{path}");
        assert!(
            body["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty()),
            "{path}: {body}"
        );
    }
    let posted = world
        .http
        .post(world.url("/api/v1/boxes"))
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 405);
    assert!(posted.json::<serde_json::Value>().await.unwrap()["error"].is_string());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_are_paged_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let mut fake = FakeBox::connect(world.indexer.mqtt(), "any", 1).await;
    for n in 0..25 {
        let topic = format!("spBv1.0/home/NBIRTH/box-{n:02}");
        fake.publish(&topic, support::birth(1, n, &[]).to_bytes())
            .await;
    }
    world
        .wait("all are there", "/api/v1/region", |json| {
            json["boxes_online"] == 25
        })
        .await;
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let (_, page) = world.get(&format!("/api/v1/boxes?limit=10{after}")).await;
        let page = page.as_array().unwrap();
        names.extend(
            page.iter()
                .map(|shown| shown["id"].as_str().unwrap().to_owned()),
        );
        if page.len() < 10 {
            break;
        }
        after = format!("&after={}", names.last().unwrap());
    }
    let expected: Vec<_> = (0..25).map(|n| format!("box-{n:02}")).collect();
    assert_eq!(names, expected);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_tells_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    let mut stream = world
        .http
        .get(world.url("/api/v1/stream"))
        .send()
        .await
        .unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut fake = FakeBox::connect(world.indexer.mqtt(), "box-1", 1).await;
    fake.birth(7, &[]).await;
    let reading = async {
        let mut text = String::new();
        loop {
            text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
            while let Some((message, rest)) = text.split_once("\n\n") {
                if let Some(data) = message.lines().find_map(|line| line.strip_prefix("data: ")) {
                    let update: serde_json::Value = serde_json::from_str(data).unwrap();
                    if update["boxes"]
                        .as_array()
                        .is_some_and(|boxes| !boxes.is_empty())
                    {
                        return update;
                    }
                }
                text = rest.to_owned();
            }
        }
    };
    let update = tokio::time::timeout(support::DEADLINE, reading)
        .await
        .unwrap();
    assert_eq!(update["region"]["boxes_online"], 1);
    assert_eq!(update["boxes"][0]["id"], "box-1");
    let mut events = update["events"].as_array().unwrap().iter();
    assert!(events.any(|event| event["kind"] == "box-online" && event["box"] == "box-1"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_with_guards() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(settings(folder.path())).await;
    for path in ["/", "/page.css", "/page.js", "/favicon.svg"] {
        let answer = world.http.get(world.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let headers = answer.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        let text = answer.text().await.unwrap();
        assert!(
            !text.contains("innerHTML"),
            "{path} writes markup from text"
        );
        assert!(
            !text.contains(" style=") && !text.contains(" onclick="),
            "{path} breaks its policy"
        );
    }
    let metrics = world.http.get(world.url("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(
            name.starts_with("edge_indexer_") && name.ends_with("{region=\"home\"}"),
            "{line}"
        );
        value.parse::<f64>().unwrap();
    }
    world.stop().await;
}

/// A page of another site makes a browser ask, by another name or in the user's own.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_pages_get_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(Settings {
        hosts: vec!["region.lan".to_owned()],
        ..settings(folder.path())
    })
    .await;
    let url = world.url("/api/v1/region");
    for (host, status) in [
        ("evil.example", 421),
        ("region.lan:8080", 200),
        ("[::1]", 200),
    ] {
        let asked = world.http.get(&url).header("host", host).send();
        assert_eq!(asked.await.unwrap().status(), status, "{host}");
    }
    for (name, value, status) in [
        ("sec-fetch-site", "cross-site", 403),
        ("origin", "http://evil.example", 403),
        ("sec-fetch-site", "same-origin", 405),
    ] {
        let asked = world.http.post(&url).header(name, value).send();
        assert_eq!(asked.await.unwrap().status(), status, "{name}: {value}");
    }
    // Headers are bounded too.
    let long = "x".repeat(64 << 10);
    let asked = world.http.get(&url).header("x-long", long).send().await;
    assert!(asked.is_err() || asked.unwrap().status() == 431);
    world.stop().await;
}
