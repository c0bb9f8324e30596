//! `edgectl provision` as a process, on images of disks whose tables sgdisk made.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

const TOKEN: &str = "tok-5f3e9a7c1b";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGP+PQDqmSvcrrgMOsPgZSr4FVDtp7/k/uj+f2YEjhoq owner@home";
const UPDATE_ROOT: &str = r#"{"signatures":[{}],"signed":{"_type":"root","version":1}}"#;

struct Bench {
    folder: TempDir,
    image: PathBuf,
}

impl Bench {
    /// A disk with a partition before the provisioning one and one behind it.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("edge.img");
        File::create(&image).unwrap().set_len(24 << 20).unwrap();
        let table = Command::new("sgdisk")
            .args([
                "-n=1:0:+1M",
                "-c=1:boot",
                "-n=2:0:+16M",
                "-c=2:provisioning",
                "-n=3:0:0",
                "-c=3:data",
            ])
            .arg(&image)
            .output()
            .unwrap_or_else(|error| panic!("sgdisk (Debian: gdisk): {error}"));
        assert!(table.status.success());
        let mut bytes = fs::read(&image).unwrap();
        for (start, end) in [(1 << 20, 2 << 20), (18 << 20, 23 << 20)] {
            bytes[start..end].fill(0x5a);
        }
        fs::write(&image, bytes).unwrap();
        Self { folder, image }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn provision(&self, words: &[&str]) -> Output {
        provision(&self.image, words)
    }

    /// Output with the image's path as a word.
    fn shown(&self, output: &Output) -> String {
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        text.replace(self.folder.path().to_str().unwrap(), "FOLDER")
    }
}

fn provision(image: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgectl"))
        .arg("provision")
        .arg("--image")
        .arg(image)
        .args(words)
        .env_remove("EDGE_ENROLMENT_TOKEN")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

#[test]
fn flags_become_a_file_that_is_shown_without_the_token() {
    let bench = Bench::new();
    let key = bench.file("id.pub", &format!("# mine\n{KEY}\n"));
    let root = bench.file("root.json", UPDATE_ROOT);
    let ca = "ab".repeat(32);
    let output = bench.provision(&[
        "--region=home",
        "--broker=mqtts://broker.example",
        "--indexer=https://indexer.example",
        "--region-ca-sha256",
        &ca,
        "--enrolment-token",
        TOKEN,
        "--payout-address=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "--time-zone=Europe/Berlin",
        "--ssh-key",
        key.to_str().unwrap(),
        "--address=192.168.1.20/24",
        "--gateway=192.168.1.1",
        "--dns=192.168.1.1",
        "--dns=9.9.9.9",
        "--update-root",
        root.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", bench.shown(&output));
    insta::assert_snapshot!(bench.shown(&output));
    let shown = bench.provision(&["--show"]);
    assert_eq!(shown.status.code(), Some(0));
    assert!(bench.shown(&output).starts_with(&bench.shown(&shown)));
    let json = bench.provision(&["--show", "--json"]);
    insta::assert_snapshot!(bench.shown(&json));
    assert!(!bench.shown(&output).contains(TOKEN) && !bench.shown(&json).contains(TOKEN));
    // Nothing but the partition was touched.
    let bytes = fs::read(&bench.image).unwrap();
    for (start, end) in [(1 << 20, 2 << 20), (18 << 20, 23 << 20)] {
        assert!(bytes[start..end].iter().all(|byte| *byte == 0x5a));
    }
}

#[test]
fn a_file_goes_to_the_box_as_it_is_and_can_be_replaced() {
    let bench = Bench::new();
    let text = "# kitchen\r\nversion = 1\r\nregion = \"home\"\r\nbroker = \"mqtt://10.0.0.7\"\r\n";
    let file = bench.file("provisioning.toml", text);
    let file = file.to_str().unwrap();
    let first = bench.provision(&["--file", file]);
    assert!(
        bench
            .shown(&first)
            .contains("made a file system and wrote it"),
        "{}",
        bench.shown(&first)
    );
    let second = bench.provision(&["--file", file]);
    assert!(
        bench
            .shown(&second)
            .ends_with("\nwrote it; the box reads it at its next start\n")
    );
    // As another program reads it.
    let mut image = File::open(&bench.image).unwrap();
    let mut area = vec![0; 16 << 20];
    image.seek(SeekFrom::Start(2 << 20)).unwrap();
    image.read_exact(&mut area).unwrap();
    let fat = bench.folder.path().join("fat.img");
    fs::write(&fat, &area).unwrap();
    let fsck = Command::new("fsck.fat")
        .args(["-n", "-v", "-l"])
        .arg(&fat)
        .output();
    let fsck = fsck.expect("fsck.fat is installed (package dosfstools)");
    let words = String::from_utf8_lossy(&fsck.stdout);
    assert!(
        fsck.status.success() && words.contains("provisioning.toml"),
        "{words}"
    );
    assert!(
        area.windows(text.len())
            .any(|window| window == text.as_bytes())
    );
}

#[test]
fn mistakes_are_named_before_anything_is_written() {
    let bench = Bench::new();
    let before = fs::read(&bench.image).unwrap();
    let wrong = bench.file(
        "wrong.toml",
        "version = 1\nregoin = \"home\"\nbroker = \"10.0.0.7\"\n",
    );
    let root = bench.file("root.json", "{}");
    for (words, expected) in [
        (
            &["--file", wrong.to_str().unwrap()][..],
            "error: FOLDER/wrong.toml cannot be used:\nline 2: regoin is no key of this file",
        ),
        (
            &["--region=Home", "--broker=mqtt://a", "--address=10.0.0.0/8"],
            "error: --region is \"Home\"",
        ),
        (
            &["--region=home", "--broker=mqtts://a"],
            "--region-ca-sha256 is missing",
        ),
        (
            &["--region=home", "--broker=mqtt://a", "--time-zone=Mars"],
            "--time-zone is \"Mars\"",
        ),
        (
            &[
                "--region=home",
                "--broker=mqtt://a",
                "--time-zone=europe/berlin",
            ],
            "--time-zone is",
        ),
        (
            &[
                "--region=home",
                "--broker=mqtt://a",
                "--address=10.0.0.2/8",
                "--gateway=11.0.0.1",
            ],
            "--gateway is 11.0.0.1",
        ),
        (
            &[
                "--region=home",
                "--broker=mqtt://a",
                "--update-root",
                root.to_str().unwrap(),
            ],
            "root.json cannot be used",
        ),
        (&["--region=home"], "--broker <URL>"),
        (&["--box-id=a", "--show"], "--region"),
        (&[], "--region <REGION>"),
        (
            &["--file=a.toml", "--region=home", "--broker=mqtt://a"],
            "cannot be used with",
        ),
        (&["--file=missing.toml"], "cannot read missing.toml"),
    ] {
        let output = bench.provision(words);
        let shown = bench.shown(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {shown}");
        assert!(shown.contains(expected), "{words:?}: {shown}");
    }
    assert!(fs::read(&bench.image).unwrap() == before);
}

#[test]
fn the_partition_by_itself_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    for (sector, label, is_taken) in [
        ("4096", "EDGE-SETUP", true),
        ("512", "EDGE-SETUP", true),
        ("512", "HOLIDAYS", false),
    ] {
        let image = folder.path().join(format!("{label}-{sector}.img"));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let made = Command::new("mkfs.fat")
            .args(["-S", sector, "-n", label])
            .arg(&image)
            .output()
            .unwrap_or_else(|error| panic!("mkfs.fat (Debian: dosfstools): {error}"));
        assert!(made.status.success());
        let written = provision(&image, &["--region=home", "--broker=mqtt://a"]);
        assert_eq!(written.status.success(), is_taken, "{written:?}");
        if is_taken {
            let shown = provision(&image, &["--show"]);
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.contains("mqtt://a"), "{shown}");
            let checked = Command::new("fsck.fat").arg("-n").arg(&image).output();
            assert!(checked.unwrap().status.success());
        }
    }
}

#[test]
fn what_is_no_disk_of_a_box_is_refused() {
    let bench = Bench::new();
    let shown = bench.provision(&["--show"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(
        bench.shown(&shown).contains("holds no FAT file system"),
        "{}",
        bench.shown(&shown)
    );
    let text = bench.file("text.img", "no disk");
    for (image, expected) in [
        (text, "is no disk of a box: give its whole image"),
        (
            bench.folder.path().join("missing.img"),
            "cannot open FOLDER/missing.img",
        ),
    ] {
        let output = provision(&image, &["--region=home", "--broker=mqtt://a"]);
        let shown = bench.shown(&output);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn a_file_spoiled_by_hand_is_shown_with_its_lines() {
    let bench = Bench::new();
    assert!(
        bench
            .provision(&["--region=home", "--broker=mqtt://a"])
            .status
            .success()
    );
    let mut bytes = fs::read(&bench.image).unwrap();
    let at = bytes
        .windows(6)
        .position(|window| window == b"region")
        .unwrap();
    bytes[at] = b'R';
    fs::write(&bench.image, bytes).unwrap();
    let output = bench.provision(&["--show"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(bench.shown(&output));
}
