//! Whatever a sensor or an owner gets wrong, the agent says what, and goes on serving.
#![allow(
    clippy::semicolon_if_nothing_returned,
    reason = "a case's change is one expression"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::path::Path;
use std::process::Command;

use cross::processes;
use support::{
    Agent, Client, OneBox, Request, first_image, wait_for_log, wait_for_log_times,
    wait_until_serving,
};

/// What is wrong, how the request differs from one in order, the status, and a part of the message.
type Case = (&'static str, fn(&mut Request), &'static str, &'static str);

const LIMIT: usize = 8 << 20;

fn json(request: &mut Request, body: &str) {
    request.body = body.into();
}

fn binary(request: &mut Request, header_length: &str, body: Vec<u8>) {
    request.properties.content_type = Some("application/octet-stream".into());
    request.properties.user_properties = vec![(
        "inference-header-content-length".into(),
        header_length.into(),
    )];
    request.body = body;
}

fn pixels(data: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"pixels","shape":[1,64],"datatype":"FP32","data":[{data}]}}]}}"#
    )
}

const CASES: &[Case] = &[
    (
        "not JSON",
        |r| json(r, "pixels please"),
        "400",
        "not an Open Inference Protocol v2 body",
    ),
    (
        "not an object",
        |r| json(r, "[1,2]"),
        "400",
        "not an Open Inference Protocol v2 body",
    ),
    (
        "no inputs",
        |r| json(r, r#"{"inputs":[]}"#),
        "400",
        "no inputs",
    ),
    (
        "a wrong shape",
        |r| {
            json(
                r,
                r#"{"inputs":[{"name":"pixels","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#,
            )
        },
        "400",
        "has shape [1, 2], the model takes [-1, 64]",
    ),
    (
        "a wrong type",
        |r| {
            json(
                r,
                r#"{"inputs":[{"name":"pixels","shape":[1,1],"datatype":"INT8","data":[1]}]}"#,
            )
        },
        "400",
        "is INT8, the model takes FP32",
    ),
    (
        "a wrong length",
        |r| json(r, &pixels("1,2,3")),
        "400",
        "the shape needs 64 elements, the data has 3",
    ),
    (
        "a wrong name",
        |r| {
            json(
                r,
                r#"{"inputs":[{"name":"image","shape":[1],"datatype":"FP32","data":[1]}]}"#,
            )
        },
        "400",
        "no input \"image\"; its inputs are pixels",
    ),
    (
        "a name with characters that MQTT forbids",
        |r| {
            let name = r"a\u0000b\u0007c\uffff";
            json(
                r,
                &format!(
                    r#"{{"inputs":[{{"name":"{name}","shape":[1],"datatype":"FP32","data":[1]}}]}}"#
                ),
            )
        },
        "400",
        "no input",
    ),
    (
        "a repeated name",
        |r| {
            let tensor = r#"{"name":"pixels","shape":[1],"datatype":"FP32","data":[1]}"#;
            json(r, &format!(r#"{{"inputs":[{tensor},{tensor}]}}"#));
        },
        "400",
        "\"pixels\" stands twice",
    ),
    (
        "an unknown output",
        |r| {
            let all = String::from_utf8(r.body.clone()).expect("text");
            json(
                r,
                &all.replacen('{', r#"{"outputs":[{"name":"colour"}],"#, 1),
            );
        },
        "400",
        "no output \"colour\"; its outputs are",
    ),
    (
        "a shape beyond all bounds",
        |r| {
            json(
                r,
                r#"{"inputs":[{"name":"pixels","shape":[4294967295,4294967295,64],"datatype":"FP32","data":[1]}]}"#,
            )
        },
        "400",
        "more elements than a request can carry",
    ),
    (
        "NaN in JSON",
        |r| json(r, &pixels("NaN")),
        "400",
        "not an Open Inference Protocol v2 body",
    ),
    (
        "infinity in JSON",
        |r| json(r, &pixels("1e999")),
        "400",
        "out of range",
    ),
    (
        "NaN in binary",
        |r| {
            let mut body = vec![0; 256];
            body[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
            binary(r, "0", body);
        },
        "400",
        "element 2 of input \"pixels\" is NaN or infinite",
    ),
    (
        "infinity in binary",
        |r| {
            let mut body = vec![0; 256];
            body[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
            binary(r, "0", body);
        },
        "400",
        "element 0 of input \"pixels\" is NaN or infinite",
    ),
    (
        "a raw tensor of no whole rows",
        |r| binary(r, "0", vec![0; 255]),
        "400",
        "does not fill the shape",
    ),
    (
        "a header longer than the body",
        |r| binary(r, "9999", vec![b'{'; 10]),
        "400",
        "the header is said to have 9999 bytes",
    ),
    (
        "a header length that is none",
        |r| binary(r, "-1", vec![0; 256]),
        "400",
        "inference-header-content-length",
    ),
    (
        "garbage as CBOR",
        |r| {
            r.properties.content_type = Some("application/cbor".into());
            r.body = vec![0xff, 0x00, 0x9f];
        },
        "400",
        "not the compact CBOR form",
    ),
    (
        "an unknown content type",
        |r| r.properties.content_type = Some("image/png".into()),
        "400",
        "content type \"image/png\"",
    ),
    (
        "no content type",
        |r| r.properties.content_type = None,
        "400",
        "content type \"none\"",
    ),
    (
        "an empty body",
        |r| r.body.clear(),
        "400",
        "the request is empty",
    ),
    (
        "too many bytes",
        |r| r.body = vec![b' '; LIMIT + 1],
        "413",
        "at most 8388608 are allowed",
    ),
    (
        "an unknown model",
        |r| {
            r.topic = r
                .topic
                .replace("/digits/", "/faces/")
                .replace("/any/", "/box/box-1/")
        },
        "404",
        "there is no model faces",
    ),
    (
        "no correlation",
        |r| r.properties.correlation_data = None,
        "400",
        "needs correlation data",
    ),
    (
        "a correlation that is too long",
        |r| r.properties.correlation_data = Some(vec![b'c'; 65].into()),
        "400",
        "correlation data has 65 bytes",
    ),
    (
        "no expiry",
        |r| r.properties.message_expiry_interval = None,
        "400",
        "needs a message expiry interval",
    ),
    (
        "an expiry of days",
        |r| r.properties.message_expiry_interval = Some(200_000),
        "400",
        "at most 3600 s",
    ),
    (
        "a deadline that has passed",
        |r| {
            let all = String::from_utf8(r.body.clone()).expect("text");
            json(r, &all.replacen('{', r#"{"parameters":{"timeout":1},"#, 1));
        },
        "408",
        "deadline passed",
    ),
];

/// What is wrong, how the request differs from one in order, and what the agent's log calls it.
type DroppedCase = (&'static str, fn(&mut Request), &'static str);

/// What gets no answer.
const DROPPED: &[DroppedCase] = &[
    (
        "no response topic",
        |r| r.properties.response_topic = None,
        "no-response-topic",
    ),
    (
        "a wildcard in the response topic",
        |r| r.properties.response_topic = Some("edge/v1/lab/reply/bad-1/+".into()),
        "wildcard-response-topic",
    ),
    (
        "another client's reply topic",
        |r| r.properties.response_topic = Some("edge/v1/lab/reply/bad-2/r".into()),
        "foreign-response-topic",
    ),
    (
        "a command topic as response topic",
        |r| r.properties.response_topic = Some("edge/v1/lab/box/box-2/op/reboot/bad-1".into()),
        "foreign-response-topic",
    ),
];

#[test]
fn a_bad_request_is_refused_with_its_reason_and_costs_nobody_else() {
    let mut lab = OneBox::start();
    let mut client = Client::connect("bad-1", lab.port);

    for (what, spoil, status, message) in CASES {
        let mut request = client.request();
        spoil(&mut request);
        let answer = client.ask(&request);
        assert_eq!(answer.status, *status, "{what}: {answer:?}");
        assert!(answer.message.contains(message), "{what}: {answer:?}");
        let expected = request.properties.correlation_data.unwrap_or_default();
        assert_eq!(answer.correlation, expected, "{what}: {answer:?}");
        if request.properties.content_type.as_deref() != Some("application/cbor") {
            assert!(
                answer.body.starts_with(r#"{"error":"#),
                "{what}: {answer:?}"
            );
        }
        let good = client.request();
        assert_eq!(client.ask(&good).status, "200", "after {what}");
    }
    for (what, spoil, reason) in DROPPED {
        let mut request = client.request();
        spoil(&mut request);
        client.send(&request);
        // The next request is answered, so the dropped one was acknowledged and holds up nothing.
        let good = client.request();
        let answer = client.ask(&good);
        let expected = good.properties.correlation_data.unwrap_or_default();
        assert_eq!(answer.correlation, expected, "{what} was answered");
        wait_for_log(&mut lab.agent, reason);
    }
    assert!(
        lab.agent.ended().expect("a state").is_none(),
        "the agent lives{}",
        lab.agent.log()
    );
    lab.agent.stop().expect("the agent ends with 0");
}

/// A reply topic that would make the broker end the box's connection: too deep for Mosquitto (200 levels), or with a
/// character that no topic may have, which no broker sees inside an envelope.
#[test]
fn no_reply_topic_costs_the_box_its_connection() {
    let lab = OneBox::start();
    let mut client = Client::connect("bad-1", lab.port);
    let mut deep = client.request();
    deep.properties.response_topic = Some(format!("edge/v1/lab/reply/bad-1/{}", "/".repeat(480)));
    let mut noncharacter = client.request();
    noncharacter.properties = rumqttc::v5::mqttbytes::v5::PublishProperties::default();
    noncharacter.body = format!(
        "{{\"reply\":\"edge/v1/lab/reply/bad-1/\u{ffff}\",\"correlation\":\"q\",\"timeout_ms\":5000,\
         \"encoding\":\"json\",\"body\":{}}}",
        first_image().0
    )
    .into();
    for (what, request) in [("too deep", deep), ("a non-character", noncharacter)] {
        client.send(&request);
        let good = client.request();
        let answer = client.ask(&good);
        let expected = good.properties.correlation_data.unwrap_or_default();
        assert_eq!(answer.correlation, expected, "{what}");
    }
    let log = std::fs::read_to_string(lab.agent.log_file()).expect("a log");
    assert_eq!(log.matches("connected to the broker").count(), 3, "{log}");
}

/// A sensor that speaks only MQTT 3.1.1 learns of its late request too.
#[test]
fn an_envelope_that_expired_is_answered_with_408() {
    let lab = OneBox::start();
    let mut client = Client::connect("old-1", lab.port);
    for (timeout_ms, status) in [(0, 408), (5_000, 200)] {
        let mut request = client.request();
        request.properties = rumqttc::v5::mqttbytes::v5::PublishProperties::default();
        let body = first_image().0;
        request.body = format!(
            r#"{{"reply":"edge/v1/lab/reply/old-1/r","correlation":"q{timeout_ms}",
               "timeout_ms":{timeout_ms},"encoding":"json","body":{body}}}"#
        )
        .into();
        let answer: serde_json::Value =
            serde_json::from_str(&client.ask(&request).body).expect("an envelope");
        assert_eq!(answer["status"], status, "{answer}");
        assert_eq!(answer["correlation"], format!("q{timeout_ms}"), "{answer}");
    }
}

/// A graph that is none, a model without a version and settings with a typo cost those models alone.
#[test]
fn a_broken_model_costs_only_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("models");
    let write = |path: &str, bytes: &[u8]| {
        let path = models.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    };
    let digits = cross::committed_models().join("digits/1/model.onnx");
    let digits = std::fs::read(digits).expect("the digits model");
    write("corrupt/1/model.onnx", b"this is no graph");
    write("cut/1/model.onnx", &digits[..digits.len() / 2]);
    write("digits/1/model.onnx", &digits);
    write("typo/1/model.onnx", &digits);
    write("typo/model.toml", b"instnaces = 1");
    std::fs::create_dir_all(models.join("empty/1")).expect("a folder");

    let [port] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
    let agent = Agent {
        models,
        ..Agent::new("box-1", port)
    };
    let mut agent = agent.start(folder.path());
    wait_until_serving(&mut agent);
    wait_for_log_times(&mut agent, "model is not served", 4);
    let mut client = Client::connect("bad-1", port);
    for (model, message) in [
        ("corrupt", "ONNX Runtime cannot load"),
        ("cut", "ONNX Runtime cannot load"),
        ("typo", "instnaces"),
        ("empty", "has no version"),
    ] {
        let mut request = client.request();
        request.topic = format!("edge/v1/lab/box/box-1/infer/{model}/bad-1");
        let answer = client.ask(&request);
        assert_eq!(answer.status, "500", "{model}: {answer:?}");
        assert!(answer.message.contains(message), "{model}: {answer:?}");
    }
    let good = client.request();
    assert_eq!(client.ask(&good).status, "200");
}

/// No library, something else under its name, and an ONNX Runtime of years ago.
#[test]
fn a_wrong_onnx_runtime_is_reported_to_owner_and_sensor() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").expect("a file");
    let old = folder.path().join("old.so");
    build_old_onnxruntime(&old);
    let [port] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
    let mut client = Client::connect("bad-1", port);
    for (box_id, library, message) in [
        (
            "missing",
            folder.path().join("nowhere.so"),
            "there is no ONNX Runtime at",
        ),
        ("text", text, "cannot use"),
        ("old", old, "1.10.0"),
    ] {
        let agent = Agent {
            onnxruntime: library,
            ..Agent::new(box_id, port)
        };
        let mut agent = agent.start(folder.path());
        wait_for_log(&mut agent, "model is not served");
        wait_for_log_times(&mut agent, "connected to the broker", 3);
        let mut request = client.request();
        request.topic = format!("edge/v1/lab/box/{box_id}/infer/digits/bad-1");
        support::eventually("the box has subscribed and answers", || {
            client.send(&request);
            let answer = client.receive();
            answer.status == "500" && answer.message.contains(message)
        });
        agent.stop().expect("the agent ends with 0");
    }
}

/// A library with ONNX Runtime's entry point that knows no interface as new as ours.
fn build_old_onnxruntime(library: &Path) {
    let source = library.with_extension("c");
    std::fs::write(
        &source,
        r#"#include <stdint.h>
           struct base { const void *(*get_api)(uint32_t); const char *(*get_version)(void); };
           static const void *get_api(uint32_t version) { return 0; }
           static const char *get_version(void) { return "1.10.0"; }
           static const struct base base = { get_api, get_version };
           const struct base *OrtGetApiBase(void) { return &base; }"#,
    )
    .expect("a source");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(library)
        .arg(&source)
        .status()
        .expect("a C compiler");
    assert!(status.success(), "the library builds");
}

/// Two boxes under one id: the broker lets in the later one; the earlier says why it is out, and both live.
#[test]
fn two_boxes_with_one_id_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let [port] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
    let first = Agent {
        name: "first",
        ..Agent::new("box-1", port)
    };
    let mut first = first.start(folder.path());
    wait_until_serving(&mut first);
    let second = Agent {
        name: "second",
        ..Agent::new("box-1", port)
    };
    let mut second = second.start(folder.path());
    wait_until_serving(&mut second);
    wait_for_log(&mut first, "another box has connected under this box's id");
    let mut client = Client::connect("sensor-1", port);
    let request = client.request();
    assert_eq!(client.ask(&request).status, "200");
    for agent in [first, second] {
        agent.stop().expect("both end with 0");
    }
}
