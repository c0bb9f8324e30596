//! What a real agent does about runs that do not end, a frozen process, and storage that takes no writes; and what
//! systemd hears of it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cross::processes::{self, Process};
use cross::shell;
use nix::sys::signal::Signal;
use support::{Client, Request, wait_for_log, wait_for_log_times, wait_until_serving};

/// A time in which a healthy agent is heard several times: it speaks three times in [`WATCHDOG_USEC`].
const SILENCE: Duration = Duration::from_secs(3);
const WATCHDOG_USEC: u32 = 900_000;

/// Mosquitto, an agent with one core's worth of `digits` and `endless`, and systemd's ear.
struct Lab {
    agent: Process,
    port: u16,
    systemd: UnixDatagram,
    _broker: Process,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let models = folder.path().join("models");
        support::make_endless(&models);
        let digits = cross::committed_models().join("digits");
        std::os::unix::fs::symlink(digits, models.join("digits")).expect("a link");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a data folder");
        prepare(&data);

        let socket = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&socket).expect("a socket");
        systemd.set_read_timeout(Some(SILENCE)).expect("a time-out");
        let [port] = processes::free_ports().expect("a port");
        let broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
        let arguments = [
            format!("NOTIFY_SOCKET={}", socket.display()),
            format!("WATCHDOG_USEC={WATCHDOG_USEC}"),
            support::programs().join("edge-agent").display().to_string(),
            "run".to_owned(),
            "--region=lab".to_owned(),
            "--box-id=box-1".to_owned(),
            format!("--broker=mqtt://127.0.0.1:{port}"),
            format!("--models={}", models.display()),
            format!("--data={}", data.display()),
            format!("--onnxruntime={}", support::onnxruntime().display()),
            "--run-timeout-s=2".to_owned(),
        ];
        let mut agent = Process::start("box-1", Path::new("env"), arguments, folder.path())
            .expect("edge-agent starts");
        wait_until_serving(&mut agent);
        wait_for_log_times(&mut agent, "serving model", 2);
        Self {
            agent,
            port,
            systemd,
            _broker: broker,
            _folder: folder,
        }
    }

    /// The next message that systemd hears; none after [`SILENCE`].
    fn heard(&self) -> Option<String> {
        let mut buffer = [0; 1024];
        let bytes = self.systemd.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..bytes]).into_owned())
    }

    fn hears(&self, wanted: &str) -> String {
        let started = Instant::now();
        let mut all = Vec::new();
        while started.elapsed() < support::PATIENCE {
            all.extend(self.heard());
            if let Some(heard) = all.last().filter(|heard| heard.contains(wanted)) {
                return heard.clone();
            }
        }
        panic!("{wanted:?} is not said: {all:?}{}", self.agent.log());
    }
}

fn endless(client: &mut Client, rounds: u64) -> Request {
    let mut request = client.request();
    request.topic = format!("edge/v1/lab/box/box-1/infer/endless/{}", client.name);
    let body = format!(
        r#"{{"inputs":[{{"name":"rounds","shape":[1],"datatype":"INT64","data":[{rounds}]}}]}}"#
    );
    request.body = body.into();
    request
}

#[test]
fn an_endless_run_is_stopped_and_answered_while_others_are_served() {
    let mut lab = Lab::start(|_| {});
    let mut greedy = Client::connect("greedy-1", lab.port);
    let mut honest = Client::connect("sensor-1", lab.port);
    let request = endless(&mut greedy, 3);
    let answer = greedy.ask(&request);
    assert_eq!(answer.status, "200", "{answer:?}");
    assert!(answer.body.contains("[3]"), "{answer:?}");

    let request = endless(&mut greedy, 1 << 62);
    greedy.send(&request);
    for _ in 0..20 {
        let request = honest.request();
        assert_eq!(honest.ask(&request).status, "200");
    }
    let answer = greedy.receive();
    assert_eq!(answer.status, "500", "{answer:?}");
    assert!(answer.message.contains("ran for too long"), "{answer:?}");
    wait_for_log(&mut lab.agent, "telling a run that takes too long to end");
    // The same thread goes on, and the same request does not run again.
    let request_3 = endless(&mut greedy, 3);
    assert_eq!(greedy.ask(&request_3).status, "200");
    assert_eq!(greedy.ask(&request).status, "500");
    lab.hears("WATCHDOG=1");
    lab.agent.stop().expect("the agent ends with 0");
}

#[test]
fn systemd_hears_ready_status_and_life_but_not_of_a_frozen_agent() {
    let mut lab = Lab::start(|_| {});
    lab.hears("READY=1");
    let status = lab.hears("STATUS=serving 2 models, broker connected, ");
    assert!(status.ends_with("°C"), "{status}");
    lab.hears("WATCHDOG=1");

    lab.agent.signal(Signal::SIGSTOP);
    // What was sent before comes first.
    let is_silent = (0..20).any(|_| lab.heard().is_none());
    assert!(is_silent, "a frozen agent says nothing");
    lab.agent.signal(Signal::SIGCONT);
    lab.hears("WATCHDOG=1");
    let mut client = Client::connect("sensor-1", lab.port);
    let request = client.request();
    assert_eq!(client.ask(&request).status, "200");
    let log = fs::read_to_string(lab.agent.log_file()).expect("a log");
    assert!(
        !log.contains("makes no progress"),
        "nobody is blamed: {log}"
    );

    lab.agent.signal(Signal::SIGTERM);
    lab.hears("STOPPING=1");
    let ended = lab.agent.wait(support::PATIENCE).expect("it ends");
    assert!(ended.success(), "{ended}");
    let log = fs::read_to_string(lab.agent.log_file()).expect("a log");
    assert!(log.contains("the watchdog is stopped"), "{log}");
}

#[test]
fn storage_that_takes_no_writes_is_shown_and_the_box_goes_on() {
    // A file cannot replace a folder: stands for a full file system, whatever user runs the test.
    let mut lab = Lab::start(|data| {
        for name in ["health-probe", "health-history"] {
            fs::create_dir_all(data.join(name).join("in-the-way")).expect("a folder");
        }
    });
    wait_for_log(&mut lab.agent, "the data folder takes no writes");
    lab.hears("data folder:");
    lab.hears("WATCHDOG=1");
    let mut client = Client::connect("sensor-1", lab.port);
    let request = client.request();
    assert_eq!(client.ask(&request).status, "200");
    lab.hears("WATCHDOG=1");
}

#[test]
fn a_wrong_setting_has_a_code_at_which_systemd_does_not_try_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = support::programs().join("edge-agent");
    let data = format!("--data={}", folder.path().display());
    let mut agent = Process::start("box-1", &program, ["run", &data], folder.path())
        .expect("edge-agent starts");
    let ended = agent.wait(support::PATIENCE).expect("it ends");
    assert_eq!(ended.code(), Some(2), "{}", agent.log());
}

/// Debian's own judge: the unit has no unknown keys and is not more exposed than it was.
#[test]
fn the_unit_is_one_that_systemd_understands() {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = cross::repository().join("edge-agent/systemd/edge-agent.service");
    let text = fs::read_to_string(unit).expect("the unit");
    assert!(text.contains("ExecStart=/usr/bin/edge-agent run"));
    // The judge wants the program to be there.
    let copy = folder.path().join("edge-agent.service");
    fs::write(&copy, text.replace("/usr/bin/edge-agent", "/bin/true")).expect("a copy");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&copy);
    let judged = verify.output().expect("systemd-analyze");
    let complaints = String::from_utf8_lossy(&judged.stderr).into_owned();
    assert!(judged.status.success(), "{complaints}");
    assert!(!complaints.contains("edge-agent.service"), "{complaints}");
    let mut security = Command::new("systemd-analyze");
    security
        .args(["security", "--offline=true", "--threshold=25"])
        .arg(&copy);
    shell::output(&mut security).expect("an exposure of at most 2.5");
}
