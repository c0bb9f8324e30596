//! The real binary: its exit codes and messages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn indexer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-indexer"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(mqtt: &str, http: &str, data: &str) -> Command {
    indexer(&[
        "run",
        "--region",
        "home",
        "--embedded-broker",
        "--insecure-mqtt",
        mqtt,
        "--http",
        http,
        "--data",
        data,
    ])
}

/// Waits for the end of a process, with a deadline.
fn finish(child: Child) -> Output {
    let pid = pid(&child);
    let (done, output) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match output.recv_timeout(support::DEADLINE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            kill(pid, Signal::SIGKILL).unwrap();
            panic!("the process did not end in time");
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn sigterm_ends_it_with_success() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_str().unwrap();
        let mut child = run("127.0.0.1:0", "127.0.0.1:0", data).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("connected to the broker") {
            line.clear();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "it ended before it was ready"
            );
        }
        kill(pid(&child), signal).unwrap();
        let asked = Instant::now();
        let output = finish(child);
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        assert!(
            output.status.success(),
            "{:?} after {signal}: {rest}",
            output.status
        );
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "it took {:?}: {rest}",
            asked.elapsed()
        );
        // The broker's library warns of a message to a client that has just gone; that is its own affair.
        let complaint = rest.lines().find(|line| {
            (line.contains("WARN") || line.contains("ERROR"))
                && !line.contains("rmqtt")
                && !line.contains("lets everybody in here")
        });
        assert_eq!(complaint, None, "{rest}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (mqtt, http, option) in [
        (address.as_str(), "127.0.0.1:0", "--insecure-mqtt"),
        ("127.0.0.1:0", address.as_str(), "--http"),
    ] {
        let output = finish(run(mqtt, http, data).spawn().unwrap());
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        for part in [address.as_str(), option, "in use"] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
    }
}

#[test]
fn wrong_arguments_are_explained() {
    for (arguments, part) in [
        (vec!["run"], "--region"),
        (
            vec![
                "run",
                "--region",
                "Home",
                "--broker",
                "mqtt://x",
                "--http",
                "127.0.0.1:0",
                "--data",
                "d",
            ],
            "a-z",
        ),
        (
            vec![
                "run",
                "--region",
                "home",
                "--http",
                "127.0.0.1:0",
                "--data",
                "d",
            ],
            "--broker",
        ),
        (
            vec![
                "run",
                "--region",
                "home",
                "--embedded-broker",
                "--http",
                "127.0.0.1:0",
                "--data",
                "d",
            ],
            "--insecure-mqtt",
        ),
        (
            vec![
                "run",
                "--region",
                "home",
                "--broker",
                "x:1",
                "--http",
                "127.0.0.1:0",
                "--data",
                "d",
            ],
            "mqtt://HOST:PORT",
        ),
        (
            vec![
                "run", "--region", "home", "--broker", "mqtt://x", "--http", "8080", "--data", "d",
            ],
            "HOST:PORT",
        ),
    ] {
        let output = finish(indexer(&arguments).spawn().unwrap());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            said(&output).contains(part),
            "{arguments:?}: {}",
            said(&output)
        );
    }
}

#[test]
fn help_and_completions_are_there() {
    let help = finish(indexer(&["run", "--help"]).spawn().unwrap());
    let help = String::from_utf8(help.stdout).unwrap();
    for part in [
        "--embedded-broker",
        "--store-limit-mb",
        "EDGE_INDEXER_REGION",
    ] {
        assert!(help.contains(part), "{part}");
    }
    let bash = finish(indexer(&["completions", "bash"]).spawn().unwrap());
    assert!(
        bash.status.success() && String::from_utf8_lossy(&bash.stdout).contains("edge-indexer")
    );
}
