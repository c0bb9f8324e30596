//! A box without a screen at its first start, and at later ones: folders that stand for the box and its partition.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use edge_agent::{
    first_start::{FirstStart, Report},
    settings::Options,
};
use edge_hal::slots::state_file::{ReplacedFile, StateFile};
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

const TOKEN: &str = "tok-5f3e9a7c1b";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGP+PQDqmSvcrrgMOsPgZSr4FVDtp7/k/uj+f2YEjhoq owner@home";
const UPDATE_ROOT: &str = r#"{"signatures":[{}],"signed":{"_type":"root","version":1}}"#;
const GOOD: &str = "version = 1\nregion = \"home\"\nbroker = \"mqtt://10.0.0.7:1883\"\n";

/// An RB5 with three lights.
struct Machine {
    root: TempDir,
    first_start: FirstStart,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let user = User::from_uid(geteuid()).unwrap().unwrap();
        let first_start = FirstStart {
            area: PathBuf::from("/run/edge/provisioning"),
            state: PathBuf::from("/var/lib/edge-box"),
            run: PathBuf::from("/run/edge"),
            data: PathBuf::from("/var/lib/edge-agent"),
            agent_user: user.name,
            root: root.path().to_owned(),
        };
        let machine = Self { root, first_start };
        machine.write(
            "proc/device-tree/compatible",
            "qcom,qrb5165-rb5\0qcom,sm8250\0",
        );
        for light in ["green:indicator-1", "green:indicator-2", "green:user4"] {
            for (file, text) in [
                ("brightness", "0"),
                ("max_brightness", "255"),
                ("trigger", "none"),
                ("delay_on", "0"),
                ("delay_off", "0"),
            ] {
                machine.write(&format!("sys/class/leds/{light}/{file}"), text);
            }
        }
        for file in [
            "usr/share/zoneinfo/UTC",
            "usr/share/zoneinfo/Europe/Berlin",
            "dev/console",
            "proc/sys/kernel/hostname",
        ] {
            machine.write(file, "");
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn provision(&self, text: &str) {
        self.write("run/edge/provisioning/provisioning.toml", text);
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Starts the box: what lies below /run is gone before, but for the partition.
    fn start(&self) -> Report {
        self.restart();
        self.first_start.run().unwrap()
    }

    fn restart(&self) {
        for entry in fs::read_dir(self.path("run")).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.ends_with("edge") {
                for entry in fs::read_dir(path).unwrap() {
                    let path = entry.unwrap().path();
                    if !path.ends_with("provisioning") {
                        fs::remove_file(path).unwrap();
                    }
                }
            } else {
                fs::remove_dir_all(path).unwrap();
            }
        }
        self.write("dev/console", "");
    }

    fn light(&self, name: &str) -> (String, String, String) {
        let read = |file: &str| self.text(&format!("sys/class/leds/{name}/{file}"));
        (read("trigger"), read("brightness"), read("delay_on"))
    }

    fn settings(&self) -> Options {
        Options::from_file(&self.path("run/edge/agent.toml")).unwrap()
    }

    /// Output without what differs from box to box.
    fn redacted(&self, text: &str) -> String {
        let report = self.text("run/edge/first-start.json");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let digits = report["fingerprint"].as_str().unwrap();
        let groups: Vec<&str> = (0..16).map(|at| &digits[4 * at..4 * at + 4]).collect();
        text.replace(
            &groups[..8].join(" "),
            "<first half of the fingerprint.......>",
        )
        .replace(
            &groups[8..].join(" "),
            "<second half of the fingerprint......>",
        )
        .replace(&format!("box-{}", &digits[..12]), "box-0123456789ab")
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_provisioned_box_is_ready_for_its_agent() {
    let machine = Machine::new();
    machine.provision(&format!(
        "{GOOD}indexer = \"http://10.0.0.7:8080\"\nupdate_server = \"http://10.0.0.7:8080/tuf\"\nbox_id = \"kitchen\"\n\
         payout_address = \"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\"\ntime_zone = \"Europe/Berlin\"\n\
         ssh_key = \"{KEY}\"\n[network]\naddress = \"192.168.1.20/24\"\ngateway = \"192.168.1.1\"\n\
         dns = [\"192.168.1.1\", \"9.9.9.9\"]\n"
    ));
    machine.write("run/edge/provisioning/update-root.json", UPDATE_ROOT);
    let report = machine.start();
    assert_eq!(
        (report.state, report.problems.len()),
        ("provisioned", 0),
        "{report:?}"
    );
    let settings = machine.settings();
    assert_eq!(settings.region.unwrap().as_str(), "home");
    assert_eq!(settings.box_id.unwrap().as_str(), "kitchen");
    assert_eq!(settings.broker.unwrap().to_string(), "mqtt://10.0.0.7:1883");
    assert!(settings.indexer.is_some() && settings.update_server.is_some());
    insta::assert_snapshot!(machine.text("run/systemd/network/10-edge.network"));
    assert_eq!(machine.text("run/edge/authorized_keys"), format!("{KEY}\n"));
    assert_eq!(machine.text("run/edge/update-root.json"), UPDATE_ROOT);
    assert_eq!(
        fs::read_link(machine.path("run/edge/localtime")).unwrap(),
        Path::new("/usr/share/zoneinfo/Europe/Berlin")
    );
    assert_eq!(machine.text("proc/sys/kernel/hostname"), "kitchen");
    assert_eq!(mode(&machine.path("var/lib/edge-box/provisioning")), 0o600);
    assert_eq!(mode(&machine.path("run/edge/authorized_keys")), 0o644);
    assert_eq!(
        mode(&machine.path("var/lib/edge-agent/identity.key")),
        0o600
    );
    insta::assert_snapshot!(machine.redacted(&machine.text("dev/console")));
    insta::assert_snapshot!(machine.redacted(&machine.text("run/issue.d/edge.issue")));
    assert_eq!(
        machine.light("green:indicator-1"),
        ("timer".into(), "255".into(), "500".into())
    );
    assert_eq!(
        machine.light("green:user4"),
        ("none".into(), "0".into(), "0".into())
    );
}

#[test]
fn the_token_is_handed_to_the_agent_alone() {
    let machine = Machine::new();
    let ca = "ab".repeat(32);
    machine.provision(&format!(
        "version = 1\nregion = \"home\"\nbroker = \"mqtts://10.0.0.7\"\nindexer = \"https://10.0.0.7:8443\"\n\
         region_ca_sha256 = \"{ca}\"\nenrolment_token = \"{TOKEN}\"\n"
    ));
    let report = machine.start();
    assert_eq!(
        (report.state, report.problems.len()),
        ("provisioned", 0),
        "{report:?}"
    );
    assert_eq!(machine.text("run/edge/enrolment-token"), TOKEN);
    assert_eq!(mode(&machine.path("run/edge/enrolment-token")), 0o400);
    // The agent would start by these settings: it knows whom to believe, and where its token is.
    let settings = machine.settings();
    assert_eq!(
        settings.region_ca_sha256.map(|root| root.to_string()),
        Some(ca)
    );
    assert_eq!(
        settings.enrolment_token_file.as_deref(),
        Some(Path::new("/run/edge/enrolment-token"))
    );
    let mut settings = machine.settings();
    settings.data = Some(machine.path("var/lib/edge-agent"));
    settings.check().unwrap();
    for shown in [
        machine.text("run/edge/agent.toml"),
        machine.text("dev/console"),
        machine.text("run/issue.d/edge.issue"),
        machine.text("run/edge/first-start.json"),
        edge_agent::first_start::log(&report),
    ] {
        assert!(!shown.contains(TOKEN), "{shown}");
    }
}

/// The owner is told, instead of an agent that ends unseen.
#[test]
fn what_the_agent_does_not_take_is_told_and_no_token_is_shown() {
    let machine = Machine::new();
    machine.provision(&format!(
        "version = 1\nregion = \"home\"\nbroker = \"mqtts://[2001:db8::7]\"\nindexer = \"https://10.0.0.7\"\n\
         region_ca_sha256 = \"{}\"\nenrolment_token = \"{TOKEN}\"\n",
        "ab".repeat(32)
    ));
    let report = machine.start();
    assert_eq!(report.state, "bad", "{report:?}");
    assert!(
        report.problems[0].contains("this system's agent does not take it: over TLS an IPv6"),
        "{report:?}"
    );
    assert!(!machine.has("run/edge/agent.toml"));
    for shown in [
        machine.text("dev/console"),
        machine.text("run/issue.d/edge.issue"),
        machine.text("run/edge/first-start.json"),
        edge_agent::first_start::log(&report),
    ] {
        assert!(!shown.contains(TOKEN), "{shown}");
    }
}

#[test]
fn a_box_that_nobody_provisioned_says_so_and_keeps_its_name() {
    let machine = Machine::new();
    let report = machine.start();
    assert_eq!(report.state, "not-provisioned");
    let name = report.box_id.clone().unwrap();
    assert_eq!(
        name,
        format!("box-{}", &report.fingerprint.clone().unwrap()[..12])
    );
    assert_eq!(machine.text("proc/sys/kernel/hostname"), name);
    assert!(!machine.has("run/edge/agent.toml"));
    assert!(
        machine
            .text("run/systemd/network/10-edge.network")
            .contains("DHCP=yes")
    );
    insta::assert_snapshot!(machine.redacted(&machine.text("dev/console")));
    assert_eq!(
        machine.light("green:user4"),
        ("timer".into(), "255".into(), "200".into())
    );
    assert_eq!(machine.start().box_id, Some(name.clone()));
    // Written on a PC, and restarted: served under the same name.
    machine.provision(GOOD);
    assert_eq!(machine.start().state, "provisioned");
    assert_eq!(machine.settings().box_id.unwrap().as_str(), name);
}

#[test]
fn a_bad_file_is_told_with_its_lines_and_can_be_written_again() {
    let machine = Machine::new();
    machine.provision(
        "version = 1\nregion = \"Home\"\nbroker = \"10.0.0.7\"\ntime_zone = \"Mars/Base\\\\4\"\n",
    );
    let report = machine.start();
    assert_eq!(report.state, "bad");
    assert!(!machine.has("run/edge/agent.toml"));
    insta::assert_snapshot!(machine.redacted(&machine.text("dev/console")));
    // agetty reads backslashes: a foreigner's are doubled.
    let issue = machine.text("run/issue.d/edge.issue");
    assert!(issue.contains("\\\\\\\\4"), "{issue}");
    assert_eq!(
        machine.light("green:user4"),
        ("none".into(), "255".into(), "0".into())
    );
    assert_eq!(
        machine.light("green:indicator-1"),
        ("none".into(), "0".into(), "0".into())
    );
    // So is one whose writing was cut short.
    let area = machine.path("run/edge/provisioning");
    fs::rename(
        area.join("provisioning.toml"),
        area.join("provisioning.new"),
    )
    .unwrap();
    let report = machine.start();
    assert_eq!(report.state, "bad");
    assert!(report.problems[0].contains("was cut short"), "{report:?}");
    machine.provision(GOOD);
    assert_eq!(machine.start().state, "provisioned");
}

#[test]
fn the_last_good_file_keeps_the_box_working() {
    let machine = Machine::new();
    machine.provision(&format!("{GOOD}ssh_key = \"{KEY}\"\n"));
    machine.write("run/edge/provisioning/update-root.json", UPDATE_ROOT);
    machine.start();
    let settings = machine.text("run/edge/agent.toml");
    let spoil: [&dyn Fn(&Path); 5] = [
        &|area| fs::write(area.join("provisioning.toml"), b"\0\0\0").unwrap(),
        &|area| fs::write(area.join("update-root.json"), b"{}").unwrap(),
        &|area| fs::remove_file(area.join("provisioning.toml")).unwrap(),
        &|area| fs::create_dir(area.join("provisioning.toml")).unwrap(),
        &|area| fs::remove_dir_all(area).unwrap(),
    ];
    for (step, spoil) in spoil.iter().enumerate() {
        spoil(&machine.path("run/edge/provisioning"));
        let report = machine.start();
        assert_eq!(
            (report.state, report.problems.is_empty()),
            ("kept", false),
            "{step}"
        );
        assert_eq!(machine.text("run/edge/agent.toml"), settings, "{step}");
        assert_eq!(
            machine.text("run/edge/update-root.json"),
            UPDATE_ROOT,
            "{step}"
        );
        assert!(machine.has("run/edge/authorized_keys"), "{step}");
        assert!(
            machine.text("dev/console").contains("last good file"),
            "{step}"
        );
    }
    insta::assert_snapshot!(machine.redacted(&machine.text("dev/console")));
    // What is kept can be damaged too, and the partition mends it.
    fs::write(
        machine.path("var/lib/edge-box/provisioning"),
        "edge-provisioning 1 5",
    )
    .unwrap();
    assert_eq!(machine.start().state, "bad");
    machine.provision(GOOD);
    assert_eq!(machine.start().state, "provisioned");
    fs::remove_dir_all(machine.path("run/edge/provisioning")).unwrap();
    assert_eq!(machine.start().state, "kept");
}

#[test]
fn what_was_taken_away_is_gone() {
    let machine = Machine::new();
    machine.provision(&format!("{GOOD}ssh_key = \"{KEY}\"\n"));
    machine.write("run/edge/provisioning/update-root.json", UPDATE_ROOT);
    machine.start();
    machine.provision(GOOD);
    fs::remove_file(machine.path("run/edge/provisioning/update-root.json")).unwrap();
    // Without a restart in between: stale files below /run must go.
    machine.first_start.run().unwrap();
    assert!(!machine.has("run/edge/authorized_keys"));
    assert!(!machine.has("run/edge/update-root.json"));
    machine.provision("?");
    fs::remove_file(machine.path("var/lib/edge-box/provisioning")).unwrap();
    machine.first_start.run().unwrap();
    assert!(!machine.has("run/edge/agent.toml"));
}

#[test]
fn hostile_files_on_the_partition_are_refused() {
    let machine = Machine::new();
    machine.write("run/edge/provisioning/README", "");
    let file = machine.path("run/edge/provisioning/provisioning.toml");
    symlink("/etc/passwd", &file).unwrap();
    assert_eq!(machine.start().state, "bad");
    fs::remove_file(&file).unwrap();
    fs::write(&file, vec![b'#'; 1 << 20]).unwrap();
    let report = machine.start();
    assert!(
        report.problems[0].contains("longer than 64 KiB"),
        "{report:?}"
    );
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let report = machine.start();
    assert!(report.problems[0].contains("no regular file"), "{report:?}");
}

#[test]
fn what_is_missing_costs_only_itself() {
    let machine = Machine::new();
    machine.provision(GOOD);
    for missing in ["dev", "sys", "proc/sys"] {
        fs::remove_dir_all(machine.path(missing)).unwrap();
    }
    machine.restart();
    fs::remove_dir_all(machine.path("dev")).unwrap();
    let report = machine.first_start.run().unwrap();
    assert_eq!(
        (report.state, report.problems.len()),
        ("provisioned", 3),
        "{report:?}"
    );
    assert!(machine.has("run/edge/agent.toml"));
    let unknown = FirstStart {
        agent_user: "nobody-of-this-name".to_owned(),
        ..machine.first_start.clone()
    };
    let report = unknown.run().unwrap();
    assert!(
        report.problems[0].contains("no user nobody-of-this-name"),
        "{report:?}"
    );
    // Without a key it has no name, and without a name no agent.
    assert!(!machine.has("run/edge/agent.toml"));
}

/// A kept file on a data partition whose power ends at an operation.
struct CutFile {
    file: ReplacedFile,
    left: u32,
    is_written: bool,
}

impl StateFile for CutFile {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.file.read()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.left == 0 {
            if self.is_written {
                self.file.write(bytes)?;
            }
            return Err(io::Error::other("no power"));
        }
        self.left -= 1;
        self.file.write(bytes)
    }

    fn remove(&mut self) -> io::Result<()> {
        self.file.remove()
    }
}

#[test]
fn a_power_cut_while_it_is_kept_leaves_the_old_or_the_new_one() {
    for is_written in [false, true] {
        let machine = Machine::new();
        machine.provision(GOOD);
        machine.start();
        machine.provision(&GOOD.replace("home", "work"));
        machine.restart();
        let mut cut = CutFile {
            file: ReplacedFile(machine.path("var/lib/edge-box/provisioning")),
            left: 0,
            is_written,
        };
        let report = machine.first_start.run_with(&mut cut).unwrap();
        assert!(report.problems[0].contains("cannot be kept"), "{report:?}");
        // The partition is gone with the power: the old one or the new one is left.
        fs::remove_dir_all(machine.path("run/edge/provisioning")).unwrap();
        let expected = if is_written { "work" } else { "home" };
        assert_eq!(machine.start().region.as_deref(), Some(expected));
    }
}

#[test]
fn the_key_belongs_to_the_agents_user() {
    let machine = Machine::new();
    fs::set_permissions(machine.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    machine.provision(GOOD);
    // Where every user may run it, as in a box's /usr/bin: a build may lie in a home that others may not enter.
    let program = machine.path("edge-agent");
    fs::copy(env!("CARGO_BIN_EXE_edge-agent"), &program).unwrap();
    let output = Command::new(program)
        .args(["first-start", "--agent-user", "nobody", "--root"])
        .arg(machine.root.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}");
    let nobody = User::from_name("nobody").unwrap().unwrap();
    if geteuid().is_root() {
        use std::os::unix::fs::MetadataExt as _;
        let key = fs::metadata(machine.path("var/lib/edge-agent/identity.key")).unwrap();
        assert_eq!(key.uid(), nobody.uid.as_raw());
        assert!(words.contains(": provisioned\n"), "{words}");
        assert!(machine.has("run/edge/agent.toml"));
    } else {
        // Only root makes another user's key; anybody else is told.
        assert!(words.contains("cannot make the data folder"), "{words}");
        assert!(!machine.has("run/edge/agent.toml"));
    }
}
