//! The memory of models has a bound: what is idle gives way to what is asked for, and what cannot fit is told. Copies of a
//! model share its weights.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::path::Path;

use cross::processes;
use support::{Agent, Answer, Client, wait_for_log};

/// A model as large as it is told to be: the file beside the graph takes no room on the disk.
fn digits_of(models: &Path, name: &str, mib: u64) {
    let version = models.join(name).join("1");
    fs::create_dir_all(&version).expect("a folder");
    let graph = cross::committed_models().join("digits/1/model.onnx");
    fs::copy(graph, version.join("model.onnx")).expect("a copy");
    let weights = fs::File::create(version.join("weights.bin")).expect("a file");
    weights.set_len(mib << 20).expect("a length");
}

fn ask(client: &mut Client, model: &str) -> Answer {
    let mut request = client.request();
    request.topic = format!("edge/v1/lab/box/box-1/infer/{model}/{}", client.name);
    client.ask(&request)
}

#[test]
fn idle_models_give_way_and_one_that_cannot_fit_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let [mqtt] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(mqtt, folder.path()).expect("mosquitto");
    let models = folder.path().join("models");
    for (name, mib) in [("a", 400), ("b", 400), ("c", 400), ("huge", 1_001)] {
        digits_of(&models, name, mib);
    }
    let agent = Agent {
        models,
        more: vec!["--model-memory-mib=1000".into()],
        ..Agent::new("box-1", mqtt)
    };
    let mut agent = agent.start(folder.path());
    wait_for_log(&mut agent, "model is not served");
    support::wait_for_log_times(&mut agent, "serving model", 2);
    wait_for_log(&mut agent, r#"taking requests purpose="own""#);
    let mut client = Client::connect("sensor-1", mqtt);

    let huge = ask(&mut client, "huge");
    assert_eq!(huge.status, "500", "{huge:?}");
    assert!(
        huge.message.contains("takes about 1002 MiB") && huge.message.contains("may take 1000 MiB"),
        "{huge:?}"
    );
    // Those in memory were asked a moment ago.
    for model in ["b", "a"] {
        assert_eq!(ask(&mut client, model).status, "200");
    }
    let refused = ask(&mut client, "c");
    assert_eq!(refused.status, "503", "{refused:?}");
    assert!(refused.message.contains("in use"), "{refused:?}");
    support::eventually("one of them is idle", || {
        // Keeps a in use, so that it is b which gives way.
        ask(&mut client, "a").status == "200" && ask(&mut client, "c").status == "200"
    });
    wait_for_log(&mut agent, "an idle model gives way to another one model=b");
    // What gave way is not lost: its next request waits for it, as soon as another is idle.
    support::eventually("b is back", || {
        ask(&mut client, "a").status == "200" && ask(&mut client, "b").status == "200"
    });
    wait_for_log(&mut agent, "an idle model gives way to another one model=c");
    agent.stop().expect("a clean end");
}

/// An agent with so many copies of the wide model: what it answers, and its memory in KiB.
fn with_copies(instances: usize) -> (Answer, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let [mqtt] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(mqtt, folder.path()).expect("mosquitto");
    let models = folder.path().join("models");
    support::make_model(&models, "wide");
    let settings = format!("instances = {instances}\n");
    fs::write(models.join("wide/model.toml"), settings).expect("settings");
    let agent = Agent {
        models,
        ..Agent::new("box-1", mqtt)
    };
    let mut agent = agent.start(folder.path());
    support::wait_until_serving(&mut agent);
    let mut client = Client::connect("sensor-1", mqtt);
    let mut request = client.request();
    request.topic = "edge/v1/lab/box/box-1/infer/wide/sensor-1".into();
    let x = vec!["0.5"; 1_024].join(",");
    request.body =
        format!(r#"{{"inputs":[{{"name":"x","shape":[1,1024],"datatype":"FP32","data":[{x}]}}]}}"#)
            .into();
    let answer = client.ask(&request);
    let kib = support::resident_kib(&agent);
    agent.stop().expect("a clean end");
    (answer, kib)
}

#[test]
fn copies_of_a_model_share_its_weights() {
    /// Of the wide model.
    const WEIGHTS_KIB: u64 = 48 << 10;
    let (one, one_kib) = with_copies(1);
    let (four, four_kib) = with_copies(4);
    assert_eq!(one.status, "200", "{one:?}");
    assert_eq!(one.body, four.body);
    let more_kib = four_kib.saturating_sub(one_kib);
    println!("one copy: {one_kib} KiB; three more: {more_kib} KiB");
    // Each by itself would bring the weights and what ONNX Runtime makes of them.
    assert!(
        more_kib < 2 * WEIGHTS_KIB,
        "{one_kib} KiB, and {more_kib} KiB more"
    );
}
