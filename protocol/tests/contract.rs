//! `docs/asyncapi.yaml` against the code: neither names what the other does not have.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::{collections::BTreeSet, fs, path::Path};

use edge_protocol::{
    Datatype, Id, Status, limit,
    oip::server::Operation,
    property,
    sparkplug::{MessageType, NodeTopic, state_topic},
    topic::{InferTopic, OpTopic, ReplyRoot, Target},
};
use serde_json::{Value, json};

fn contract() -> Value {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/asyncapi.yaml");
    let page = fs::read_to_string(page).expect("the page");
    serde_saphyr::from_str(&page).expect("YAML")
}

/// The contract names the topics that the code has, and no others.
#[test]
fn the_contract_has_the_topics_of_the_code() {
    let contract = contract();
    let channels = contract["channels"].as_object().expect("channels");
    let addresses = channels.values().map(|channel| {
        let address = channel["address"].as_str().expect("an address");
        address.replace(['{', '}'], "")
    });
    let (region, client) = ("region", "client");
    let infer = |target| {
        let topic = InferTopic {
            region,
            target,
            model: "model",
            client,
        };
        topic.to_string()
    };
    let operation = OpTopic {
        region,
        box_id: "box",
        operation: "operation",
        client,
    };
    let mut of_the_code = BTreeSet::from([
        infer(Target::Any),
        infer(Target::Box("box")),
        operation.to_string(),
        format!("{}/rest", ReplyRoot { region, client }),
        state_topic(&Id::new("indexer").expect("a name")),
    ]);
    for message_type in MessageType::ALL {
        let topic = NodeTopic {
            region,
            message_type,
            box_id: "box",
        };
        of_the_code.insert(topic.to_string());
    }
    assert_eq!(addresses.collect::<BTreeSet<_>>(), of_the_code);
}

/// So it is with statuses, operations, datatypes, properties and bounds.
#[test]
fn the_contract_has_the_names_and_bounds_of_the_code() {
    let contract = contract();
    let schemas = &contract["components"]["schemas"];
    let messages = &contract["components"]["messages"];
    let statuses: Vec<u64> = Status::ALL.iter().map(|it| it.code().into()).collect();
    assert_eq!(schemas["status"]["enum"], json!(statuses));
    let reply = &schemas["answerProperties"]["properties"];
    for name in [
        property::STATUS,
        property::STATUS_MESSAGE,
        property::RETRY_AFTER_MS,
        property::SERVED_BY,
        property::INFERENCE_HEADER_CONTENT_LENGTH,
    ] {
        assert!(reply[name].is_object(), "{name}");
    }
    let operations: Vec<&str> = Operation::ALL.iter().map(|it| it.name()).collect();
    let parameters = &contract["channels"]["operation"]["parameters"];
    assert_eq!(parameters["operation"]["enum"], json!(operations));

    for (name, content_type) in [
        ("jsonRequest", property::CONTENT_TYPE_JSON),
        ("binaryRequest", property::CONTENT_TYPE_BINARY),
        ("compactRequest", property::CONTENT_TYPE_CBOR),
    ] {
        assert_eq!(messages[name]["contentType"], content_type);
    }
    let properties = &schemas["requestProperties"]["properties"];
    let expiry = &properties["messageExpiryInterval"]["maximum"];
    assert_eq!(*expiry, limit::EXPIRY_MAX_S);
    let correlation = &schemas["correlation"]["maxLength"];
    assert_eq!(*correlation, limit::CORRELATION_MAX_BYTES);
    let topic = &properties["responseTopic"]["maxLength"];
    assert_eq!(*topic, limit::TOPIC_MAX_BYTES);
    let inputs = &schemas["inferRequest"]["properties"]["inputs"];
    assert_eq!(inputs["maxItems"], limit::TENSORS_MAX);
    let tensor = &schemas["tensor"]["properties"];
    assert_eq!(tensor["shape"]["maxItems"], limit::DIMENSIONS_MAX);
    assert_eq!(tensor["name"]["maxLength"], limit::TENSOR_NAME_MAX_BYTES);
    let datatypes: Vec<&str> = Datatype::ALL.iter().map(|it| it.name()).collect();
    assert_eq!(tensor["datatype"]["enum"], json!(datatypes));
}
