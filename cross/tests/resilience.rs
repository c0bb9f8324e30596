//! What goes wrong under load costs no answer: a broker that is killed, an agent that is killed, a run that nothing
//! ends, and a minute of requests of all kinds.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cross::processes::{self, Process};
use cross::sensor::SensorResult;
use support::{Agent, Client, Request, wait_for_log, wait_until_serving};
use tempfile::TempDir;

/// Mosquitto and one box with digits, each of which can be killed and started again.
struct Lab {
    agent: Process,
    broker: Process,
    mqtt: u16,
    http: u16,
    folder: TempDir,
}

impl Lab {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [mqtt, http] = processes::free_ports().expect("ports");
        let broker = processes::mosquitto(mqtt, folder.path()).expect("mosquitto");
        let mut agent = start_agent(folder.path(), mqtt, http);
        wait_until_serving(&mut agent);
        Self {
            agent,
            broker,
            mqtt,
            http,
            folder,
        }
    }

    /// Digits that the agent has computed since its start.
    fn computed(&self) -> u64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.http);
        let http = reqwest::blocking::Client::builder().no_proxy().build();
        let text = http.and_then(|http| http.get(url).send()?.text());
        let text = text.unwrap_or_default();
        let name = r#"nv_inference_count{model="digits",version="1"} "#;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// A sensor that sends `count` images, 200 a second, and sends each again until it is answered or has expired.
    fn sensor(&self, count: u64) -> Process {
        let arguments = [
            "sense".to_owned(),
            format!("--broker=mqtt://127.0.0.1:{}", self.mqtt),
            "--region=lab".to_owned(),
            "--model=digits".to_owned(),
            format!("--data={}", cross::heldout_images().display()),
            "--client=sensor-1".to_owned(),
            "--rate=200".to_owned(),
            "--expiry=20".to_owned(),
            "--json".to_owned(),
            format!("--count={count}"),
        ];
        let program = support::programs().join("edgectl");
        Process::start("sensor-1", &program, arguments, self.folder.path()).expect("edgectl starts")
    }
}

fn start_agent(folder: &Path, mqtt: u16, http: u16) -> Process {
    let agent = Agent {
        more: vec![format!("--http=127.0.0.1:{http}")],
        ..Agent::new("box-1", mqtt)
    };
    agent.start(folder)
}

/// What a sensor says at its end: each request has had one result.
fn result(mut sensor: Process, count: u64) -> SensorResult {
    sensor.wait(Duration::from_secs(60)).expect("its end");
    let printed = sensor.printed().expect("its output");
    let last = printed.lines().next_back().unwrap_or_default();
    let result: SensorResult = serde_json::from_str(last).expect("a result");
    let failed: u64 = result.failures.values().sum();
    assert_eq!(result.requests, count, "{result:?}");
    assert_eq!(
        result.answered + failed,
        count,
        "one result each: {result:?}"
    );
    result
}

#[test]
fn a_broker_that_is_killed_under_load_costs_no_answer_and_nothing_runs_twice() {
    const COUNT: u64 = 1_200;
    let mut lab = Lab::start();
    let sensor = lab.sensor(COUNT);
    for share in [4, 2] {
        support::eventually("a part is computed", || lab.computed() >= COUNT / share);
        lab.broker.kill().expect("a kill");
        lab.broker = processes::mosquitto(lab.mqtt, lab.folder.path()).expect("mosquitto");
    }
    let result = result(sensor, COUNT);
    assert_eq!(result.answered, COUNT, "{result:?}{}", lab.agent.log());
    assert!(result.retries > 0, "something was in flight: {result:?}");
    // The box lived on, so its cache knew every repeat.
    assert_eq!(lab.computed(), COUNT, "each ran once: {result:?}");
    lab.agent.stop().expect("a clean end");
}

#[test]
fn an_agent_that_is_killed_under_load_costs_no_answer() {
    const COUNT: u64 = 1_200;
    let mut lab = Lab::start();
    let sensor = lab.sensor(COUNT);
    let mut before = 0;
    for _ in 0..2 {
        support::eventually("a part is computed", || lab.computed() >= COUNT / 4);
        before += lab.computed();
        lab.agent.kill().expect("a kill");
        lab.agent = start_agent(lab.folder.path(), lab.mqtt, lab.http);
        wait_until_serving(&mut lab.agent);
    }
    let result = result(sensor, COUNT);
    assert_eq!(result.answered, COUNT, "{result:?}{}", lab.agent.log());
    // What the last agent has computed it has computed once: its cache knew every repeat.
    assert!(
        lab.computed() <= COUNT - before + result.retries,
        "{result:?}"
    );
    lab.agent.stop().expect("a clean end");
}

/// A model repository with digits and the stubborn model in five copies.
fn with_stubborn(folder: &Path) -> PathBuf {
    let models = folder.join("models");
    support::make_model(&models, "stubborn");
    fs::write(models.join("stubborn/model.toml"), "instances = 5\n").expect("settings");
    let digits = cross::committed_models().join("digits");
    std::os::unix::fs::symlink(digits, models.join("digits")).expect("a link");
    models
}

fn stubborn(client: &mut Client, boxes: u64) -> Request {
    let mut request = client.request();
    request.topic = format!("edge/v1/lab/box/box-1/infer/stubborn/{}", client.name);
    let body = format!(
        r#"{{"inputs":[{{"name":"boxes","shape":[1],"datatype":"INT64","data":[{boxes}]}}]}}"#
    );
    request.body = body.into();
    request
}

/// ONNX Runtime ends a run between two operators only (`tests/health.rs`). A run that sits in one operator costs its
/// thread; when there are too many of them the agent ends, is started again, and what it was asked is answered.
#[test]
fn runs_that_nothing_ends_cost_their_threads_then_the_agent_and_all_are_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let [mqtt] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(mqtt, folder.path()).expect("mosquitto");
    let agent = Agent {
        models: with_stubborn(folder.path()),
        more: vec!["--run-timeout-s=1".into()],
        ..Agent::new("box-1", mqtt)
    };
    let mut first = agent.start(folder.path());
    wait_until_serving(&mut first);
    support::wait_for_log_times(&mut first, "serving model", 2);

    let mut greedy = Client::connect("greedy-1", mqtt);
    let few = stubborn(&mut greedy, 100);
    assert_eq!(greedy.ask(&few).status, "200");
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let request = stubborn(&mut greedy, 1_000_000);
        greedy.send(&request);
        waiting.push(request);
    }
    greedy.wait_for_acks(waiting.len());
    let mut honest = Client::connect("sensor-1", mqtt);
    for _ in 0..10 {
        let request = honest.request();
        assert_eq!(honest.ask(&request).status, "200", "others are served");
    }
    let status = first.wait(Duration::from_secs(30)).expect("the agent ends");
    let log = fs::read_to_string(first.log_file()).expect("a log");
    assert_eq!(
        status.code(),
        Some(3),
        "as one that is to be started again: {log}"
    );
    assert_eq!(log.matches("its thread is replaced").count(), 4, "{log}");
    drop(first);

    let mut second = agent.start(folder.path());
    wait_for_log(&mut second, r#"taking requests purpose="own""#);
    while !waiting.is_empty() {
        let answer = greedy.receive();
        let correlation = Some(&*answer.correlation);
        let is_asked = |it: &Request| it.properties.correlation_data.as_deref() == correlation;
        if let Some(place) = waiting.iter().position(is_asked) {
            if answer.status == "503" {
                greedy.send(&waiting[place]);
                continue;
            }
            assert_eq!(answer.status, "500", "{answer:?}");
            assert!(
                answer.message.contains("its thread was replaced"),
                "{answer:?}"
            );
            waiting.remove(place);
        }
    }
    let request = honest.request();
    assert_eq!(honest.ask(&request).status, "200");
    let few = stubborn(&mut greedy, 100);
    assert_eq!(greedy.ask(&few).status, "200");
    assert!(second.ended().expect("a state").is_none(), "it lives on");
}

/// One of each: in order, nonsense, of a wrong shape, late, as large as may be, and larger.
fn mix(client: &mut Client, turn: usize) -> (Request, &'static str) {
    let mut request = client.request();
    request.properties.message_expiry_interval = Some(2);
    let status = match turn % 6 {
        0 => "200",
        1 => {
            request.body = vec![b'{'; 4_096];
            "400"
        }
        2 => {
            request.body =
                r#"{"inputs":[{"name":"pixels","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#
                    .into();
            "400"
        }
        3 => {
            let all = String::from_utf8(request.body.clone()).expect("text");
            request.body = all
                .replacen('{', r#"{"parameters":{"timeout":1},"#, 1)
                .into();
            "408"
        }
        4 => {
            // 2 MiB in, and a label for each image out.
            let header = r#"{"inputs":[{"name":"pixels","shape":[8192,64],"datatype":"FP32","parameters":{"binary_data_size":2097152}}],"outputs":[{"name":"label"}]}"#;
            request.body = [header.as_bytes(), &[0; 2_097_152]].concat();
            request.properties.content_type = Some("application/octet-stream".into());
            let length = header.len().to_string();
            let length = ("inference-header-content-length".into(), length);
            request.properties.user_properties = vec![length];
            "200"
        }
        _ => {
            request.body = vec![b' '; (8 << 20) + 1];
            "413"
        }
    };
    (request, status)
}

#[test]
fn a_minute_of_good_bad_late_and_huge_requests_leaves_memory_flat() {
    const MINUTE: Duration = Duration::from_secs(60);
    let lab = Lab::start();
    let mut client = Client::connect("mixed-1", lab.mqtt);
    let began = Instant::now();
    let mut samples = Vec::new();
    let mut turn = 0;
    while began.elapsed() < MINUTE {
        let (request, status) = mix(&mut client, turn);
        let answer = client.ask(&request);
        assert_eq!(answer.status, status, "turn {turn}: {}", answer.message);
        samples.push((began.elapsed(), support::resident_kib(&lab.agent)));
        turn += 1;
    }
    let median = |from: u64, to: u64| {
        let within = Duration::from_secs(from)..Duration::from_secs(to);
        let within = samples.iter().filter(|(at, _)| within.contains(at));
        let mut kib: Vec<u64> = within.map(|(_, kib)| *kib).collect();
        kib.sort_unstable();
        kib[kib.len() / 2]
    };
    let (early, late) = (median(5, 20), median(45, 60));
    println!("{turn} requests; resident {early} KiB after 5 to 20 s, {late} KiB after 45 to 60 s");
    assert!(turn > 100, "{turn} requests");
    assert!(late * 100 <= early * 105, "{early} KiB became {late} KiB");
    lab.agent.stop().expect("a clean end");
}
