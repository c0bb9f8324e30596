//! A model that kills ONNX Runtime, and with it the agent, is known after the next start; the others serve.
//!
//! Dividing the least 64-bit number by -1 is a signal (SIGFPE) on x86-64, which ONNX Runtime does not guard against;
//! other processors have an answer. So this is tested on x86-64.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

use cross::processes::{self, Process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Agent, Answer, Client, Request};

/// A box with digits and the model that divides.
fn start(folder: &Path, port: u16) -> Process {
    let agent = Agent {
        models: folder.join("models"),
        more: vec!["--admins=admin-1".into()],
        ..Agent::new("box-1", port)
    };
    agent.start(folder)
}

fn divide(client: &mut Client, x: i64, y: i64) -> Request {
    let tensor = |name: &str, value: i64| json!({"name": name, "shape": [1], "datatype": "INT64", "data": [value]});
    let mut request = client.request();
    request.topic = format!("edge/v1/lab/box/box-1/infer/divide/{}", client.name);
    request.body = json!({"inputs": [tensor("x", x), tensor("y", y)]})
        .to_string()
        .into();
    request
}

/// The answer to a request that is on its way already, and sent again for as long as the box says so. Each time that it
/// arrived is answered: those to earlier requests are passed over.
fn final_answer(client: &mut Client, request: &Request) -> Answer {
    let correlation = request.properties.correlation_data.as_deref();
    loop {
        let answer = client.receive();
        if Some(&*answer.correlation) != correlation {
            continue;
        }
        if answer.status != "503" {
            return answer;
        }
        client.send(request);
    }
}

fn ask(client: &mut Client, request: &Request) -> Answer {
    client.send(request);
    final_answer(client, request)
}

#[test]
fn a_model_that_kills_the_agent_is_in_quarantine_until_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let version = folder.path().join("models/divide/1");
    fs::create_dir_all(&version).expect("a folder");
    let tests = cross::repository().join("cross/models/test-models");
    fs::copy(
        tests.join("divide/1/model.onnx"),
        version.join("model.onnx"),
    )
    .expect("a copy");
    // A warm-up of zeros would divide by zero, which ONNX Runtime refuses.
    fs::write(
        folder.path().join("models/divide/model.toml"),
        "warmup = []\nmax_batch_size = 1\n",
    )
    .expect("settings");
    let digits = cross::committed_models().join("digits");
    std::os::unix::fs::symlink(digits, folder.path().join("models/digits")).expect("a link");
    let [port] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(port, folder.path()).expect("mosquitto");

    let mut agent = start(folder.path(), port);
    support::wait_until_serving(&mut agent);
    let mut sensor = Client::connect("cam-1", port);
    let good = divide(&mut sensor, 42, 2);
    assert_eq!(ask(&mut sensor, &good).status, "200");
    let fatal = divide(&mut sensor, i64::MIN, -1);
    sensor.send(&fatal);
    sensor.wait_for_acks(1);
    let status = agent.wait(support::PATIENCE).expect("an end");
    assert_eq!(status.signal(), Some(Signal::SIGFPE as i32), "{status}");
    drop(agent);

    // What it was doing is delivered again, and answered this time.
    let began = Instant::now();
    let mut agent = start(folder.path(), port);
    let answer = final_answer(&mut sensor, &fatal);
    assert_eq!(answer.status, "500", "{answer:?}");
    assert!(answer.message.contains("in quarantine"), "{answer:?}");
    support::wait_for_log(&mut agent, r#"taking requests purpose="shared""#);
    let digit = sensor.request();
    assert_eq!(ask(&mut sensor, &digit).status, "200", "the others serve");
    println!(
        "start to the first answer of another model: {} ms",
        began.elapsed().as_millis()
    );
    support::wait_for_log(&mut agent, "this model has killed the agent");

    // It stays so over a clean end.
    agent.stop().expect("a clean end");
    let mut agent = start(folder.path(), port);
    support::wait_until_serving(&mut agent);
    let again = divide(&mut sensor, 42, 2);
    assert_eq!(ask(&mut sensor, &again).status, "500");

    let mut admin = Client::connect("admin-1", port);
    let mut operate = |operation: &str| -> (String, Value) {
        let mut request = admin.request();
        request.topic = format!("edge/v1/lab/box/box-1/op/{operation}/admin-1");
        request.body = json!({"model_name": "divide"}).to_string().into();
        let answer = admin.ask(&request);
        (
            answer.status,
            serde_json::from_str(&answer.body).expect("JSON"),
        )
    };
    let (_, index) = operate("repository-index");
    let divide_is = index
        .as_array()
        .expect("a list")
        .iter()
        .find(|it| it["name"] == "divide");
    assert_eq!(
        divide_is.expect("an entry")["state"],
        "UNAVAILABLE",
        "{index}"
    );
    let (status, body) = operate("repository-model-load");
    assert_eq!(status, "200", "{body}");
    let good = divide(&mut sensor, 42, 2);
    assert_eq!(ask(&mut sensor, &good).status, "200");
    agent.stop().expect("a clean end");
}

/// `kill -9` says nothing about the models that ran.
#[test]
fn an_agent_that_was_killed_from_outside_suspects_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    support::make_endless(&folder.path().join("models"));
    let [port] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
    let mut agent = start(folder.path(), port);
    support::wait_until_serving(&mut agent);
    let mut sensor = Client::connect("cam-1", port);
    let endless = |client: &mut Client, rounds: u64| {
        let mut request = client.request();
        request.topic = format!("edge/v1/lab/box/box-1/infer/endless/{}", client.name);
        let rounds = json!({"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]});
        request.body = json!({"inputs": [rounds]}).to_string().into();
        request
    };
    let long = endless(&mut sensor, 3_000_000);
    sensor.send(&long);
    sensor.wait_for_acks(1);
    agent.kill().expect("a kill");
    drop(agent);
    let mut agent = start(folder.path(), port);
    let answer = final_answer(&mut sensor, &long);
    assert_eq!(answer.status, "200", "delivered again, and run to its end");
    let log = fs::read_to_string(agent.log_file()).expect("a log");
    assert!(!log.contains("quarantine"), "{log}");
    support::wait_until_serving(&mut agent);
}
