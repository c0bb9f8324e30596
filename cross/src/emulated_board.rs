//! The board `qemu-virt`: QEMU's emulated ARM machine with U-Boot, a disk and a watchdog, as a process. Knows QEMU's
//! flags, and the box only by its console and by SSH.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::processes::{self, Process, ProcessError};
use crate::shell::{self, CommandError};

/// This machine, as the emulated one sees it (QEMU's user-mode network).
pub const HOST: &str = "10.0.2.2";

/// Memory of the emulated board. Lavapipe and ONNX Runtime need most of it.
const MEMORY: &str = "768M";

/// From QEMU's start to a system that runs: half a minute on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// A board that did not start, or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum EmulatedBoardError {
    /// QEMU.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A program inside, or the way to it.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Its files.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What was awaited was not on its console.
    #[error(
        "the emulated board's console did not show {text:?} {times} times; its last lines:{tail}"
    )]
    Console {
        /// What was awaited.
        text: String,
        /// How often.
        times: usize,
        /// The end of what it showed.
        tail: String,
    },
}

/// An emulated board that runs.
#[derive(Debug)]
pub struct EmulatedBoard {
    qemu: Process,
    console: PathBuf,
    ssh_port: u16,
    ssh_key: PathBuf,
}

/// Makes a key for [`EmulatedBoard::ssh`] in `folder`; returns the public half, as provisioning takes it.
///
/// # Errors
/// When `ssh-keygen` fails.
pub fn make_ssh_key(folder: &Path) -> Result<String, EmulatedBoardError> {
    let key = folder.join("ssh_key");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "emulated", "-f"]);
    shell::output(keygen.arg(&key))?;
    let public = key.with_extension("pub");
    let text = fs::read_to_string(&public).map_err(|source| EmulatedBoardError::Io {
        operation: "read",
        path: public,
        source,
    })?;
    Ok(text.trim().to_owned())
}

impl EmulatedBoard {
    /// Switches the board on; `disk` is its disk and is written to. `folder` holds its console's text and
    /// the key of [`make_ssh_key`].
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(u_boot: &Path, disk: &Path, folder: &Path) -> Result<Self, EmulatedBoardError> {
        let [ssh_port] = processes::free_ports().map_err(|source| EmulatedBoardError::Io {
            operation: "find a port for",
            path: disk.to_path_buf(),
            source,
        })?;
        let console = folder.join("console");
        let mut arguments: Vec<OsString> = [
            "-M",
            "virt",
            "-cpu",
            "cortex-a76",
            "-smp",
            "2",
            "-m",
            MEMORY,
            "-accel",
            "tcg,thread=multi",
            "-display",
            "none",
            "-monitor",
            "none",
            "-device",
            "virtio-blk-pci,drive=disk",
            "-device",
            "virtio-rng-pci",
            "-device",
            "i6300esb",
            "-action",
            "watchdog=reset",
        ]
        .map(OsString::from)
        .to_vec();
        let settings = [
            ("-bios", u_boot.display().to_string()),
            (
                "-drive",
                format!("if=none,id=disk,format=raw,file={}", disk.display()),
            ),
            (
                "-netdev",
                format!("user,id=net,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"),
            ),
            // Without a firmware to start from the network, which is another package.
            ("-device", "virtio-net-pci,netdev=net,romfile=".to_owned()),
            ("-serial", format!("file:{}", console.display())),
        ];
        for (flag, value) in settings {
            arguments.extend([OsString::from(flag), OsString::from(value)]);
        }
        let program = shell::which("qemu-system-aarch64")
            .unwrap_or_else(|| PathBuf::from("qemu-system-aarch64"));
        let qemu = Process::start("qemu", &program, arguments, folder)?;
        Ok(Self {
            qemu,
            console,
            ssh_port,
            ssh_key: folder.join("ssh_key"),
        })
    }

    /// What the console has shown so far.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where the console's text is.
    #[must_use]
    pub fn console_file(&self) -> &Path {
        &self.console
    }

    /// How to look inside, as one would type it.
    #[must_use]
    pub fn ssh_command(&self) -> String {
        shell::describe(&self.ssh_program())
    }

    /// Waits until the console has shown `text` so often.
    ///
    /// # Errors
    /// When QEMU ends, or the time of a start passes.
    pub fn wait_for_console(&mut self, text: &str, times: usize) -> Result<(), EmulatedBoardError> {
        let console = self.console.clone();
        let shown = || {
            let bytes = fs::read(&console).unwrap_or_default();
            String::from_utf8_lossy(&bytes).matches(text).count() >= times
        };
        match self
            .qemu
            .wait_until("the console shows it", BOOT_LIMIT, shown)
        {
            Err(ProcessError::TooLate { .. }) => {
                let text = text.to_owned();
                let shown = self.console();
                let lines: Vec<&str> = shown.lines().rev().take(25).collect();
                let lines = lines.iter().rev().map(|line| format!("\n    {line}"));
                let tail = lines.collect();
                Err(EmulatedBoardError::Console { text, times, tail })
            }
            other => Ok(other?),
        }
    }

    fn ssh_program(&self) -> Command {
        let port = self.ssh_port.to_string();
        let mut ssh = Command::new("ssh");
        // A board that was made a moment ago: nobody knows its key.
        ssh.args(["-F", "none", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-p", &port, "-i"])
            .arg(&self.ssh_key)
            .arg("root@127.0.0.1");
        ssh
    }

    /// Runs a command inside, as root; returns what it printed.
    ///
    /// # Errors
    /// When it fails, or the board does not answer.
    pub fn ssh(&self, command: &str) -> Result<String, EmulatedBoardError> {
        let mut ssh = self.ssh_program();
        ssh.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=20"])
            .args(["-o", "LogLevel=ERROR", "--", command]);
        Ok(shell::output_within(&mut ssh, BOOT_LIMIT)?)
    }

    /// Waits until SSH answers.
    ///
    /// # Errors
    /// When it does not within the time of a start.
    pub fn wait_for_ssh(&mut self) -> Result<(), EmulatedBoardError> {
        let started = std::time::Instant::now();
        loop {
            let answer = self.ssh("true");
            self.qemu.must_run("SSH answers")?;
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > BOOT_LIMIT => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_secs(1)),
            }
        }
    }

    /// Switches it off as a power cut would.
    ///
    /// # Errors
    /// When QEMU cannot be killed.
    pub fn cut_power(mut self) -> Result<(), EmulatedBoardError> {
        Ok(self.qemu.kill()?)
    }

    /// Complains if QEMU ended.
    ///
    /// # Errors
    /// When it did.
    pub fn must_run(&mut self) -> Result<(), EmulatedBoardError> {
        Ok(self.qemu.must_run("the board runs")?)
    }
}
