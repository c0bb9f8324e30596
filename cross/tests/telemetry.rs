//! What the region hears of a real agent: births with all metrics, one more on command, data, and a death.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use support::{Client, OneBox};

/// A Sparkplug payload with the one metric `Node Control/Rebirth` = true, byte by byte: field 2, a metric of name
/// (1), datatype (4) 11 = Boolean, and value (14) true.
fn rebirth_command() -> Vec<u8> {
    let name = b"Node Control/Rebirth";
    let mut metric = vec![0x0a, 20];
    metric.extend(name);
    metric.extend([0x20, 11, 0x70, 1]);
    let mut payload = vec![0x12, u8::try_from(metric.len()).expect("a short metric")];
    payload.extend(metric);
    payload
}

fn has(payload: &[u8], text: &str) -> bool {
    payload.windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn the_region_hears_birth_data_rebirth_and_death() {
    let lab = OneBox::start();
    let mut region = Client::connect("region-1", lab.port);
    region.subscribe("spBv1.0/lab/#");
    region.publish("spBv1.0/lab/NCMD/box-1", rebirth_command());
    let birth = region.receive_on("spBv1.0/lab/NBIRTH/box-1");
    for metric in [
        "bdSeq",
        "Node Control/Rebirth",
        "system/board",
        "host-sim",
        "system/agent_version",
        "system/uptime_s",
        "cpu/load_percent",
        "temperature_millicelsius/cpu",
        "memory/available_bytes",
        "storage/available_bytes",
        "inference/digits/provider",
        "cpu",
        "inference/digits/success",
        "inference/digits/failure/too-large",
        "inference/digits/queue_us",
        "inference/digits/compute_us",
    ] {
        assert!(has(&birth, metric), "the birth has {metric}");
    }
    region.publish("spBv1.0/lab/NCMD/box-1", b"no payload".to_vec());

    let mut sensor = Client::connect("sensor-1", lab.port);
    let request = sensor.request();
    assert_eq!(sensor.ask(&request).status, "200");
    let mut spoiled = sensor.request();
    spoiled.properties.correlation_data = None;
    assert_eq!(sensor.ask(&spoiled).status, "400");
    // By exception: of the model's failures only the one that grew.
    let is_told = (0..10).any(|_| {
        let data = region.receive_on("spBv1.0/lab/NDATA/box-1");
        assert!(!has(&data, "system/board"), "the board has not changed");
        if has(&data, "inference/digits/failure/bad-request") {
            assert!(!has(&data, "inference/digits/failure/too-large"));
            return true;
        }
        false
    });
    assert!(is_told, "the failure is told");
    lab.agent.stop().expect("the agent ends with 0");
    let death = region.receive_on("spBv1.0/lab/NDEATH/box-1");
    assert!(has(&death, "bdSeq"));
}
