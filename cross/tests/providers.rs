//! Execution providers of a board: each is tried beside the CPU in a process of its own, the fastest whose answers are
//! right runs the model, and what became of the others is told. With a simulated accelerator that is told what to do.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use cross::processes::{self, Process};
use serde_json::Value;
use support::{Agent, Client, wait_until_serving};
use tempfile::TempDir;

struct Lab {
    folder: TempDir,
    mqtt: u16,
    http: u16,
    _broker: Process,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [mqtt, http] = processes::free_ports().expect("ports");
        let broker = processes::mosquitto(mqtt, folder.path()).expect("mosquitto");
        let models = folder.path().join("models/digits");
        fs::create_dir_all(models.join("1")).expect("a folder");
        copy_digits(&models.join("1"));
        Self {
            folder,
            mqtt,
            http,
            _broker: broker,
        }
    }

    /// A box whose simulated accelerator does so, with these providers.
    fn start(&self, does: &str, providers: &str) -> Process {
        let board = self.folder.path().join(format!("sim-{does}.toml"));
        let text = format!(
            "inherit = \"host-sim\"\nname = \"sim-{does}\"\n\n\
             [accelerators]\nexecution_providers = {providers}\nsim = \"{does}\"\n"
        );
        fs::write(&board, text).expect("a board file");
        let agent = Agent {
            models: self.models(),
            more: vec![
                format!("--board={}", board.display()),
                format!("--http=127.0.0.1:{}", self.http),
            ],
            ..Agent::new("box-1", self.mqtt)
        };
        let mut agent = agent.start(self.folder.path());
        wait_until_serving(&mut agent);
        agent
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// Which provider runs digits, and the others with their reasons.
    fn provider(&self) -> (String, Vec<(String, String)>) {
        let http = reqwest::blocking::Client::builder().no_proxy().build();
        let url = format!("http://127.0.0.1:{}/v2/models/digits", self.http);
        let answer = http
            .and_then(|http| http.get(url).send())
            .expect("an answer");
        let metadata: Value = answer.json().expect("JSON");
        let parameters = &metadata["parameters"];
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let refused = parameters["refused_providers"].as_array().cloned();
        let refused = refused.unwrap_or_default();
        (
            text(&parameters["execution_provider"]),
            refused
                .iter()
                .map(|it| (text(&it["provider"]), text(&it["reason"])))
                .collect(),
        )
    }
}

fn copy_digits(version: &Path) {
    let graph = cross::committed_models().join("digits/1/model.onnx");
    fs::copy(graph, version.join("model.onnx")).expect("a copy");
}

fn tried(agent: &Process) -> usize {
    let log = fs::read_to_string(agent.log_file()).expect("a log");
    log.matches("an execution provider was tried").count()
}

#[test]
fn an_accelerator_that_crashes_differs_or_is_slow_does_not_run_the_model() {
    let lab = Lab::new();
    for (does, reason) in [
        ("crash", "crashes (SIGSEGV)"),
        ("differ", "answers differ from the CPU's"),
        ("slow", "slower: a run takes "),
    ] {
        let mut region = Client::connect("region-1", lab.mqtt);
        region.subscribe("spBv1.0/lab/+/box-1");
        let agent = lab.start(does, r#"["sim", "cpu"]"#);
        let (provider, refused) = lab.provider();
        assert_eq!(provider, "cpu", "{does}: {refused:?}");
        assert_eq!(refused.len(), 1, "{does}: {refused:?}");
        assert_eq!(refused[0].0, "sim");
        assert!(refused[0].1.contains(reason), "{does}: {refused:?}");
        let mut sensor = Client::connect("sensor-1", lab.mqtt);
        let image = sensor.request();
        assert_eq!(sensor.ask(&image).status, "200", "the box serves");
        support::eventually("the region hears of it", || {
            region.receive().body.contains(reason)
        });
        assert_eq!(
            tried(&agent),
            1,
            "the cache of one is not taken for another"
        );
        agent.stop().expect("a clean end");
    }
}

#[test]
fn the_fastest_right_one_runs_the_model_and_is_remembered() {
    let lab = Lab::new();
    let providers = r#"["qnn-gpu", "sim", "cpu"]"#;
    let agent = lab.start("fast", providers);
    let chosen = lab.provider();
    assert_eq!(chosen.0, "sim", "{chosen:?}");
    let reasons: Vec<&str> = chosen.1.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(reasons, ["qnn-gpu", "cpu"], "{chosen:?}");
    assert_eq!(chosen.1[0].1, "ONNX Runtime's library does not have it");
    assert!(chosen.1[1].1.contains("as long as on sim"), "{chosen:?}");
    let (image, label) = support::first_image();
    let mut sensor = Client::connect("sensor-1", lab.mqtt);
    let mut request = sensor.request();
    request.body = image.into();
    let answer = sensor.ask(&request);
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    let outputs = answer["outputs"].as_array().expect("outputs");
    let digit = outputs.iter().find(|it| it["name"] == "label");
    assert_eq!(digit.expect("a label")["data"][0], label, "{answer}");
    assert_eq!(tried(&agent), 2);
    agent.stop().expect("a clean end");

    let again = lab.start("fast", providers);
    assert_eq!(lab.provider(), chosen);
    assert_eq!(tried(&again), 0, "remembered over a start");
    // Another model is another trial.
    let beside = lab.folder.path().join("beside");
    fs::create_dir(&beside).expect("a folder");
    copy_digits(&beside);
    fs::write(beside.join("more-weights.bin"), "other weights").expect("a file");
    fs::rename(&beside, lab.models().join("digits/2")).expect("renamed");
    support::eventually("version 2 was tried", || tried(&again) == 2);
    again.stop().expect("a clean end");

    // A book that is torn is no reason not to start.
    let book = lab.folder.path().join("box-1/provider-trials.json");
    let text = fs::read(&book).expect("a book");
    fs::write(&book, &text[..text.len() / 2]).expect("half of it");
    let last = lab.start("fast", providers);
    assert_eq!(lab.provider().0, "sim");
    last.stop().expect("a clean end");
}
