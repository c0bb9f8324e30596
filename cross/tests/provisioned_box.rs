//! A box without a screen that joins a region: `edgectl provision` writes its partition, its first start reads it, its
//! agent enrols with the token and serves.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::fs::{self, File};
use std::io::{Cursor, Read as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cross::processes::Process;
use cross::region::{Broker, Enrolment, NAME, Region};
use cross::sensor::{Sensor, Until};
use cross::shell;
use nix::unistd::{User, geteuid};
use serde_json::Value;
use support::{PATIENCE, onnxruntime, plan, programs};

const BOX: &str = "kitchen";
/// Where the partition begins and ends on the image.
const AREA: std::ops::Range<usize> = 1 << 20..17 << 20;

/// A disk with an empty provisioning partition, and what `edgectl provision` writes to it.
fn provisioned_disk(folder: &Path, region: &Region, enrolment: &Enrolment) -> Vec<u8> {
    let image = folder.join("edge.img");
    let file = File::create(&image).expect("an image");
    file.set_len(24 << 20).expect("its size");
    let mut table = Command::new("sgdisk");
    table
        .args(["-n=1:2048:+16M", "-c=1:provisioning"])
        .arg(&image);
    shell::output(&mut table).expect("a partition table");
    let token = fs::read_to_string(&enrolment.token_file).expect("a token");
    let mut provision = Command::new(programs().join("edgectl"));
    provision
        .args(["provision", "--region", NAME, "--box-id", BOX])
        .args(["--broker", &region.broker_url()])
        .args(["--indexer", &enrolment.indexer])
        .args(["--region-ca-sha256", &enrolment.region_ca_sha256])
        .arg("--image")
        .arg(&image)
        .env("EDGE_ENROLMENT_TOKEN", token.trim());
    let shown = shell::output(&mut provision).expect("a provisioned image");
    assert!(!shown.contains(token.trim()), "{shown}");
    fs::read(&image).expect("the image")
}

/// What a box's system does at each boot: mounts the partition, and has its first start read it. `root` stands for /.
fn first_start(root: &Path, disk: &[u8]) -> Value {
    let area = root.join("run/edge/provisioning");
    fs::create_dir_all(&area).expect("a mount point");
    let partition = Cursor::new(disk.get(AREA).expect("the partition").to_vec());
    let mounted =
        fatfs::FileSystem::new(partition, fatfs::FsOptions::new()).expect("a file system");
    for entry in mounted.root_dir().iter() {
        let entry = entry.expect("an entry");
        let mut bytes = Vec::new();
        entry
            .to_file()
            .read_to_end(&mut bytes)
            .expect("its content");
        fs::write(area.join(entry.file_name()), bytes).expect("a mounted file");
    }
    let user = User::from_uid(geteuid()).ok().flatten();
    let mut start = Command::new(programs().join("edge-agent"));
    start.args(["first-start", "--root"]).arg(root);
    start.args(["--agent-user", &user.expect("this test's user").name]);
    shell::output(&mut start).expect("a first start");
    let report = fs::read(root.join("run/edge/first-start.json")).expect("its report");
    serde_json::from_slice(&report).expect("a report in JSON")
}

/// The agent as the image's unit starts it, by the settings that the first start made.
fn start_agent(name: &str, root: &Path) -> Process {
    // Nothing is chrooted here: the one path in them is that of the real root.
    let made = fs::read_to_string(root.join("run/edge/agent.toml")).expect("settings");
    let here = root.join("run/edge").display().to_string();
    let settings = root.join("agent.toml");
    fs::write(&settings, made.replace("/run/edge", &here)).expect("settings");
    let arguments = [
        "run".to_owned(),
        format!("--config={}", settings.display()),
        format!("--data={}", root.join("var/lib/edge-agent").display()),
        format!("--models={}", cross::committed_models().display()),
        format!("--onnxruntime={}", onnxruntime().display()),
        "--board=host-sim".to_owned(),
        "--telemetry-interval-s=1".to_owned(),
    ];
    let agent = programs().join("edge-agent");
    Process::start(name, &agent, arguments, root).expect("edge-agent starts")
}

/// Waits until the region sees the box as serving, and has it answer requests.
fn answers(region: &mut Region, sensor: &str) {
    const REQUESTS: u64 = 20;
    region
        .wait_until("the box serves", PATIENCE, |region| {
            let boxes = region.boxes().unwrap_or_default();
            boxes
                .iter()
                .any(|state| state.id == BOX && cross::region::is_serving(state))
        })
        .expect("a box that serves");
    let images = cross::heldout_images();
    let sensor = Sensor::start(region, sensor, &images, Until::Count(REQUESTS), 100);
    let result = sensor
        .expect("a sensor")
        .result(Duration::from_secs(30))
        .expect("a result");
    assert_eq!(result.answered, REQUESTS, "{result:?}");
    assert!(result.failures.is_empty(), "{result:?}");
}

#[test]
fn a_provisioned_box_enrols_and_serves() {
    let mut region = Region::start(plan(Broker::Secured, 0)).expect("a region");
    let enrolment = region.enrolment(BOX).expect("a token").expect("TLS");
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    let disk = provisioned_disk(folder.path(), &region, &enrolment);

    let report = first_start(&root, &disk);
    assert_eq!(
        report.get("state"),
        Some(&"provisioned".into()),
        "{report:?}"
    );
    let agent = start_agent("first", &root);
    answers(&mut region, "cam-1");
    // The key that was shown at the first start is the one that the region knows.
    let known = region.holders().expect("the region's list");
    let fingerprint = report.get("fingerprint").and_then(Value::as_str);
    let short = fingerprint.and_then(|digits| digits.get(..16));
    let short = short.expect("a fingerprint");
    assert!(
        known
            .lines()
            .any(|line| line.contains(BOX) && line.contains(short)),
        "{known}"
    );
    agent.stop().expect("a clean end");

    // The next boot brings the same token, which is used up: the box is known by its key.
    let report = first_start(&root, &disk);
    assert_eq!(
        report.get("fingerprint").and_then(Value::as_str),
        fingerprint
    );
    // Even without the certificate, as after a broken data partition whose key was saved.
    fs::remove_file(root.join("var/lib/edge-agent/identity.crt")).expect("a certificate");
    let agent = start_agent("second", &root);
    answers(&mut region, "cam-2");
    agent.stop().expect("a clean end");
    region.stop().expect("a clean end");
}
