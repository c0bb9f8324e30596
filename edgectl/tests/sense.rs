//! `edgectl sense` as a process, against a real Mosquitto and a box that misbehaves.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::process::Command;

use serde_json::json;
use support::{
    Data,
    broker::{Broker, free_port},
    fake_box::{FakeBox, Manner},
    outcome, sense,
};

const ROWS: u64 = 40;

/// Runs the sensor once over [`ROWS`] rows against one box.
fn run(manner: Manner, more: &[&str]) -> (i32, serde_json::Value, String) {
    let broker = Broker::start();
    let _edge_box = FakeBox::start(broker.port, manner);
    let data = Data::new(usize::try_from(ROWS).unwrap());
    outcome(&sense(broker.port, &data, more).output().unwrap())
}

#[test]
fn an_honest_box_is_measured_in_every_encoding() {
    let broker = Broker::start();
    let _edge_box = FakeBox::start(broker.port, Manner::Honest);
    let data = Data::new(usize::try_from(ROWS).unwrap());
    for more in [
        ["--encoding=json", "--qos=1"],
        ["--encoding=binary", "--qos=1"],
        ["--encoding=cbor", "--qos=0"],
    ] {
        let output = sense(broker.port, &data, &more).output().unwrap();
        let (code, report, words) = outcome(&output);
        assert_eq!(code, 0, "{words}");
        assert_eq!(report["requests"], ROWS);
        assert_eq!(report["answered"], ROWS);
        // The first row's label is wrong on purpose.
        assert_eq!(report["correct"], ROWS - 1);
        assert_eq!(report["accuracy"], json!(0.975));
        assert_eq!(report["failures"], json!({}));
        assert_eq!(report["retries"], 0);
        let latency = &report["latency_us"];
        let [p50, max] = ["p50", "max"].map(|key| latency[key].as_u64().unwrap());
        assert!(0 < p50 && p50 <= max && max < 1_500_000, "{latency}");
        assert!(words.contains("throughput"), "{words}");
        assert_eq!(
            output.stdout.iter().filter(|byte| **byte == b'\n').count(),
            1,
            "one object on one line"
        );
    }
}

#[test]
fn more_requests_than_rows_go_round_at_the_rate_asked_for() {
    let (code, report, words) = run(Manner::Honest, &["--count=100", "--rate=200"]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(report["requests"], 100);
    let seconds = report["seconds"].as_f64().unwrap();
    assert!(seconds > 0.45, "{seconds}");
}

#[test]
fn a_lost_message_is_sent_again_and_counts_once() {
    let (code, report, words) = run(Manner::LosesFirst, &[]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(report["requests"], ROWS);
    assert_eq!(report["answered"], ROWS);
    assert_eq!(report["retries"], 1);
    assert!(report["latency_us"]["max"].as_u64().unwrap() >= 2_000_000);
}

#[test]
fn a_second_answer_is_a_duplicate() {
    let (code, report, words) = run(Manner::AnswersTwice, &[]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(report["answered"], ROWS);
    // The run may end before the last second answer.
    let duplicates = report["duplicates"].as_u64().unwrap();
    assert!((ROWS - 1..=ROWS).contains(&duplicates), "{duplicates}");
}

#[test]
fn a_busy_box_is_asked_again_when_it_says() {
    let (code, report, words) = run(Manner::BusyOnce, &[]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(report["answered"], ROWS);
    assert_eq!(report["retries"], ROWS);
    assert!(report["latency_us"]["p50"].as_u64().unwrap() >= 50_000);
}

#[test]
fn a_box_that_stays_busy_fails_with_its_own_words() {
    let (code, report, words) = run(Manner::AlwaysBusy, &["--expiry=1", "--in-flight=40"]);
    assert_eq!(code, 1);
    assert_eq!(report["failures"], json!({ "503": ROWS }));
    assert_eq!(report["latency_us"], json!(null));
    assert!(words.contains("first: queue full"), "{words}");
}

#[test]
fn silence_expires_after_a_repeat() {
    let (code, report, words) = run(Manner::Silent, &["--expiry=3", "--in-flight=40"]);
    assert_eq!(code, 1);
    assert_eq!(report["failures"], json!({ "expired": ROWS }));
    assert_eq!(report["retries"], ROWS);
    assert!(words.contains("no answer within 3 s"), "{words}");
}

#[test]
fn a_refused_request_is_not_sent_again() {
    let (code, report, words) = run(Manner::Refuses, &[]);
    assert_eq!(code, 1);
    assert_eq!(report["failures"], json!({ "400": ROWS }));
    assert_eq!(report["retries"], 0);
    assert!(words.contains("first: wrong shape"), "{words}");
}

#[test]
fn nobody_there_is_said_to_be_nobody_there() {
    let broker = Broker::start();
    let data = Data::new(2);
    let (code, report, words) =
        outcome(&sense(broker.port, &data, &["--expiry=1"]).output().unwrap());
    assert_eq!(code, 1);
    assert_eq!(report["failures"], json!({ "expired": 2 }));
    assert!(
        words.contains("no box of this region subscribes to this model"),
        "{words}"
    );
}

#[test]
fn a_broker_that_restarts_costs_no_request() {
    let mut broker = Broker::start();
    let edge_box = FakeBox::start(broker.port, Manner::Honest);
    let data = Data::new(5);
    let child = sense(broker.port, &data, &["--rate=100", "--seconds=4"])
        .spawn()
        .unwrap();
    edge_box.wait_until_seen(100);
    broker.restart();
    let (code, report, words) = outcome(&child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{words}");
    assert_eq!(report["answered"], report["requests"]);
    assert!(report["requests"].as_u64().unwrap() > 150, "{report}");
}

#[test]
fn an_interrupted_run_still_reports() {
    let broker = Broker::start();
    let edge_box = FakeBox::start(broker.port, Manner::Silent);
    let data = Data::new(5);
    let child = sense(broker.port, &data, &["--in-flight=1"])
        .spawn()
        .unwrap();
    edge_box.wait_until_seen(1);
    let status = Command::new("kill").arg(child.id().to_string()).status();
    assert!(status.unwrap().success());
    let (code, report, _) = outcome(&child.wait_with_output().unwrap());
    assert_eq!(code, 1);
    assert_eq!(report["failures"], json!({ "abandoned": 1 }));
}

#[test]
fn two_sensors_of_one_name_are_told_so() {
    let broker = Broker::start();
    let edge_box = FakeBox::start(broker.port, Manner::Silent);
    let data = Data::new(1);
    let start = || {
        sense(broker.port, &data, &["--client=cam"])
            .spawn()
            .unwrap()
    };
    let first = start();
    edge_box.wait_until_seen(1);
    let mut second = start();
    let (code, report, words) = outcome(&first.wait_with_output().unwrap());
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(code, 3, "{words}");
    assert_eq!(report["failures"], json!({ "abandoned": 1 }));
    assert!(
        words.contains("give each sensor its own --client"),
        "{words}"
    );
}

#[test]
fn no_broker_is_a_clear_error() {
    let data = Data::new(1);
    let port = free_port();
    let (code, report, words) = outcome(&sense(port, &data, &[]).output().unwrap());
    assert_eq!(code, 3);
    assert_eq!(report, json!(null));
    assert!(
        words.contains(&format!(
            "the broker at mqtt://127.0.0.1:{port} was not reached for 10 s"
        )) && words.contains("onnection refused"),
        "{words}"
    );
}

#[test]
fn a_wrong_command_line_says_what_to_write() {
    let data = Data::new(1);
    for (more, expected) in [
        (&["--broker=tcp://x"][..], "mqtt://HOST:PORT"),
        (&["--box=Box 1"], "a name has only a-z, 0-9"),
        (&["--count=1", "--seconds=1"], "cannot be used with"),
        (&["--count=0"], "0 is not in 1.."),
        (&["--rate=-1"], "requests a second are"),
        (&["--encoding=xml"], "json, binary, cbor"),
        (&["--expiry=4000"], "3600"),
        (
            &["--data=no-such.csv"],
            "cannot open the data file no-such.csv",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgectl"));
        command.args(["sense", "--region=lab", "--model=m"]);
        for (key, default) in [
            ("--broker", "mqtt://127.0.0.1:1"),
            ("--data", data.path.to_str().unwrap()),
        ] {
            if !more.iter().any(|text| text.starts_with(key)) {
                command.arg(format!("{key}={default}"));
            }
        }
        let (code, _, words) = outcome(&command.args(more).output().unwrap());
        assert_eq!(code, 2, "{more:?}: {words}");
        assert!(words.contains(expected), "{more:?}: {words}");
    }
}

#[test]
fn help_teaches_by_example_and_shells_complete() {
    let edgectl = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgectl"));
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let help = edgectl(&["sense", "--help"]);
    assert!(
        help.contains("Examples:") && help.contains("--encoding binary"),
        "{help}"
    );
    assert!(edgectl(&["--help"]).contains("Exit codes:"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(edgectl(&["completions", shell]).contains("sense"));
    }
}
