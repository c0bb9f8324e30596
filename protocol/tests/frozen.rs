//! Wire bytes of every released version stay as they are: what an old sensor sends is read the same for ever.
//!
//! The files in `versions/` hold bytes in hexadecimal. A new version gets a new folder; a file never changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use bytes::Bytes;
use edge_protocol::{
    Datatype, compact, envelope,
    oip::Encoding,
    sparkplug::{Metric, Payload, Value},
    topic::{InferTopic, ReplyRoot, Target},
};

fn frozen(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shape(dimensions: &[u32]) -> compact::Shape {
    compact::Shape::from_slice(dimensions).unwrap()
}

#[test]
fn compact_request_v1() {
    let bytes = frozen(include_str!("versions/v1/compact-request.hex"));
    let mut request = compact::Request {
        timeout_us: Some(250_000),
        ..compact::Request::default()
    };
    request
        .inputs
        .push(compact::Tensor {
            name: "pixels",
            datatype: Datatype::Fp32,
            shape: shape(&[1, 2]),
            data: &[0, 0, 128, 63, 0, 0, 0, 64],
        })
        .unwrap();
    request.outputs.push("label").unwrap();
    let mut buffer = [0; 64];
    let length = request.encode(&mut buffer).unwrap();
    assert_eq!(hex(&buffer[..length]), hex(&bytes));
    assert_eq!(compact::Request::decode(&bytes).unwrap(), request);
}

#[test]
fn compact_answer_v1() {
    let bytes = frozen(include_str!("versions/v1/compact-answer.hex"));
    let mut outputs = heapless::Vec::new();
    outputs
        .push(compact::Tensor {
            name: "label",
            datatype: Datatype::Int64,
            shape: shape(&[1]),
            data: &[7, 0, 0, 0, 0, 0, 0, 0],
        })
        .unwrap();
    let answer = compact::Answer::Outputs {
        model_version: Some("1"),
        outputs,
    };
    let mut buffer = [0; 64];
    let length = answer.encode(&mut buffer).unwrap();
    assert_eq!(hex(&buffer[..length]), hex(&bytes));
    assert_eq!(compact::Answer::decode(&bytes).unwrap(), answer);
}

#[test]
fn compact_failure_v1() {
    let bytes = frozen(include_str!("versions/v1/compact-failure.hex"));
    assert_eq!(
        compact::Answer::decode(&bytes).unwrap(),
        compact::Answer::Failure("no")
    );
}

/// Keys that a later version may add are passed over.
#[test]
fn compact_skips_unknown_keys() {
    let bytes = frozen(include_str!(
        "versions/v1/compact-request-from-the-future.hex"
    ));
    let request = compact::Request::decode(&bytes).unwrap();
    assert_eq!(request.inputs.len(), 1);
    assert_eq!(request.timeout_us, None);
}

#[test]
fn envelope_v1() {
    let bytes = Bytes::from(frozen(include_str!("versions/v1/envelope.hex")));
    let request = envelope::Request::decode(&bytes).unwrap();
    assert_eq!(request.form, envelope::Form::Cbor);
    assert_eq!(request.reply, "edge/v1/lab/reply/cam-1/a");
    assert_eq!(request.correlation, "7");
    assert_eq!(request.timeout_ms, 500);
    assert_eq!(request.body.encoding, Encoding::Cbor);
}

#[test]
fn sparkplug_birth_v1() {
    let bytes = frozen(include_str!("versions/v1/sparkplug-birth.hex"));
    let payload = Payload {
        timestamp: Some(1_700_000_000_000),
        metrics: vec![
            Metric::new("bdSeq", Value::UInt(3), 1_700_000_000_000),
            Metric::new("cpu/load_percent", Value::Double(12.5), 1_700_000_000_000),
            Metric::new(
                "temperature_millicelsius/cpu",
                Value::Int(-1_500),
                1_700_000_000_000,
            ),
            Metric::new(
                "system/board",
                Value::Text("host-sim".into()),
                1_700_000_000_000,
            ),
        ],
        seq: Some(0),
    };
    assert_eq!(hex(&payload.to_bytes()), hex(&bytes));
    let read = Payload::read(&bytes).unwrap();
    assert_eq!(read.metrics[2].meaning(None), Some(Value::Int(-1_500)));
}

#[test]
fn topics_v1() {
    let topic = InferTopic {
        region: "lab",
        target: Target::Box("box-1"),
        model: "digits",
        client: "cam-1",
    };
    assert_eq!(
        topic.to_string(),
        "edge/v1/lab/box/box-1/infer/digits/cam-1"
    );
    assert_eq!(
        InferTopic::parse("edge/v1/lab/box/box-1/infer/digits/cam-1"),
        Ok(topic)
    );
    let any = InferTopic {
        target: Target::Any,
        ..topic
    };
    assert_eq!(any.to_string(), "edge/v1/lab/any/infer/digits/cam-1");
    assert_eq!(
        InferTopic::parse("edge/v1/lab/any/infer/digits/cam-1"),
        Ok(any)
    );
    let root = ReplyRoot {
        region: "lab",
        client: "cam-1",
    };
    assert_eq!(root.to_string(), "edge/v1/lab/reply/cam-1");
    assert!(root.check("edge/v1/lab/reply/cam-1/a").is_ok());
    for foreign in [
        "edge/v1/lab/reply/cam-1",
        "edge/v1/lab/reply/cam-1/",
        "edge/v1/lab/reply/cam-10/a",
        "edge/v1/lab/reply/cam-2/a",
        "edge/v1/west/reply/cam-1/a",
        "edge/v1/lab/reply/cam-1/+",
        "edge/v1/lab/reply/cam-1/a\u{7}",
        "edge/v1/lab/box/box-1/infer/digits/cam-1",
        "edge/v1/lab/reply/cam-1/a\u{ffff}",
    ] {
        assert!(root.check(foreign).is_err(), "{foreign}");
    }
    let deep = format!("edge/v1/lab/reply/cam-1/{}", "/".repeat(200));
    assert!(root.check(&deep).is_err());
}
