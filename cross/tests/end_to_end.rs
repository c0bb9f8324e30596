//! Whole regions of real processes: a sensor sends real images, boxes read them, the region sees
//! it all. Against the indexer's own broker and against Debian's Mosquitto.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use cross::demo;
use cross::region::{Broker, Region};
use cross::sensor::{Sensor, SensorResult, Until};
use cross::shell;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::plan;

const WANTED_ACCURACY: f64 = 97.0;

fn the_demo_convinces(broker: Broker) {
    // The end of the sender would be a wish to stop.
    let (_stay, stop) = mpsc::channel();
    let report =
        demo::run(plan(broker, 3), &cross::heldout_images(), Some(4), &stop).expect("a demo");
    report.judge(3).expect("a demo that convinces");
    let SensorResult {
        requests,
        answered,
        failures,
        ..
    } = &report.sensor;
    assert!(*requests >= 100, "{report:?}");
    assert_eq!(answered, requests, "{report:?}");
    assert!(failures.is_empty(), "{report:?}");
    assert!(report.accuracy() >= WANTED_ACCURACY, "{report:?}");
    assert!(report.telemetry_messages >= 3, "{report:?}");
    assert!(
        report.boxes.iter().all(|state| state.requests > 0),
        "all boxes share the load"
    );
}

#[test]
fn the_demo_convinces_with_certificates() {
    the_demo_convinces(Broker::Secured);
}

#[test]
fn the_demo_convinces_with_the_embedded_broker() {
    the_demo_convinces(Broker::Embedded);
}

#[test]
fn the_demo_convinces_with_mosquitto() {
    the_demo_convinces(Broker::Mosquitto);
}

/// A sensor that is not ours: `mosquitto_rr` asks what the first held-out image shows.
fn a_foreign_sensor_is_answered(broker: Broker) {
    let region = Region::start(plan(broker, 1)).expect("a region");
    let images = std::fs::read_to_string(cross::heldout_images()).expect("images");
    let image = images.lines().nth(1).expect("a first image");
    let values: Vec<i64> = image
        .split(',')
        .map(|value| value.parse().expect("a pixel"))
        .collect();
    let input = json!({
        "name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": values[1..],
    });
    let client = "foreign-1";
    let mut ask = Command::new("mosquitto_rr");
    if let Some(identity) = region.sensor_identity(client).expect("a certificate") {
        ask.arg("--cafile").arg(identity.join("region-ca.pem"));
        ask.arg("--cert").arg(identity.join("certificate.pem"));
        ask.arg("--key").arg(identity.join("key.pem"));
    }
    ask.args(["-h", "127.0.0.1", "-p", &region.mqtt_port().to_string()])
        .args(["-V", "mqttv5", "-q", "1", "-W", "10", "-i", client])
        .args(["-t", &format!("edge/v1/demo/any/infer/digits/{client}")])
        .args(["-e", &format!("edge/v1/demo/reply/{client}/r")])
        .args(["-D", "publish", "correlation-data", "x"])
        .args(["-D", "publish", "message-expiry-interval", "10"])
        .args(["-D", "publish", "content-type", "application/json"])
        .args(["-m", &json!({ "inputs": [input] }).to_string()]);
    let answer = shell::output(&mut ask).expect("mosquitto_rr");
    let answer: Value = serde_json::from_str(&answer).expect("an answer in JSON");
    assert_eq!(answer["model_name"], "digits");
    let outputs = answer["outputs"].as_array().expect("outputs");
    let label = outputs
        .iter()
        .find(|output| output["name"] == "label")
        .expect("a label");
    assert_eq!(label["datatype"], "INT64");
    assert_eq!(
        label["data"],
        json!([values[0]]),
        "the image is labelled {}",
        values[0]
    );
    region.stop().expect("a clean end");
}

#[test]
fn a_foreign_sensor_with_a_certificate_is_answered() {
    a_foreign_sensor_is_answered(Broker::Secured);
}

#[test]
fn a_foreign_sensor_is_answered_through_the_embedded_broker() {
    a_foreign_sensor_is_answered(Broker::Embedded);
}

#[test]
fn a_foreign_sensor_is_answered_through_mosquitto() {
    a_foreign_sensor_is_answered(Broker::Mosquitto);
}

/// Puts three boxes under load, does something to one of them in the middle of it, and checks that
/// the sensor got every answer, each once.
fn no_answer_is_lost_when(broker: Broker, happens: impl FnOnce(&mut Region)) {
    const REQUESTS: u64 = 600;
    let mut region = Region::start(plan(broker, 3)).expect("a region");
    let images = cross::heldout_images();
    let sensor = Sensor::start(&region, "sensor-1", &images, Until::Count(REQUESTS), 200);
    let sensor = sensor.expect("a sensor");
    region
        .wait_until("requests are counted", Duration::from_secs(20), |region| {
            region
                .totals()
                .is_ok_and(|totals| totals.requests_total >= REQUESTS / 6)
        })
        .expect("load");
    happens(&mut region);
    let result = sensor.result(Duration::from_secs(30)).expect("a result");
    assert_eq!(result.requests, REQUESTS, "{result:?}");
    assert_eq!(result.answered, REQUESTS, "{result:?}");
    assert!(result.failures.is_empty(), "{result:?}");
    region.stop().expect("a clean end");
}

#[test]
fn no_answer_is_lost_when_a_box_loses_power() {
    no_answer_is_lost_when(Broker::Secured, |region| {
        region.box_processes().remove(0).kill().expect("a kill");
    });
}

#[test]
fn no_answer_is_lost_when_a_box_behind_mosquitto_loses_power() {
    no_answer_is_lost_when(Broker::Mosquitto, |region| {
        region.box_processes().remove(0).kill().expect("a kill");
    });
}

#[test]
fn no_answer_is_lost_when_a_box_is_shut_down() {
    no_answer_is_lost_when(Broker::Embedded, |region| {
        let mut agent = region.box_processes().remove(0);
        agent.signal(Signal::SIGTERM);
        let status = agent.wait(Duration::from_secs(15)).expect("an end");
        assert!(
            status.success(),
            "the agent drained and ended with {status}"
        );
    });
}
