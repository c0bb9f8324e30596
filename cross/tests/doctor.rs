//! `edge-agent doctor` on real processes: a region that is well, and each thing that goes wrong.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use cross::processes::{self, Process};
use cross::region::{self, Broker, Plan, Region};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;
use support::{Agent, PATIENCE, onnxruntime, programs, wait_for_log};

/// What `doctor` needs to be told; what is not set here is not told.
struct Doctor {
    region: &'static str,
    board: Option<PathBuf>,
    broker: Option<String>,
    indexer: Option<String>,
    update_server: Option<String>,
    data: PathBuf,
    models: PathBuf,
    onnxruntime: PathBuf,
    more: Vec<&'static str>,
}

impl Doctor {
    fn new(data: &Path) -> Self {
        Self {
            region: "lab",
            board: None,
            broker: None,
            indexer: None,
            update_server: None,
            data: data.to_owned(),
            models: cross::committed_models(),
            onnxruntime: onnxruntime(),
            more: Vec::new(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(programs().join("edge-agent"));
        command.args(["doctor", "--box-id=box-1", "--region", self.region]);
        command.arg("--data").arg(&self.data);
        command.arg("--models").arg(&self.models);
        command.arg("--onnxruntime").arg(&self.onnxruntime);
        if let Some(board) = &self.board {
            command.arg("--board").arg(board);
        }
        for (flag, value) in [
            ("--broker", &self.broker),
            ("--indexer", &self.indexer),
            ("--update-server", &self.update_server),
        ] {
            if let Some(value) = value {
                command.args([flag, value]);
            }
        }
        command.args(&self.more);
        command
    }

    fn examine(&self) -> Report {
        let output = self.command().arg("--json").output().expect("doctor runs");
        Report::new(&output)
    }
}

struct Report {
    code: i32,
    json: Value,
}

impl Report {
    fn new(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let json = serde_json::from_str(&text).unwrap_or_else(|error| {
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("{error}: {text}{said}")
        });
        Self {
            code: output.status.code().expect("an exit code"),
            json,
        }
    }

    fn checks(&self) -> Vec<(&str, &str, &str)> {
        let checks = self.json["checks"].as_array().expect("checks");
        let one = |check| {
            let field = |name: &str| Value::get(check, name)?.as_str();
            Some((field("check")?, field("verdict")?, field("value")?))
        };
        let read: Option<Vec<_>> = checks.iter().map(one).collect();
        read.expect("each check has its texts")
    }

    /// Verdict and value of a check.
    fn of(&self, name: &str) -> (&str, &str) {
        let checks = self.checks();
        let found = checks.iter().find(|(check, ..)| *check == name);
        let (_, verdict, value) = found.unwrap_or_else(|| panic!("no {name} in {:#}", self.json));
        (verdict, value)
    }

    fn assert(&self, name: &str, verdict: &str, part_of_value: &str) {
        let (found, value) = self.of(name);
        assert!(
            found == verdict && value.contains(part_of_value),
            "{name} is {found}: {value}; wanted {verdict}: {part_of_value}"
        );
    }

    /// Names of the checks that are not good.
    fn not_good(&self) -> Vec<&str> {
        let mut checks = self.checks();
        checks.retain(|(_, verdict, _)| *verdict != "good");
        checks.into_iter().map(|(check, ..)| check).collect()
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A clock that nobody holds and a disk that is nearly full are the machine's fault, not the box's: those who build have
/// such machines.
fn except_the_machine(mut checks: Vec<&str>) -> Vec<&str> {
    checks.retain(|check| !matches!(*check, "clock" | "storage"));
    checks
}

/// A service that answers every request with this.
fn serve(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4_096];
            let _count = stream.read(&mut request).expect("a request");
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
            .expect("an answer");
        }
    });
    format!("http://{address}/")
}

/// The owner's classic complaint has three causes, and each has its own words.
#[test]
fn a_region_that_is_well_and_then_is_not() {
    let mut region = Region::start(Plan {
        programs: programs(),
        onnxruntime: onnxruntime(),
        models: cross::committed_models(),
        broker: Broker::Mosquitto,
        boxes: 1,
        mqtt_port: None,
        http_port: None,
    })
    .expect("a region");
    let mut doctor = Doctor::new(&region.folder().join("box-1"));
    doctor.region = region::NAME;
    doctor.broker = Some(region.broker_url());
    doctor.indexer = Some(region.page());
    doctor.update_server = Some(serve(
        "200 OK",
        r#"{"signed":{"_type":"timestamp","version":3,"expires":"2999-01-01T00:00:00Z"},"signatures":[]}"#,
    ));
    let report = doctor.examine();
    assert_eq!(
        except_the_machine(report.not_good()),
        [""; 0],
        "{:#}",
        report.json
    );
    assert_eq!(report.code, 0);
    let agent = region.box_processes()[0].id();
    report.assert("agent", "good", &format!("runs as process {agent}"));
    report.assert("identity", "good", "fingerprint ");
    report.assert("memory", "good", "the agent holds ");
    report.assert("onnxruntime", "good", "ONNX Runtime 1.32.0");
    report.assert("provider/cpu", "good", "computes right");
    report.assert("model/digits", "good", "version 1 loads");
    report.assert("vulkan", "good", "llvmpipe");
    report.assert("broker", "good", "accepts this box");
    report.assert("indexer", "good", "sees box-1 online");
    report.assert("update-server", "good", "timestamp 3");
    // Nobody was pushed out by the visit.
    let log = fs::read_to_string(region.box_processes()[0].log_file()).expect("a log");
    assert!(!log.contains("no connection to the broker"), "{log}");
    assert_eq!(log.matches("this box's identity").count(), 1);

    // A second agent is not let in.
    let mut second = Command::new(programs().join("edge-agent"));
    second.args([
        "run",
        "--region=demo",
        "--box-id=box-1",
        "--broker=mqtt://127.0.0.1:1",
    ]);
    let refused = second
        .arg("--data")
        .arg(&doctor.data)
        .output()
        .expect("it ends");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(
        said.contains(&format!("process {agent} is an agent")),
        "{said}"
    );

    // The agent stands still: alive here, offline upstream.
    region.box_processes()[0].signal(Signal::SIGSTOP);
    region
        .wait_until("the box is offline", Duration::from_secs(60), |region| {
            region
                .boxes()
                .is_ok_and(|boxes| boxes.iter().all(|b| !b.online))
        })
        .expect("offline");
    let report = doctor.examine();
    report.assert("broker", "good", "accepts this box");
    report.assert(
        "indexer",
        "bad",
        "the agent runs here, but the region sees box-1 offline",
    );
    assert_eq!(report.code, 1);
    region.box_processes()[0].signal(Signal::SIGCONT);

    // It does not run at all.
    region.box_processes().remove(0).stop().expect("it ends");
    let report = doctor.examine();
    report.assert("agent", "warning", "does not run");
    report.assert("indexer", "warning", "no agent runs here");
    assert_eq!(report.code, 0);

    // Another region's indexer.
    doctor.region = "elsewhere";
    let report = doctor.examine();
    report.assert("indexer", "bad", "this box is set to region elsewhere");
    region.stop().expect("all end well");
}

#[test]
fn a_bare_machine_has_a_line_for_everything() {
    let folder = folder();
    let mut doctor = Doctor::new(&folder.path().join("none"));
    doctor.models = folder.path().join("no-models");
    doctor.onnxruntime = folder.path().join("no-library.so");
    doctor.update_server = Some(serve("404 Not Found", "nothing"));
    let report = doctor.examine();
    assert_eq!(report.code, 1);
    report.assert("settings", "bad", "not set: broker");
    report.assert("data", "warning", "does not exist yet");
    report.assert("identity", "warning", "no key yet");
    report.assert("agent", "warning", "does not run");
    report.assert("onnxruntime", "bad", "no-library.so");
    report.assert("provider/cpu", "warning", "not tried");
    report.assert("model", "bad", "no-models");
    report.assert("broker", "bad", "not set");
    report.assert("indexer", "warning", "none is set");
    report.assert("update-server", "warning", "holds no update repository");
    let bad = report.json["bad"].as_u64().expect("a count");
    let counted = report
        .checks()
        .iter()
        .filter(|(_, v, _)| *v == "bad")
        .count();
    assert_eq!(usize::try_from(bad), Ok(counted));
    assert!(!doctor.data.exists(), "doctor makes nothing");

    let text = doctor.command().output().expect("doctor runs").stdout;
    let text = String::from_utf8(text).expect("text");
    assert!(text.contains("✗ bad      broker"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours where no terminal is");
    let last = text.lines().last().expect("a line");
    assert!(last.ends_with(&format!(" warnings, {bad} bad")), "{last}");
}

#[test]
fn settings_that_cannot_be_read_are_a_line_and_usage_is_not() {
    let folder = folder();
    let config = folder.path().join("agent.toml");
    fs::write(&config, "regoin = \"lab\"").expect("a file");
    let program = programs().join("edge-agent");
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["doctor", "--json", "--only=settings"]);
        command.args(arguments).env("EDGE_CONFIG", &config);
        command.output().expect("doctor runs")
    };
    let report = Report::new(&doctor(&[]));
    report.assert("settings", "bad", "regoin");
    assert_eq!((report.code, report.checks().len()), (1, 1));
    fs::write(
        &config,
        "region = \"lab\"\nbox_id = \"b\"\nbroker = \"mqtt://b\"\nindexer = \"http://i\"\nupdate_server = \"http://u\"",
    )
    .expect("a file");
    let report = Report::new(&doctor(&[]));
    report.assert("settings", "good", "b in region lab");
    assert_eq!(report.code, 0);
    for wrong in ["--only=everything", "--timeout=0", "--indexer=ftp://i"] {
        let output = doctor(&[wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn resets_of_the_box_show_over_boots() {
    let folder = folder();
    let mut doctor = Command::new(programs().join("edge-agent"));
    doctor.args([
        "doctor",
        "--json",
        "--only=watchdog",
        "--board=host-sim",
        "--data",
    ]);
    doctor.arg(folder.path());
    let mut shows = |history: &str, verdict: &str, value: &str| {
        fs::write(folder.path().join("health-history"), history).expect("a file");
        Report::new(&doctor.output().expect("doctor runs")).assert("watchdog", verdict, value);
    };
    shows("nonsense", "good", "no reset of late");
    // Kept in another boot, in which a reset was wanted: that was the third.
    let history =
        r#"{"boot":"another","history":{"agent_ends":3,"resets":2,"is_reset_wanted":true}}"#;
    shows(history, "bad", "3 resets of the box have not helped");
    let history =
        r#"{"boot":"another","history":{"agent_ends":3,"resets":1,"is_reset_wanted":false}}"#;
    shows(history, "warning", "the box was reset 1 times");
}

#[test]
fn a_broker_that_is_gone_and_one_that_hangs() {
    let folder = folder();
    let [nobody] = processes::free_ports().expect("a port");
    let mut doctor = Doctor::new(folder.path());
    doctor.broker = Some(format!("mqtt://127.0.0.1:{nobody}"));
    doctor.more = vec!["--only=broker,indexer,update-server", "--timeout=1"];
    doctor
        .examine()
        .assert("broker", "bad", "takes no connection");
    // It takes connections and never says a word; so do the others.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    doctor.broker = Some(format!("mqtt://{address}"));
    doctor.indexer = Some(format!("http://{address}"));
    doctor.update_server = Some(format!("http://{address}"));
    let started = Instant::now();
    let report = doctor.examine();
    let took = started.elapsed();
    report.assert("broker", "bad", "does not answer: no answer in time");
    report.assert("indexer", "bad", "is not reached");
    report.assert("update-server", "bad", "is not reached");
    assert_eq!(report.code, 1);
    assert!(took < PATIENCE / 2, "took {took:?}");
}

/// A library that is none costs its line; one that crashes or hangs costs no more.
#[test]
fn libraries_that_are_not_onnx_runtime() {
    let folder = folder();
    let mut doctor = Doctor::new(folder.path());
    doctor.more = vec!["--only=onnxruntime,provider,model", "--timeout=2"];
    let text = folder.path().join("text.so");
    fs::write(&text, "no library").expect("a file");
    let build = |name: &str, body: &str| {
        let source = folder.path().join(format!("{name}.c"));
        let library = folder.path().join(format!("{name}.so"));
        let code = format!(
            "#include <stdlib.h>\n#include <unistd.h>\n__attribute__((constructor)) static void start(void) {{ {body} }}"
        );
        fs::write(&source, code).expect("a file");
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-o"])
            .args([&library, &source]);
        assert!(gcc.status().expect("gcc runs").success());
        library
    };
    for (library, says) in [
        (text, "cannot use"),
        (build("other", ""), "cannot use"),
        (build("crash", "abort();"), "crashes (SIGABRT)"),
        (build("exit", "_exit(7);"), "ends with status 7"),
        (build("hang", "for (;;) pause();"), "does not answer in 2 s"),
    ] {
        doctor.onnxruntime = library;
        let report = doctor.examine();
        report.assert("onnxruntime", "bad", says);
        report.assert("provider/cpu", "warning", "not tried");
        report.assert("model/digits", "warning", "not tried");
        assert_eq!(report.code, 1);
    }
}

#[test]
fn a_model_that_does_not_load_does_not_hide_the_others() {
    let folder = folder();
    let models = folder.path().join("models");
    for (name, content) in [("broken", &b"no graph"[..]), ("good", &[])] {
        fs::create_dir_all(models.join(name).join("1")).expect("a folder");
        fs::write(models.join(name).join("1/model.onnx"), content).expect("a file");
    }
    fs::create_dir(models.join("empty")).expect("a folder");
    let digits = cross::committed_models().join("digits/1/model.onnx");
    fs::copy(digits, models.join("good/1/model.onnx")).expect("a copy");
    let mut doctor = Doctor::new(folder.path());
    doctor.models = models;
    doctor.more = vec!["--only=model"];
    let report = doctor.examine();
    report.assert("model/broken", "bad", "cannot load");
    report.assert("model/empty", "bad", "has no version");
    report.assert("model/good", "good", "version 1 loads");
    assert_eq!(report.checks().len(), 3);
}

/// A file that never comes to its end, as on a disk that no longer answers.
#[test]
fn a_check_that_hangs_holds_up_nothing() {
    let folder = folder();
    let models = folder.path().join("models");
    let model = models.join("digits");
    fs::create_dir_all(model.join("1")).expect("a folder");
    fs::write(model.join("1/model.onnx"), "").expect("a file");
    nix::unistd::mkfifo(&model.join("model.toml"), Mode::S_IRWXU).expect("a pipe");
    let mut doctor = Doctor::new(folder.path());
    doctor.models = models;
    doctor.more = vec!["--only=provider,model,data", "--timeout=1"];
    let started = Instant::now();
    let report = doctor.examine();
    assert!(started.elapsed() < PATIENCE / 2);
    report.assert("model", "bad", "did not answer in 1 s");
    report.assert("provider/cpu", "good", "computes right");
    report.assert("data", "good", "keeps what is written");
    assert_eq!((report.code, report.checks().len()), (1, 3));
}

/// A board of one's own with parts that this machine lacks, and a provider that this library lacks.
#[test]
fn parts_that_the_board_file_names_and_the_machine_lacks() {
    let folder = folder();
    let board = folder.path().join("bench.toml");
    let text = r#"
name = "bench"
description = "a board on the bench"
compatible = ["bench,board"]
unconfirmed = ["fan.min_percent"]
[storage]
source = { kind = "linux" }
technology = "disk"
[accelerators]
execution_providers = ["xnnpack", "cpu"]
[[thermal_zone]]
name = "cpu"
source = { kind = "thermal", type = "no-such-thermal" }
heated_by = "cpu"
[fan]
source = { kind = "hwmon", chip = "no-such-fan", pwm = "pwm1" }
min_percent = 20
curve = [{ millicelsius = 45_000, percent = 0 }, { millicelsius = 75_000, percent = 100 }]
[watchdog]
source = { kind = "linux", identity = "no such watchdog" }
timeout_s = 30
[[led]]
name = "no-such:led"
meaning = "fault"
[rendering]
vulkan_device = "Adreno"
subgroup_sizes = [64]
max_workgroup_invocations = 1024
max_memory_bytes = 1_000_000_000
ray_query = false
"#;
    fs::write(&board, text).expect("a file");
    let mut doctor = Doctor::new(folder.path());
    doctor.board = Some(board);
    let report = doctor.examine();
    report.assert("board", "warning", "fan.min_percent");
    report.assert("temperature/cpu", "bad", "no-such-thermal");
    report.assert("parts/fan", "bad", "no-such-fan");
    report.assert("parts/watchdog", "bad", "no such watchdog");
    report.assert("parts/led-no-such:led", "bad", "no-such:led");
    report.assert("provider/xnnpack", "warning", "does not have it");
    report.assert("provider/cpu", "good", "computes right");
    report.assert(
        "vulkan",
        "bad",
        "no device called \"Adreno\"; there is llvmpipe",
    );
    doctor.board = Some(folder.path().join("none.toml"));
    let report = doctor.examine();
    report.assert("board", "bad", "none.toml");
    assert_eq!(report.code, 1);
}

#[test]
fn data_that_is_not_kept_and_a_key_that_others_read() {
    let folder = folder();
    // Not even root makes files there.
    let mut doctor = Doctor::new(Path::new("/sys/kernel"));
    doctor.more = vec!["--only=data,identity"];
    doctor
        .examine()
        .assert("data", "bad", "cannot make a file in /sys/kernel");
    // An agent without a broker makes its key all the same.
    let mut agent = Agent::new("box-1", 1).start(folder.path());
    wait_for_log(&mut agent, "this box's identity");
    let running: &Process = &agent;
    let log = fs::read_to_string(running.log_file()).expect("a log");
    agent.stop().expect("the agent ends with 0");
    let data = folder.path().join("box-1");
    doctor.data.clone_from(&data);
    let report = doctor.examine();
    let (verdict, value) = report.of("identity");
    let fingerprint = value.strip_prefix("fingerprint ").expect("a fingerprint");
    assert_eq!(verdict, "good");
    assert!(log.contains(fingerprint), "the log names it: {log}");
    assert_eq!(report.code, 0);
    let key = data.join("identity.key");
    let secret = fs::read_to_string(&key).expect("a key");
    let secret = secret.lines().nth(1).expect("the key's line");
    assert!(!log.contains(secret) && !report.json.to_string().contains(secret));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    doctor.examine().assert("identity", "bad", "644");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(&key, "nothing").expect("a file");
    doctor.examine().assert("identity", "bad", "damaged");
    let left = fs::read_dir(&data).expect("a folder");
    let left: Vec<_> = left
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with(".doctor")),
        "{left:?}"
    );
}
