//! The whole Open Inference Protocol against a real agent: other people's clients over HTTP, operations over MQTT,
//! and hostile HTTP.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use cross::cache::Cache;
use cross::processes::{self, Process};
use cross::shell;
use serde_json::{Value, json};
use support::{Agent, Client, wait_for_log};
use tempfile::TempDir;

/// A box that serves over HTTP, with a repository of its own.
struct Lab {
    agent: Process,
    http: u16,
    _folder: TempDir,
}

/// The models of the tests, and digits.
fn repository(folder: &Path) -> std::path::PathBuf {
    let models = folder.join("models");
    let tests = cross::repository().join("cross/models/test-models");
    for from in [tests, cross::committed_models()] {
        let mut copy = Command::new("cp");
        copy.arg("-rT").arg(from).arg(&models);
        shell::output(&mut copy).expect("a copy");
    }
    support::make_endless(&models);
    let both = "version_policy = 'all'\n";
    std::fs::write(models.join("switch/model.toml"), both).expect("settings");
    models
}

impl Lab {
    /// Without a broker unless there is one at `mqtt`: HTTP does not need it.
    fn start(mqtt: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [http] = processes::free_ports().expect("a port");
        let agent = Agent {
            models: repository(folder.path()),
            more: vec![
                format!("--http=127.0.0.1:{http}"),
                "--admins=admin-1".into(),
                // Any request that the endless model is given some rounds for.
                "--slow-request-ms=1".into(),
            ],
            ..Agent::new("box-1", mqtt)
        };
        let agent = agent.start(folder.path());
        let this = Self {
            agent,
            http,
            _folder: folder,
        };
        support::eventually("every model is loaded or has failed", || {
            this.get("v2/health/ready").0 == 200
        });
        this
    }

    fn get(&self, path: &str) -> (u16, Value) {
        match http().get(self.url(path)).send() {
            Ok(answer) => (answer.status().as_u16(), answer.json().unwrap_or_default()),
            Err(_) => (0, Value::Null),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.http)
    }

    /// Status of the answer to a request.
    fn infer(&self, model: &str, body: &str) -> u16 {
        let url = self.url(&format!("v2/models/{model}/infer"));
        let answer = http().post(url).body(body.to_owned()).send();
        answer.expect("an answer").status().as_u16()
    }

    /// The value of a line of `/metrics`, without the labels model and version, for version 1 of a model.
    fn figure(&self, model: &str, name: &str, more: &str) -> f64 {
        let answer = http().get(self.url("metrics")).send().expect("an answer");
        let text = answer.text().expect("text");
        let labels = format!("{name}{{model=\"{model}\",version=\"1\"{more}}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&labels));
        line.unwrap_or_else(|| panic!("no {labels} in {text}"))
            .parse()
            .expect("a number")
    }

    /// Runs one of the clients of others.
    fn serve_client(mut self, script: &str) {
        let python = Cache::from_env().expect("a cache folder").python();
        let script = cross::repository().join("cross/tests/clients").join(script);
        let mut client = Command::new(python);
        client.arg(script).arg(format!("127.0.0.1:{}", self.http));
        let printed = shell::output(&mut client);
        let log = self.agent.log();
        let printed = printed.unwrap_or_else(|error| panic!("{error:?}{log}"));
        assert!(printed.contains("as it should be"), "{printed}");
        assert!(
            self.agent.ended().expect("a state").is_none(),
            "the agent lives"
        );
        self.agent.stop().expect("a clean end");
    }

    /// Sends bytes and reads until the agent ends the connection.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).expect("a connection");
        stream
            .set_read_timeout(Some(support::PATIENCE))
            .expect("a timeout");
        stream.write_all(bytes).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn http() -> reqwest::blocking::Client {
    let client = reqwest::blocking::Client::builder().no_proxy().build();
    client.expect("a client")
}

#[test]
fn figures_are_told_by_tritons_names() {
    let lab = Lab::start(1);
    let (image, _) = support::first_image();
    for _ in 0..5 {
        assert_eq!(lab.infer("digits", &image), 200);
    }
    for _ in 0..2 {
        assert_eq!(lab.infer("digits", "nonsense"), 400);
    }
    let late = image.replacen('{', r#"{"parameters":{"timeout":1},"#, 1);
    assert_eq!(lab.infer("digits", &late), 408);
    let figure = |name: &str, more: &str| lab.figure("digits", name, more);
    for (name, more, value) in [
        ("nv_inference_request_success", "", 5.0),
        ("nv_inference_count", "", 5.0),
        ("nv_inference_exec_count", "", 5.0),
        ("nv_inference_pending_request_count", "", 0.0),
        ("nv_inference_request_failure", r#",reason="OTHER""#, 2.0),
        ("nv_inference_request_failure", r#",reason="REJECTED""#, 1.0),
        ("nv_inference_request_failure", r#",reason="BACKEND""#, 0.0),
        ("edge_inference_request_duration_seconds_count", "", 5.0),
    ] {
        assert!(
            (figure(name, more) - value).abs() < 0.5,
            "{name}{more}: {}",
            figure(name, more)
        );
    }
    let stages = ["queue", "compute_input", "compute_infer", "compute_output"];
    let parts: f64 = stages
        .iter()
        .map(|stage| figure(&format!("nv_inference_{stage}_duration_us"), ""))
        .sum();
    let whole = figure("nv_inference_request_duration_us", "");
    assert!(whole > 0.0 && parts <= whole, "{parts} of {whole}");
    for stage in stages {
        let bucket = format!(",stage=\"{stage}\",le=\"+Inf\"");
        let count = figure("edge_inference_stage_duration_seconds_bucket", &bucket);
        assert!((count - 5.0).abs() < 0.5, "{stage}: {count}");
    }
}

#[test]
fn a_slow_request_leaves_a_line_that_says_what_took_long() {
    let mut lab = Lab::start(1);
    let rounds = r#"{"inputs":[{"name":"rounds","shape":[1],"datatype":"INT64","data":[100000]}]}"#;
    assert_eq!(lab.infer("endless", rounds), 200);
    wait_for_log(
        &mut lab.agent,
        "slow request model=endless client=http-127-0-0-1 status=200",
    );
    let log = std::fs::read_to_string(lab.agent.log_file()).expect("a log");
    let line = log
        .lines()
        .find(|line| line.contains("slow request model=endless"))
        .expect("a line");
    for field in [
        "total_us=",
        "queue_us=",
        "compute_input_us=",
        "compute_infer_us=",
        "compute_output_us=",
    ] {
        assert!(line.contains(field), "{line}");
    }
}

#[test]
fn tritons_client_is_served() {
    Lab::start(1).serve_client("triton.py");
}

#[test]
fn kserves_client_is_served() {
    Lab::start(1).serve_client("kserve_rest.py");
}

/// Over MQTT the same operations are there for everybody, and those on the repository for admins.
#[test]
fn operations_are_answered_over_mqtt() {
    let folder = tempfile::tempdir().expect("a folder");
    let [port] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
    let mut lab = Lab::start(port);
    wait_for_log(&mut lab.agent, r#"taking requests purpose="own""#);
    let ask = |client: &mut Client, operation: &str, subject: Value| {
        let mut request = client.request();
        request.topic = format!("edge/v1/lab/box/box-1/op/{operation}/{}", client.name);
        request.body = if subject.is_null() {
            Vec::new()
        } else {
            subject.to_string().into()
        };
        if subject.is_null() {
            request.properties.content_type = None;
        }
        let answer = client.ask(&request);
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        (answer.status, body)
    };
    let (mut sensor, mut admin) = (
        Client::connect("cam-1", port),
        Client::connect("admin-1", port),
    );
    let (status, body) = ask(&mut sensor, "server-live", Value::Null);
    assert_eq!((status.as_str(), &body), ("200", &json!({"live": true})));
    let (status, body) = ask(&mut sensor, "server-metadata", Value::Null);
    assert_eq!(
        (status.as_str(), &body["name"]),
        ("200", &json!("aethir-edge"))
    );
    let (status, body) = ask(&mut sensor, "model-metadata", json!({"name": "digits"}));
    assert_eq!(status, "200");
    assert_eq!(body, lab.get("v2/models/digits").1, "the same over HTTP");
    assert_eq!(
        body["inputs"][0],
        json!({"name": "pixels", "datatype": "FP32", "shape": [-1, 64]})
    );
    let ready = |version: &str| json!({"name": "switch", "version": version});
    assert_eq!(ask(&mut sensor, "model-ready", ready("2")).0, "200");
    assert_eq!(ask(&mut sensor, "model-ready", ready("9")).0, "503");
    assert_eq!(
        ask(&mut sensor, "model-ready", json!({"name": "dog"})).0,
        "404"
    );
    assert_eq!(ask(&mut sensor, "reboot", Value::Null).0, "404");

    for operation in [
        "repository-index",
        "repository-model-load",
        "repository-model-unload",
    ] {
        let (status, body) = ask(&mut sensor, operation, json!({"model_name": "digits"}));
        assert_eq!(status, "403", "{operation}: {body}");
    }
    let (status, index) = ask(&mut admin, "repository-index", json!({"ready": true}));
    assert_eq!(status, "200");
    let index = index.as_array().expect("a list");
    assert!(
        index.iter().all(|entry| entry["state"] == "READY"),
        "{index:?}"
    );
    assert!(
        !index.iter().any(|entry| entry["name"] == "absent"),
        "{index:?}"
    );
    let model = json!({"model_name": "digits"});
    assert_eq!(
        ask(&mut admin, "repository-model-unload", model.clone()).0,
        "200"
    );
    let infer = |sensor: &mut Client| {
        let mut request = sensor.request();
        request.topic = format!("edge/v1/lab/box/box-1/infer/digits/{}", sensor.name);
        sensor.ask(&request).status
    };
    assert_eq!(infer(&mut sensor), "503", "another box may have it");
    assert_eq!(ask(&mut admin, "repository-model-load", model).0, "200");
    assert_eq!(infer(&mut sensor), "200");
    let (status, body) = ask(
        &mut admin,
        "repository-model-load",
        json!({"name": "absent"}),
    );
    assert_eq!(status, "500");
    let error = body["error"].as_str().expect("words");
    assert!(error.contains("NoSuchOperator"), "{error}");
    wait_for_log(&mut lab.agent, "an admin is answered");
}

#[test]
fn hostile_http_is_refused_in_words_and_harms_nobody() {
    let lab = Lab::start(1);
    let post = |headers: &str, body: &str| {
        let line = "POST /v2/models/digits/infer HTTP/1.1\r\nHost: box\r\nConnection: close";
        lab.send(format!("{line}\r\n{headers}\r\n\r\n{body}").as_bytes())
    };
    for (headers, body, status, words) in [
        ("Content-Length: 9000000", "", 413, "at most 8388608"),
        (
            "Content-Length: 8",
            "nonsense",
            400,
            "not an Open Inference Protocol v2 body",
        ),
        (
            "Content-Length: 2\r\nInference-Header-Content-Length: 9",
            "{}",
            400,
            "is said to have 9 bytes",
        ),
        (
            "Content-Length: 2\r\nContent-Encoding: gzip",
            "{}",
            400,
            "encoded as",
        ),
        (
            "Content-Length: 2\r\nContent-Type: text/html",
            "{}",
            400,
            "text/html",
        ),
    ] {
        let answer = post(headers, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers}: {answer}"
        );
        assert!(answer.contains(words), "{headers}: {answer}");
        assert!(answer.contains("application/json"), "{headers}: {answer}");
    }
    for (request, status) in [
        (
            "GET /v3 HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n".to_owned(),
            404,
        ),
        (
            "PUT /v2 HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n".to_owned(),
            405,
        ),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(40_000)), 431),
        (
            "GET /v2/models/..%2f..%2fetc/ready HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n"
                .to_owned(),
            404,
        ),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        let answer = lab.send(request.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
    }
    // Many connections that never ask hold up nobody.
    let _idle: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(("127.0.0.1", lab.http)).expect("a connection"))
        .collect();
    assert_eq!(lab.get("v2/health/live"), (200, json!({"live": true})));
    lab.agent
        .stop()
        .expect("it ends though connections are open");
}

/// The committed test models are those that their script makes.
#[test]
fn the_test_models_are_those_of_their_script() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = Cache::from_env().expect("a cache folder").python();
    let models = cross::repository().join("cross/models");
    let mut make = Command::new(python);
    make.arg(models.join("make_datatypes.py"))
        .arg("--out")
        .arg(folder.path());
    shell::output(&mut make).expect("models");
    let mut compare = Command::new("diff");
    compare
        .arg("-r")
        .arg(models.join("test-models"))
        .arg(folder.path());
    shell::output(&mut compare).expect("no difference");
}
