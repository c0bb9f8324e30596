//! Supervision: nothing survives its owner, and a failure shows its log.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

use std::mem::ManuallyDrop;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cross::processes::{self, Process, ProcessError};

const LIMIT: Duration = Duration::from_secs(10);

fn shell(folder: &Path, script: &str) -> Process {
    Process::start("script", Path::new("/bin/sh"), ["-c", script], folder).expect("a shell")
}

fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < LIMIT, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_dropped_broker_leaves_its_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let [port] = processes::free_ports().expect("a port");
    let broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
    assert!(processes::is_open(port));
    drop(broker);
    assert!(!processes::is_open(port));
}

#[test]
fn a_process_dies_with_the_one_that_started_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    // To the kernel the parent is a thread; this one ends without ending what it started.
    let starter = thread::spawn(move || {
        let process = ManuallyDrop::new(shell(&path, "echo up; exec sleep 100"));
        wait_until("its start", || {
            process.printed().is_ok_and(|text| text == "up\n")
        });
        process.id()
    });
    let id = starter.join().expect("a process");
    let state = format!("/proc/{id}/stat");
    // Dead but not waited for: a zombie.
    wait_until("its death", || {
        std::fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z"))
    });
}

#[test]
fn an_early_end_shows_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = shell(folder.path(), "echo cannot open the disk >&2; exit 3");
    let error = process
        .wait_until("it is up", LIMIT, || false)
        .expect_err("it ended");
    assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
    assert!(
        error.to_string().contains("cannot open the disk"),
        "{error}"
    );
}
