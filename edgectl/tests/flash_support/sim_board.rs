//! A simulated board of the tests, and foreign programs run against it.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Output, Stdio},
    time::Duration,
};

use edgectl::flash::{
    bundle::Part,
    fastboot::{
        client::{Client, Waits},
        job::{self, Flashed, JobError, Wishes},
        sim::{Scripted, SimBoard, SimFastboot, SimFault, file_of},
        tcp::Tcp,
    },
    progress::Progress,
    stop::Stop,
};
use tempfile::TempDir;

/// Commands, at the how-manieth of each what goes wrong.
pub type Script<'a> = &'a [(&'a str, usize, SimFault)];

/// A simulated board with `boot_a`, `root_a` and a small `data`.
pub struct Sim {
    folder: TempDir,
    pub sim: SimFastboot,
}

/// Bytes of its partitions.
pub const ROOM: u64 = 16 << 20;

impl Sim {
    pub fn start(script: Script<'_>) -> Self {
        Self::with(2 << 20, true, script)
    }

    pub fn with(max_download_bytes: u32, unlocked: bool, script: Script<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let board = SimBoard {
            product: "sim".into(),
            serial: "one".into(),
            partitions: BTreeMap::from([
                ("boot_a".into(), ROOM),
                ("root_a".into(), ROOM),
                ("data".into(), 1 << 20),
            ]),
            folder: folder.path().to_owned(),
            max_download_bytes,
            unlocked,
        };
        let script = script.iter().map(|(command, nth, fault)| Scripted {
            command: (*command).into(),
            nth: *nth,
            fault: fault.clone(),
        });
        let sim =
            SimFastboot::start("127.0.0.1:0".parse().unwrap(), board, script.collect()).unwrap();
        Self { folder, sim }
    }

    pub fn target(&self) -> String {
        format!("tcp:{}", self.sim.address())
    }

    pub fn content(&self, partition: &str) -> Vec<u8> {
        fs::read(file_of(self.folder.path(), partition)).unwrap()
    }

    /// Flashes as `edgectl` does, only less patiently; two seconds, since machines are busy.
    pub fn flash(&self, parts: &[Part]) -> Result<Flashed, JobError> {
        let address = self.sim.address();
        let mut tcp = Tcp::connect("127.0.0.1", address.port(), "the board".into()).unwrap();
        let waits = Waits {
            answer: Duration::from_secs(2),
            flash: Duration::from_secs(2),
        };
        let mut client = Client::new(&mut tcp, &|_| {}, waits);
        let wishes = Wishes {
            active_slot: Some("a".into()),
            reboot: true,
            pause: Duration::ZERO,
        };
        job::flash(
            &mut client,
            parts,
            &wishes,
            &Progress::hidden(),
            &Stop::default(),
        )
    }
}

/// Runs a foreign program.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot start {program} ({error}); `cargo xtask setup` installs it")
        })
}
