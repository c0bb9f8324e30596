//! `edgectl flash` as a process, onto files and, with root, onto loop devices.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod flash_support;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use flash_support::{MIB, file, noise};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn edgectl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgectl"));
    command
        .arg("flash")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Image onto target.
fn onto(image: &Path, target: &Path, more: &[&str]) -> Command {
    let mut command = edgectl(&[
        "--image",
        image.to_str().unwrap(),
        "--to",
        target.to_str().unwrap(),
    ]);
    command.args(more);
    command
}

/// Exit code, the one JSON object, and the words.
fn outcome(output: &Output) -> (i32, Value, String) {
    let words = String::from_utf8(output.stderr.clone()).unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), json, words)
}

#[test]
fn a_new_file_needs_no_question_and_becomes_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(3 * MIB + 100, 1);
    let image = file(folder.path(), "a.img", &bytes);
    let target = folder.path().join("disk.img");
    let output = onto(&image, &target, &["--json"]).output().unwrap();
    let (code, report, words) = outcome(&output);
    assert_eq!(code, 0, "{words}");
    assert!(fs::read(&target).unwrap() == bytes);
    assert_eq!(report["outcome"], "done");
    assert_eq!(report["target"]["kind"], "file");
    assert_eq!(report["written"]["written_bytes"], bytes.len());
    let sum = Command::new("sha256sum")
        .arg(&image)
        .output()
        .unwrap()
        .stdout;
    let sum = String::from_utf8(sum).unwrap();
    assert_eq!(report["written"]["sha256"], sum.split(' ').next().unwrap());
    assert!(words.contains("a new file"), "{words}");

    let output = onto(&image, &target, &["--json", "--yes"])
        .output()
        .unwrap();
    let (code, report, _) = outcome(&output);
    assert_eq!(code, 0);
    assert_eq!(report["written"]["written_bytes"], 0);
    assert_eq!(report["written"]["matched_bytes"], bytes.len());
}

#[test]
fn nothing_is_overwritten_without_yes() {
    let folder = tempfile::tempdir().unwrap();
    let image = file(folder.path(), "a.img", &noise(MIB, 1));
    let target = file(folder.path(), "disk.img", b"precious");
    let output = onto(&image, &target, &[]).output().unwrap();
    let (code, _, words) = outcome(&output);
    assert_eq!(code, 2);
    assert!(
        words.contains("will be lost. Repeat the command with --yes to go on"),
        "{words}"
    );
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn a_dry_run_prints_the_plan_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = file(folder.path(), "a.img", &noise(MIB, 1));
    let target = folder.path().join("disk.img");
    let output = onto(&image, &target, &["--dry-run"]).output().unwrap();
    assert!(output.status.success());
    let plan = String::from_utf8(output.stdout).unwrap();
    let plan = plan.replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(plan, @r"
    image   FOLDER/a.img (1.00 MiB)
    target  FOLDER/disk.img (a new file)
    steps   write the blocks that differ and read them back; write the first MiB last
    ");
    assert!(!target.exists());
    let output = onto(&image, &target, &["--dry-run", "--json"])
        .output()
        .unwrap();
    let (code, report, _) = outcome(&output);
    assert_eq!(code, 0);
    assert_eq!(report["outcome"], "planned");
    assert_eq!(report["image"]["image_bytes"], MIB);
}

#[test]
fn what_cannot_be_is_said_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let image = file(folder.path(), "a.img", &noise(MIB, 1));
    let cases = [
        (
            image.clone(),
            PathBuf::from("/dev/null"),
            "is neither a file nor a block device",
        ),
        (
            image.clone(),
            "/dev/no-such-disk".into(),
            "there is no /dev/no-such-disk",
        ),
        (image.clone(), image.clone(), "is the image itself"),
        (
            folder.path().join("absent"),
            folder.path().join("x"),
            "cannot open",
        ),
        (image.clone(), "edl".into(), "EDL) is not there yet"),
    ];
    for (image, target, expected) in cases {
        let output = onto(&image, &target, &["--yes"]).output().unwrap();
        let (code, _, words) = outcome(&output);
        assert_eq!(code, 2, "{words}");
        assert!(words.contains(expected), "{words}");
    }
    let output = onto(&image, Path::new("/dev/null"), &["--yes", "--json"])
        .output()
        .unwrap();
    let (_, report, _) = outcome(&output);
    assert_eq!(report["outcome"], "failed");
    assert!(report["error"].as_str().unwrap().contains("neither"));
}

#[test]
fn the_list_is_json_too() {
    let output = edgectl(&["--list", "--json"]).output().unwrap();
    let (code, list, words) = outcome(&output);
    assert_eq!(code, 0, "{words}");
    for disk in list["disks"].as_array().unwrap() {
        assert!(disk["path"].as_str().unwrap().starts_with("/dev/"));
        assert!(disk["size_bytes"].as_u64().unwrap() > 0);
    }
}

/// Starts flashing, waits until a good part of the target is written, and sends the signal.
fn interrupted(image: &Path, target: &Path, signal: Signal) -> Output {
    let child: Child = onto(image, target, &["--yes", "--json"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // 512 bytes each; half of what is written in all.
    while fs::metadata(target).map_or(0, |target| target.blocks()) < (24 * MIB as u64) / 512 {
        assert!(Instant::now() < deadline, "nothing is written");
        std::thread::yield_now();
    }
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    child.wait_with_output().unwrap()
}

/// An image whose unpacking takes long enough to be interrupted.
fn slow_image(folder: &Path) -> (PathBuf, Vec<u8>) {
    let bytes = noise(192 * MIB, 1);
    let plain = file(folder, "plain", &bytes);
    let packed = Command::new("gzip")
        .arg("-1")
        .arg("-c")
        .arg(&plain)
        .output()
        .unwrap();
    fs::remove_file(plain).unwrap();
    (file(folder, "a.img.gz", &packed.stdout), bytes)
}

#[test]
fn a_killed_run_is_repeated_and_a_stopped_one_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (image, bytes) = slow_image(folder.path());
    let target = folder.path().join("disk.img");
    let killed = interrupted(&image, &target, Signal::SIGKILL);
    assert!(killed.status.code().is_none());
    let begun = fs::read(&target).unwrap();
    assert!(begun.len() < bytes.len());
    assert!(
        begun[..MIB].iter().all(|byte| *byte == 0),
        "what is half written does not start"
    );

    fs::remove_file(&target).unwrap();
    let stopped = interrupted(&image, &target, Signal::SIGINT);
    let (code, report, words) = outcome(&stopped);
    assert_eq!(code, 1, "{words}");
    assert_eq!(report["outcome"], "stopped");
    assert!(
        words.contains("does not start until the command is repeated"),
        "{words}"
    );

    let output = onto(&image, &target, &["--yes", "--json"])
        .output()
        .unwrap();
    let (code, report, words) = outcome(&output);
    assert_eq!(code, 0, "{words}");
    assert!(
        report["written"]["matched_bytes"].as_u64().unwrap() > 16 * MIB as u64,
        "it went on where it stopped"
    );
    assert!(fs::read(&target).unwrap() == bytes);
}

/// A loop device over a file; it goes with the value.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

#[test]
#[ignore = "needs root and loop devices"]
fn a_block_device_is_written_and_a_mounted_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = file(folder.path(), "disk", &noise(16 * MIB + 512, 9));
    let device = Loop::over(&disk);
    let bytes = noise(9 * MIB + 512, 1);
    let image = file(folder.path(), "a.img", &bytes);
    let output = onto(&image, &device.0, &["--yes", "--json"])
        .output()
        .unwrap();
    let (code, report, words) = outcome(&output);
    assert_eq!(code, 0, "{words}");
    assert_eq!(report["target"]["kind"], "block-device");
    assert_eq!(report["target"]["size_bytes"], 16 * MIB + 512);
    assert!(fs::read(&device.0).unwrap()[..bytes.len()] == bytes);
    let output = onto(&image, &device.0, &["--yes", "--json"])
        .output()
        .unwrap();
    assert_eq!(outcome(&output).1["written"]["written_bytes"], 0);

    let large = file(folder.path(), "large.img", &noise(17 * MIB, 1));
    let output = onto(&large, &device.0, &["--yes"]).output().unwrap();
    let (code, _, words) = outcome(&output);
    assert_eq!(code, 2);
    assert!(words.contains("does not fit on"), "{words}");

    // The file behind it.
    let output = onto(&image, &disk, &["--yes"]).output().unwrap();
    let (code, _, words) = outcome(&output);
    assert_eq!(code, 2);
    assert!(words.contains("is the file behind /dev/loop"), "{words}");

    let made = Command::new("mkfs.ext4")
        .arg("-q")
        .arg(&device.0)
        .output()
        .unwrap();
    assert!(made.status.success());
    let point = folder.path().join("point");
    fs::create_dir(&point).unwrap();
    assert!(
        Command::new("mount")
            .arg(&device.0)
            .arg(&point)
            .status()
            .unwrap()
            .success()
    );
    let output = onto(&image, &device.0, &["--yes"]).output().unwrap();
    assert!(
        Command::new("umount")
            .arg(&point)
            .status()
            .unwrap()
            .success()
    );
    let (code, _, words) = outcome(&output);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("is mounted on"), "{words}");
}

#[test]
#[ignore = "needs root and loop devices"]
fn a_full_file_system_is_said_and_can_be_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().join("point");
    fs::create_dir(&point).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(&point)
        .status()
        .unwrap();
    assert!(mounted.success());
    let bytes = noise(12 * MIB, 1);
    let image = file(folder.path(), "a.img", &bytes);
    let target = point.join("disk.img");
    let full = onto(&image, &target, &["--yes"]).output().unwrap();
    let grown = Command::new("mount")
        .args(["-o", "remount,size=16m"])
        .arg(&point)
        .status()
        .unwrap();
    let again = onto(&image, &target, &["--yes", "--json"])
        .output()
        .unwrap();
    let found = fs::read(&target).unwrap_or_default();
    assert!(
        Command::new("umount")
            .arg(&point)
            .status()
            .unwrap()
            .success()
    );
    assert!(grown.success());
    let (code, _, words) = outcome(&full);
    assert_eq!(code, 1);
    assert!(
        words.contains("make room and repeat the command"),
        "{words}"
    );
    let (code, report, words) = outcome(&again);
    assert_eq!(code, 0, "{words}");
    assert!(report["written"]["matched_bytes"].as_u64().unwrap() > 5 * MIB as u64);
    assert!(found == bytes);
}
