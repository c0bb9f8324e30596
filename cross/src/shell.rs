//! Other programs: run for their output, in plain sight, or behind a spinner.

use std::ffi::OsStr;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use indicatif::{ProgressBar, ProgressStyle};

/// A program that did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started at all.
    #[error("could not start `{command}`")]
    Start {
        /// As one would type it.
        command: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ran and said no.
    #[error("`{command}` failed with {status}{output}")]
    Failed {
        /// As one would type it.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed, on lines of its own; empty when it was seen already.
        output: String,
    },
    /// It ran longer than it may.
    #[error("`{command}` did not end within {} s", limit.as_secs())]
    TimedOut {
        /// As one would type it.
        command: String,
        /// How long it was given.
        limit: Duration,
    },
}

/// Cargo, without the variables that `cargo run` set for this very program: build scripts that
/// watch them (ring's does) would run again each time.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(crate::repository());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// The first program of that name on the `PATH`, or in `/usr/sbin`, where Debian keeps daemons
/// and ordinary users do not look.
#[must_use]
pub fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Runs a program to its end and returns what it wrote to standard output, trimmed.
///
/// # Errors
/// When it cannot start or fails; the error carries what it printed.
pub fn output(command: &mut Command) -> Result<String, CommandError> {
    output_within(command, Duration::MAX)
}

/// [`output`] for a program that might hang: it is killed after `limit`.
///
/// # Errors
/// As [`output`], and when the limit passes.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<String, CommandError> {
    let start = |source| CommandError::Start {
        command: describe(command),
        source,
    };
    let scratch = || tempfile::tempfile().and_then(|file| Ok((file.try_clone()?, file)));
    let (mut stdout, stdout_end) = scratch().map_err(start)?;
    let (mut stderr, stderr_end) = scratch().map_err(start)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout_end)
        .stderr(stderr_end)
        .spawn()
        .map_err(|source| CommandError::Start {
            command: describe(command),
            source,
        })?;
    let started = Instant::now();
    let status = loop {
        let failed = |source| CommandError::Start {
            command: describe(command),
            source,
        };
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(CommandError::TimedOut {
                command: describe(command),
                limit,
            });
        }
        thread::sleep(Duration::from_millis(10));
    };
    let stdout = read_back(&mut stdout);
    if status.success() {
        return Ok(stdout);
    }
    let printed = [stdout, read_back(&mut stderr)].join("\n");
    let tail: Vec<&str> = printed.lines().rev().take(30).collect();
    let output = tail
        .into_iter()
        .rev()
        .map(|line| format!("\n    {line}"))
        .collect();
    Err(CommandError::Failed {
        command: describe(command),
        status,
        output,
    })
}

/// Runs a program whose output the user sees as it comes.
///
/// # Errors
/// When it cannot start or fails.
pub fn visibly(command: &mut Command) -> Result<(), CommandError> {
    let status = command.status().map_err(|source| CommandError::Start {
        command: describe(command),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    Err(CommandError::Failed {
        command: describe(command),
        status,
        output: String::new(),
    })
}

/// A command as one would type it.
#[must_use]
pub fn describe(command: &Command) -> String {
    let quoted = |word: &OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "-_=+./:,@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{word}'")
        }
    };
    let words: Vec<String> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(quoted)
        .collect();
    words.join(" ")
}

/// Does something slow behind a spinner, and leaves one line with the time it took.
///
/// # Errors
/// Those of `work`.
pub fn step<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let started = Instant::now();
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    let result = work();
    spinner.finish_and_clear();
    let mark = if result.is_ok() { "✓" } else { "✗" };
    eprintln!("{mark} {what} ({:.1} s)", started.elapsed().as_secs_f64());
    result
}

fn read_back(file: &mut fs::File) -> String {
    let mut bytes = Vec::new();
    // A temporary file of ours: what cannot be read back is only missing from a message.
    let _read = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
