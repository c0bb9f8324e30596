//! No decoder panics on foreign bytes, and what is written is read back the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    reason = "tests fail by panicking"
)]

use bytes::Bytes;
use edge_protocol::{
    Datatype, Id, compact, envelope,
    oip::{Answer, Encoding, Inputs, Request, Tensor, WantedOutput},
    sparkplug::{NodeTopic, Payload},
    topic::{InferTopic, ReplyRoot},
};
use proptest::prelude::*;

const ENCODINGS: [Encoding; 3] = [
    Encoding::Json,
    Encoding::Binary { header_length: 0 },
    Encoding::Cbor,
];

/// Bytes that look enough like a message to get past its first checks: a valid one with some bytes changed.
fn damaged(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (changes, any::<prop::sample::Index>()).prop_map(move |(changes, cut)| {
        let mut bytes = valid.clone();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        bytes
    })
}

fn sample_request() -> Request {
    Request {
        id: None,
        timeout_us: Some(5_000),
        priority: None,
        binary_output: true,
        inputs: Inputs::Named(vec![
            Tensor::from_f32("pixels", vec![1, 4], &[0.0, 1.5, -2.25, 16.0]).unwrap(),
        ]),
        outputs: vec![WantedOutput {
            name: "label".into(),
            binary: None,
            classification: None,
        }],
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), header in 0_usize..600) {
        let body = Bytes::from(bytes.clone());
        for encoding in [Encoding::Json, Encoding::Binary { header_length: header }, Encoding::Cbor] {
            let _ = Request::decode(&body, encoding);
            let _ = Answer::decode(&body, encoding);
        }
        let _ = envelope::Request::decode(&body);
        let _ = compact::Answer::decode(&bytes);
        let _ = Payload::read(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = InferTopic::parse(&text);
        let _ = NodeTopic::parse(&text);
        let _ = ReplyRoot { region: "lab", client: "cam" }.check(&text);
        let _ = Id::new(&text);
    }

    #[test]
    fn damaged_json_never_panics(bytes in damaged(sample_request().encode(Encoding::Json).unwrap().bytes.to_vec())) {
        let _ = Request::decode(&bytes.into(), Encoding::Json);
    }

    #[test]
    fn damaged_cbor_never_panics(bytes in damaged(sample_request().encode(Encoding::Cbor).unwrap().bytes.to_vec())) {
        let _ = Request::decode(&bytes.into(), Encoding::Cbor);
    }

    #[test]
    fn damaged_binary_never_panics(
        bytes in damaged(sample_request().encode(Encoding::Binary { header_length: 0 }).unwrap().bytes.to_vec()),
        header_length in 0_usize..200,
    ) {
        let _ = Request::decode(&bytes.into(), Encoding::Binary { header_length });
    }

    /// Whatever the values, each encoding brings them back bit by bit.
    #[test]
    fn requests_survive_every_encoding(values in prop::collection::vec(-1e30_f32..1e30, 1..64), timeout in any::<Option<u64>>()) {
        for encoding in ENCODINGS {
            let request = Request {
                timeout_us: timeout,
                binary_output: encoding == Encoding::Cbor,
                inputs: Inputs::Named(vec![
                    Tensor::from_f32("x", vec![1, values.len() as u64], &values).unwrap(),
                ]),
                ..Request::default()
            };
            let body = request.encode(encoding).unwrap();
            prop_assert_eq!(&Request::decode(&body.bytes, body.encoding).unwrap(), &request);
        }
    }

    /// 64-bit integers lose nothing in JSON.
    #[test]
    fn integers_survive_json(values in prop::collection::vec(any::<i64>(), 1..16)) {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = Tensor::new("x".into(), Datatype::Int64, vec![values.len() as u64], data.into()).unwrap();
        let request = Request { inputs: Inputs::Named(vec![tensor.clone()]), ..Request::default() };
        let body = request.encode(Encoding::Json).unwrap();
        let Inputs::Named(tensors) = Request::decode(&body.bytes, Encoding::Json).unwrap().inputs else {
            panic!("named inputs stay named")
        };
        prop_assert_eq!(&tensors[0], &tensor);
        prop_assert_eq!(tensors[0].to_i64(), Some(values));
    }

    #[test]
    fn names_are_what_the_pattern_says(text in "[a-zA-Z0-9_/+#-]{0,70}") {
        let pattern = !text.is_empty() && text.len() <= 63 && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        prop_assert_eq!(Id::new(&text).is_ok(), pattern);
    }
}

#[test]
fn a_frame_is_refused_with_its_reason() {
    let cases: [(&str, &str); 14] = [
        ("nonsense", "not an Open Inference Protocol v2 body"),
        ("[]", "not an Open Inference Protocol v2 body"),
        ("{}", "missing field `inputs`"),
        (r#"{"inputs":[]}"#, "the request has no inputs"),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}"#,
            "needs either \"data\"",
        ),
        (
            r#"{"inputs":[{"name":"","shape":[1],"datatype":"FP32","data":[1]}]}"#,
            "the name is empty",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP31","data":[1]}]}"#,
            "unknown datatype",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1]}]}"#,
            "the shape needs 2 elements, the data has 1",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1,2]}]}"#,
            "more than the 1 elements",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}]}"#,
            "invalid value",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[9999999999,9999999999],"datatype":"FP32","data":[1]}]}"#,
            "more elements than a request can carry",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[256]}]}"#,
            "256 is out of its range",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1e39]}]}"#,
            "out of its range",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}"#,
            "not an Open Inference Protocol v2 body",
        ),
    ];
    for (json, reason) in cases {
        let error = Request::decode(&Bytes::from_static(json.as_bytes()), Encoding::Json)
            .expect_err(json)
            .to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
}

#[test]
fn nested_data_is_the_same_as_flat() {
    let nested =
        br#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"INT8","data":[[1,-2],[3,4]]}]}"#;
    let flat = br#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"INT8","data":[1,-2,3,4]}]}"#;
    assert_eq!(
        Request::decode(&Bytes::from_static(nested), Encoding::Json).unwrap(),
        Request::decode(&Bytes::from_static(flat), Encoding::Json).unwrap()
    );
}

#[test]
fn a_nan_has_no_json() {
    let answer = Answer {
        model_name: "m".into(),
        model_version: None,
        id: None,
        outputs: vec![Tensor::from_f32("y", vec![1], &[f32::NAN]).unwrap()],
    };
    let error = answer
        .encode(&Request::default(), Encoding::Json)
        .unwrap_err();
    assert!(error.to_string().contains("NaN"), "{error}");
    let binary = Request {
        binary_output: true,
        ..Request::default()
    };
    let body = answer.encode(&binary, Encoding::Json).unwrap();
    let read = Answer::decode(&body.bytes, body.encoding).unwrap();
    assert_eq!(read.outputs[0].first_non_finite(), Some(0));
}
