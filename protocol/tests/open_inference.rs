//! Open Inference Protocol v2: every datatype, shape, parameter and form survives the wire.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

use bytes::Bytes;
use edge_protocol::{
    Datatype,
    oip::{Answer, Encoding, Inputs, Request, Tensor, WantedOutput},
    topic::{OpTopic, TopicError},
};
use proptest::prelude::*;

const BINARY: Encoding = Encoding::Binary { header_length: 1 };

/// Shapes with few elements: scalars, empty ones, several dimensions.
fn shapes() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0..4_u64, 0..4)
}

/// A tensor of any datatype, whose floats are finite and whose texts are UTF-8, as JSON wants it.
fn tensors() -> impl Strategy<Value = Tensor> {
    (shapes(), prop::sample::select(Datatype::ALL.to_vec())).prop_flat_map(|(shape, datatype)| {
        let count = usize::try_from(shape.iter().product::<u64>()).unwrap();
        let data = match datatype.element_bytes() {
            None => prop::collection::vec(".{0,9}", count..=count)
                .prop_map(|texts| {
                    let element = |text: String| {
                        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
                        length
                            .into_iter()
                            .chain(text.into_bytes())
                            .collect::<Vec<u8>>()
                    };
                    texts.into_iter().flat_map(element).collect::<Vec<u8>>()
                })
                .boxed(),
            Some(size) => prop::collection::vec(any::<u8>(), count * size..=count * size).boxed(),
        };
        data.prop_filter_map("finite", move |mut data| {
            if datatype == Datatype::Bool {
                data.iter_mut().for_each(|byte| *byte &= 1);
            }
            let tensor = Tensor::new("x".into(), datatype, shape.clone(), data.into()).unwrap();
            tensor.first_non_finite().is_none().then_some(tensor)
        })
    })
}

proptest! {
    #[test]
    fn every_datatype_and_shape_survives_json_and_binary(tensor in tensors(), is_binary: bool) {
        let request = Request {
            priority: Some(2),
            binary_output: is_binary,
            inputs: Inputs::Named(vec![tensor.clone()]),
            ..Request::default()
        };
        let encoding = if is_binary { BINARY } else { Encoding::Json };
        let body = request.encode(encoding).unwrap();
        prop_assert_eq!(&Request::decode(&body.bytes, body.encoding).unwrap(), &request);

        let answer = Answer {
            model_name: "m".into(),
            model_version: Some("3".into()),
            id: Some("i".into()),
            outputs: vec![tensor],
        };
        let body = answer.encode(&request, encoding).unwrap();
        prop_assert_eq!(matches!(body.encoding, Encoding::Binary { .. }), is_binary);
        prop_assert_eq!(Answer::decode(&body.bytes, body.encoding).unwrap(), answer);
    }

    #[test]
    fn operation_topics_are_read_as_written(text in "(edge/v1/)?[a-z/+-]{0,40}") {
        if let Ok(topic) = OpTopic::parse(&text) {
            prop_assert_eq!(topic.to_string(), text);
        }
    }
}

fn decode(json: &'static str) -> Request {
    Request::decode(&Bytes::from_static(json.as_bytes()), Encoding::Json).expect(json)
}

#[test]
fn the_limits_of_64_bit_integers_lose_nothing_in_json() {
    let request = decode(
        r#"{"inputs":[
            {"name":"i","shape":[2],"datatype":"INT64","data":[-9223372036854775808, 9223372036854775807]},
            {"name":"u","shape":[],"datatype":"UINT64","data":[18446744073709551615]}]}"#,
    );
    let Inputs::Named(tensors) = &request.inputs else {
        panic!("named")
    };
    assert_eq!(tensors[0].to_i64().unwrap(), [i64::MIN, i64::MAX]);
    assert_eq!(*tensors[1].data, u64::MAX.to_le_bytes());
    let json = request.encode(Encoding::Json).unwrap();
    let text = std::str::from_utf8(&json.bytes).unwrap();
    assert!(
        text.contains("[-9223372036854775808,9223372036854775807]"),
        "{text}"
    );
    assert!(text.contains("[18446744073709551615]"), "{text}");
}

#[test]
fn parameters_are_read_and_those_of_others_are_passed_over() {
    let request = decode(
        r#"{"id":"7","parameters":{"priority":1,"timeout":250,"binary_data_output":true,
                "sequence_id":0,"mine":{"deep":[1]}},
            "inputs":[{"name":"x","shape":[1],"datatype":"BOOL","data":[true],"parameters":{"mine":1.5}}],
            "outputs":[{"name":"a","parameters":{"classification":3,"binary_data":false}},
                {"name":"b","parameters":{"classification":0}},{"name":"c"}]}"#,
    );
    assert_eq!(request.priority, Some(1));
    assert_eq!(request.timeout_us, Some(250));
    let wanted = |name: &str, binary, classification| WantedOutput {
        name: name.into(),
        binary,
        classification,
    };
    assert_eq!(
        request.outputs,
        [
            wanted("a", Some(false), Some(3)),
            wanted("b", None, None),
            wanted("c", None, None)
        ]
    );
    assert!(request.wants_binary("b") && !request.wants_binary("a"));
}

/// Some clients write every optional field, as null where they have nothing to say.
#[test]
fn null_is_the_same_as_absent() {
    let full = decode(
        r#"{"id":null,"parameters":null,"outputs":null,
            "inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1],"parameters":null}]}"#,
    );
    let short = decode(r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#);
    assert_eq!(full, short);
}

#[test]
fn a_scalar_may_stand_alone_or_in_a_list() {
    let alone = decode(r#"{"inputs":[{"name":"x","shape":[],"datatype":"FP64","data":0.1}]}"#);
    let listed = decode(r#"{"inputs":[{"name":"x","shape":[],"datatype":"FP64","data":[0.1]}]}"#);
    assert_eq!(alone, listed);
}

#[test]
fn a_topic_of_an_operation_has_six_levels_of_names() {
    let topic = "edge/v1/lab/box/box-1/op/repository-index/admin-1";
    let parsed = OpTopic::parse(topic).unwrap();
    assert_eq!(parsed.operation, "repository-index");
    assert_eq!(parsed.client, "admin-1");
    for other in [
        "edge/v1/lab/box/box-1/op/index",
        "edge/v1/lab/box/box-1/op/index/admin-1/more",
        "edge/v1/lab/any/box-1/op/index/admin-1",
        "edge/v1/lab/box/box-1/infer/digits/cam-1",
        "edge/v2/lab/box/box-1/op/index/admin-1",
    ] {
        assert_eq!(OpTopic::parse(other), Err(TopicError::Unknown), "{other}");
    }
    let name = OpTopic::parse("edge/v1/lab/box/box-1/op/Index/admin-1");
    assert!(matches!(name, Err(TopicError::Name(_))), "{name:?}");
}
