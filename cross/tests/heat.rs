//! What a real agent does with a simulated board to which things happen.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::path::Path;

use cross::processes::{self, Process};
use support::{Client, PATIENCE, wait_for_log, wait_until_serving};

/// The governor calls a zone blind 10 s after its last reading.
const SENSOR_DROPS_OUT: &str = r#"
[[step]]
at_s = 1
event = { kind = "sensor-gone", zone = "cpu" }

[[step]]
at_s = 14
event = { kind = "sensor-back", zone = "cpu" }
"#;

fn start(board: &str, script: &str, port: u16, folder: &Path) -> Process {
    let file = folder.join("script.toml");
    fs::write(&file, script).expect("a script");
    let arguments = [
        "run".to_owned(),
        "--region=lab".to_owned(),
        "--box-id=box-1".to_owned(),
        format!("--board={board}"),
        format!("--simulate={}", file.display()),
        format!("--broker=mqtt://127.0.0.1:{port}"),
        format!("--models={}", cross::committed_models().display()),
        format!("--data={}", folder.join("data").display()),
        format!("--onnxruntime={}", support::onnxruntime().display()),
    ];
    let program = support::programs().join("edge-agent");
    Process::start("box-1", &program, arguments, folder).expect("edge-agent starts")
}

#[test]
fn a_box_whose_sensor_drops_out_does_less_and_goes_on_serving() {
    let folder = tempfile::tempdir().expect("a folder");
    let [port] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
    let mut agent = start("host-sim", SENSOR_DROPS_OUT, port, folder.path());
    wait_until_serving(&mut agent);
    wait_for_log(&mut agent, "a governed zone cannot be read");
    let mut sensor = Client::connect("sensor-1", port);
    let request = sensor.request();
    assert_eq!(sensor.ask(&request).status, "200");
    wait_for_log(&mut agent, "the temperature limits nothing");
    agent.stop().expect("the agent ends with 0");
}

#[test]
fn a_script_is_refused_where_it_cannot_be_played() {
    for (board, script, said) in [
        ("qrb5165-rb5", SENSOR_DROPS_OUT, "has nothing simulated"),
        (
            "host-sim",
            "[[step]]\nat_s = 1\nevent = { kind = \"sensor-gone\", zone = \"cellar\" }",
            "cellar",
        ),
        ("host-sim", "[[step]]\nat_s = \"soon\"", "script.toml:2"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut agent = start(board, script, 1, folder.path());
        let ended = agent.wait(PATIENCE).expect("it ends");
        assert_eq!(ended.code(), Some(1), "{said}");
        let log = fs::read_to_string(agent.log_file()).expect("a log");
        assert!(log.contains(said), "{said}: {log}");
    }
}
