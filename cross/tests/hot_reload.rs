//! New versions of a model take the place of old ones while a real agent is under load, and no request fails.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cross::processes::{self, Process};
use reqwest::blocking::Client as Http;
use serde_json::{Value, json};
use support::{Agent, Client, wait_for_log};
use tempfile::TempDir;

/// A box with version 1 of `switch`, which adds its version to its input.
struct Lab {
    agent: Process,
    mqtt: u16,
    http: u16,
    models: PathBuf,
    folder: TempDir,
    _broker: Process,
}

/// The graph of a test model.
fn graph(name: &str) -> PathBuf {
    let models = cross::repository().join("cross/models/test-models");
    models.join(name).join("model.onnx")
}

impl Lab {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [mqtt, http] = processes::free_ports().expect("ports");
        let broker = processes::mosquitto(mqtt, folder.path()).expect("mosquitto");
        let models = folder.path().join("models");
        copy(&graph("switch/1"), &models.join("switch/1"));
        let agent = Agent {
            models: models.clone(),
            more: vec![format!("--http=127.0.0.1:{http}")],
            ..Agent::new("box-1", mqtt)
        };
        let mut agent = agent.start(folder.path());
        support::wait_until_serving(&mut agent);
        Self {
            agent,
            mqtt,
            http,
            models,
            folder,
            _broker: broker,
        }
    }

    /// Copies a version beside the repository, then renames it into place.
    fn rename_in(&self, from: &str, version: u64) {
        let beside = self.folder.path().join("beside").join(version.to_string());
        copy(&graph(from), &beside);
        let place = self.models.join("switch").join(version.to_string());
        fs::rename(beside, place).expect("renamed");
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/v2/{path}", self.http)
    }

    fn post(&self, path: &str) -> (u16, Value) {
        let answer = http()
            .post(self.url(path))
            .body("{}")
            .send()
            .expect("an answer");
        (answer.status().as_u16(), answer.json().expect("JSON"))
    }

    /// State and reason of a version in the index.
    fn index(&self, version: &str) -> Option<(String, String)> {
        let (_, index) = self.post("repository/index");
        let entries = index.as_array().expect("a list").clone();
        let entry = entries.into_iter().find(|it| it["version"] == version)?;
        let text = |key: &str| entry[key].as_str().expect("text").to_owned();
        Some((text("state"), text("reason")))
    }
}

fn http() -> Http {
    Http::builder().no_proxy().build().expect("a client")
}

fn copy(graph: &Path, version: &Path) {
    fs::create_dir_all(version).expect("a folder");
    fs::copy(graph, version.join("model.onnx")).expect("a copy");
}

/// Answers by version.
type Answers = BTreeMap<String, u64>;

fn body() -> Value {
    json!({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [40]}]})
}

/// The version that an answer names, which must be the one that computed it.
fn version_of(answer: &Value) -> String {
    let version = answer["model_version"].as_str().expect("a version");
    let number: i64 = version.parse().expect("a number");
    // Versions from 3 are copies of the graph of 2.
    assert_eq!(
        answer["outputs"][0]["data"],
        json!([40 + number.min(2)]),
        "{answer}"
    );
    version.to_owned()
}

/// Asks over HTTP, one request after the other, until told to stop; every answer must be good.
fn ask_over_http(url: &str, stop: &AtomicBool) -> Answers {
    let (client, mut answers) = (http(), Answers::new());
    while !stop.load(Ordering::Relaxed) {
        let answer = client.post(url).json(&body()).send().expect("an answer");
        let status = answer.status().as_u16();
        let answer: Value = answer.json().expect("JSON");
        assert_eq!(status, 200, "{answer}");
        *answers.entry(version_of(&answer)).or_default() += 1;
    }
    answers
}

/// The same over MQTT, eight requests at a time, to any box.
fn ask_over_mqtt(name: &str, port: u16, stop: &AtomicBool) -> Answers {
    let (mut client, mut answers) = (Client::connect(name, port), Answers::new());
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..8 {
            let mut request = client.request();
            request.topic = format!("edge/v1/lab/any/infer/switch/{name}");
            request.body = body().to_string().into();
            client.send(&request);
        }
        for _ in 0..8 {
            let answer = client.receive();
            assert_eq!(answer.status, "200", "{answer:?}");
            let answer = serde_json::from_str(&answer.body).expect("JSON");
            *answers.entry(version_of(&answer)).or_default() += 1;
        }
    }
    answers
}

#[test]
fn no_request_fails_while_versions_come_fail_and_go() {
    let mut lab = Lab::start();
    let stop = AtomicBool::new(false);
    let url = lab.url("models/switch/infer");
    let mqtt = lab.mqtt;
    let answers = thread::scope(|scope| {
        let (stop, url) = (&stop, &url);
        let clients = [
            scope.spawn(|| ask_over_http(url, stop)),
            scope.spawn(|| ask_over_http(url, stop)),
            scope.spawn(move || ask_over_mqtt("cam-1", mqtt, stop)),
            scope.spawn(move || ask_over_mqtt("cam-2", mqtt, stop)),
        ];
        // Stops the clients also when something here fails.
        let done = Stop(stop);
        let serving = |lab: &Lab, version: &str| {
            let answer = http()
                .get(lab.url("models/switch"))
                .send()
                .expect("an answer");
            let metadata: Value = answer.json().expect("JSON");
            metadata["versions"] == json!([version])
        };

        lab.rename_in("switch/2", 2);
        support::eventually("version 2 serves", || serving(&lab, "2"));

        lab.rename_in("absent/1", 3);
        support::eventually("version 3 has failed", || {
            lab.index("3").is_some_and(|(state, why)| {
                state == "UNAVAILABLE" && why.contains("NoSuchOperator")
            })
        });
        assert!(serving(&lab, "2"), "the old one goes on");
        wait_for_log(&mut lab.agent, "NoSuchOperator");

        // Copied file by file, with a manifest that says when it is complete.
        let place = lab.models.join("switch/4");
        let bytes = fs::read(graph("switch/2")).expect("a graph");
        fs::create_dir(&place).expect("a folder");
        fs::write(place.join("model.onnx"), &bytes[..bytes.len() / 2]).expect("half of it");
        support::eventually("version 4 waits", || {
            lab.index("4")
                .is_some_and(|(_, why)| why.contains("may not be complete"))
        });
        fs::write(place.join("manifest.sha256"), manifest(&bytes)).expect("a manifest");
        support::eventually("its hash is wrong", || {
            lab.index("4")
                .is_some_and(|(_, why)| why.contains("has not the hash"))
        });
        fs::write(place.join("model.onnx"), &bytes).expect("all of it");
        support::eventually("version 4 serves", || serving(&lab, "4"));

        // Asked for, file by file and without a manifest.
        copy(&graph("switch/2"), &lab.models.join("switch/5"));
        assert_eq!(lab.post("repository/models/switch/load").0, 200);
        assert!(serving(&lab, "5"));

        // Taken away: the next best comes back.
        fs::rename(lab.models.join("switch/5"), lab.folder.path().join("gone")).expect("renamed");
        support::eventually("version 4 serves again", || serving(&lab, "4"));

        // Settings change: the same version is loaded anew.
        let settings = lab.models.join("switch/model.toml");
        fs::write(&settings, "instances = 2\nlabels = []\n").expect("settings");
        support::eventually("two copies run", || {
            fs::read_to_string(lab.agent.log_file())
                .is_ok_and(|log| log.matches("version=4 load_ms").count() >= 3)
        });
        drop(done);
        clients.map(|client| client.join().expect("every answer is good"))
    });
    for answers in answers {
        assert!(answers.values().sum::<u64>() > 0, "{answers:?}");
        assert!(
            answers.contains_key("4"),
            "the last one answers: {answers:?}"
        );
        assert!(
            !answers.contains_key("3"),
            "the one that fails never does: {answers:?}"
        );
    }
    lab.agent.stop().expect("a clean end");
}

/// Ends the clients when dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn manifest(graph: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(graph)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{hash}  model.onnx\n")
}

/// The region sees which version serves, and which one does not and why.
#[test]
fn a_version_that_fails_is_in_the_telemetry() {
    let lab = Lab::start();
    let mut region = Client::connect("region-1", lab.mqtt);
    region.subscribe("spBv1.0/lab/NDATA/box-1");
    lab.rename_in("nan/1", 2);
    support::eventually("the reason is told", || {
        let payload = region.receive_on("spBv1.0/lab/NDATA/box-1");
        let text = String::from_utf8_lossy(&payload).into_owned();
        text.contains("2: the self-test failed")
    });
}
