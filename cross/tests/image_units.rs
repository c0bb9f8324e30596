//! The units that only an image has, judged by Debian's own judge together with the agent's and its drop-ins.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

use std::{fs, path::Path, process::Command};

use cross::shell;

/// The units with the programs of this machine in place of the image's.
fn units(folder: &Path) {
    let repository = cross::repository();
    for (unit, program) in [
        (
            "edge-agent/systemd/edge-agent.service",
            "/usr/bin/edge-agent",
        ),
        (
            "edge-agent/systemd/edge-first-start.service",
            "/usr/bin/edge-agent",
        ),
        (
            "edge-agent/systemd/run-edge-provisioning.mount",
            "/usr/bin/edge-agent",
        ),
        ("ota/systemd/edge-ota-confirm.service", "/usr/bin/edge-ota"),
        (
            "cross/image/root/etc/systemd/system/edge-agent.service.d/image.conf",
            "/usr/bin/edge-agent",
        ),
        (
            "cross/image/root/usr/lib/systemd/system/edge-factory-reset.service",
            "/usr/lib/edge/factory-reset",
        ),
    ] {
        let text = fs::read_to_string(repository.join(unit)).expect("the unit");
        let name = unit.split("systemd/").last().expect("a name");
        let name = name.trim_start_matches("system/");
        let copy = folder.join(name);
        fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
        fs::write(&copy, text.replace(program, "/bin/true")).expect("a copy");
    }
}

#[test]
fn the_units_of_the_image_are_ones_that_systemd_understands() {
    let folder = tempfile::tempdir().expect("a folder");
    units(folder.path());
    for (unit, exposure) in [
        ("edge-first-start.service", Some("--threshold=45")),
        ("edge-ota-confirm.service", Some("--threshold=25")),
        ("run-edge-provisioning.mount", None),
        ("edge-factory-reset.service", None),
        ("edge-agent.service", Some("--threshold=25")),
    ] {
        let path = folder.path().join(unit);
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(&path);
        let judged = verify.output().expect("systemd-analyze");
        let complaints = String::from_utf8_lossy(&judged.stderr).into_owned();
        assert!(judged.status.success(), "{unit}: {complaints}");
        for ours in ["edge-", "cycle"] {
            assert!(!complaints.contains(ours), "{unit}: {complaints}");
        }
        if let Some(exposure) = exposure {
            let mut security = Command::new("systemd-analyze");
            security
                .args(["security", "--offline=true", exposure])
                .arg(&path);
            shell::output(&mut security).expect("an exposure within its bound");
        }
    }
}

#[test]
fn an_image_starts_its_agent_by_the_settings_of_the_first_start() {
    let folder = tempfile::tempdir().expect("a folder");
    units(folder.path());
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("the unit");
    // On a Debian without the image the unit keeps its own settings file.
    assert!(read("edge-agent.service").contains("--config /etc/edge-agent.toml"));
    let image = read("edge-agent.service.d/image.conf");
    assert!(image.contains("ExecStart=\nExecStart=/bin/true run --config /run/edge/agent.toml"));
    assert!(image.contains("ConditionPathExists=/run/edge/agent.toml"));
}
