//! `edge-ota` as a process, on the files that U-Boot's script reads, in a folder that stands for the box.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use edge_hal::slots::{Slot, SlotState, SlotTable, uboot::text::TextState};
use tempfile::TempDir;

/// A `qemu-virt` that runs slot `running`.
fn machine(running: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["proc/device-tree", "boot", "state"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let write = |file: &str, text: &str| fs::write(root.path().join(file), text).unwrap();
    write("proc/device-tree/compatible", "linux,dummy-virt\0");
    write(
        "proc/cmdline",
        &format!("console=ttyAMA0 {running} quiet\n"),
    );
    root
}

/// What U-Boot leaves after it started slot B for the first time.
fn on_trial(root: &Path) {
    let good = SlotState {
        successful: true,
        bootable: true,
        tries_left: 3,
    };
    let trial = SlotState {
        successful: false,
        bootable: true,
        tries_left: 2,
    };
    let table = SlotTable {
        first: Some(Slot::B),
        a: good,
        b: trial,
    };
    let count = 0x8000_0007;
    let text = TextState { table, count }.encode();
    fs::write(root.join("boot/slots.env.0"), text).unwrap();
}

fn edge_ota(root: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edge-ota"))
        .args(words)
        .arg("--root")
        .arg(root)
        .arg("--state")
        .arg(root.join("state"))
        .env_remove("EDGE_BOARD")
        .output()
        .unwrap()
}

fn done(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_update_is_seen_confirmed_and_taken_back() {
    let machine = machine("edge.slot=B");
    let root = machine.path();
    on_trial(root);
    insta::assert_snapshot!(done(&edge_ota(root, &["status"])));
    insta::assert_snapshot!(done(&edge_ota(root, &["status", "--json"])));
    insta::assert_snapshot!(done(&edge_ota(root, &["confirm"])));
    let written = fs::read(root.join("boot/slots.env.1")).unwrap();
    let state = TextState::decode(&written).unwrap();
    assert!(state.table.b.is_good() && state.count == 0x8000_0008);
    insta::assert_snapshot!(done(&edge_ota(root, &["confirm", "--slot", "B"])));
    assert_eq!(fs::read(root.join("boot/slots.env.1")).unwrap(), written);
    insta::assert_snapshot!(done(&edge_ota(root, &["rollback"])));
    insta::assert_snapshot!(done(&edge_ota(root, &["status"])));
}

#[test]
fn a_torn_record_is_told_and_tidied_up() {
    let machine = machine("edge.slot=B");
    let root = machine.path();
    on_trial(root);
    fs::write(root.join("boot/slots.env.1"), "BOOT_A_GOOD=1\nBOO").unwrap();
    insta::assert_snapshot!(done(&edge_ota(root, &["status"])));
    insta::assert_snapshot!(done(&edge_ota(root, &["confirm"])));
    let report = done(&edge_ota(root, &["status", "--json"]));
    assert!(report.contains("\"unfinished\":null"), "{report}");
}

#[test]
fn what_is_refused_changes_nothing_and_has_a_code_of_its_own() {
    for (running, words, code, expected) in [
        (
            "edge.slot=A",
            &["confirm", "--slot", "B"][..],
            3,
            "slot A is the one that runs",
        ),
        ("quiet", &["confirm"], 3, "edge.slot="),
        ("quiet", &["rollback"], 3, "edge.slot="),
        (
            "edge.slot=A",
            &["rollback"],
            3,
            "no system that ever worked",
        ),
        (
            "edge.slot=A",
            &["status", "--board", "toaster"],
            2,
            "no board is called",
        ),
    ] {
        let machine = machine(running);
        let output = edge_ota(machine.path(), words);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {message}");
        assert!(message.contains(expected), "{words:?}: {message}");
        assert_eq!(
            fs::read_dir(machine.path().join("boot")).unwrap().count(),
            0
        );
    }
}

#[test]
fn a_boot_partition_that_is_away_is_an_error() {
    let machine = machine("edge.slot=A");
    fs::remove_dir(machine.path().join("boot")).unwrap();
    let output = edge_ota(machine.path(), &["confirm"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("/boot/slots.env"), "{message}");
}
