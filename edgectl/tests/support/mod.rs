//! A real Mosquitto, a box that can misbehave, and `edgectl` as a child process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "part of one test program")]

pub mod broker;
pub mod fake_box;

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// Where tests live.
pub const REGION: &str = "lab";
/// The model that the fake box serves: its label is the first pixel.
pub const MODEL: &str = "first-pixel";

/// A data file of `rows` readings, all of which but the first are labelled rightly.
pub struct Data {
    _folder: TempDir,
    pub path: PathBuf,
}

impl Data {
    pub fn new(rows: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.csv");
        let mut text = "label,p0,p1\n".to_owned();
        for row in 0..rows {
            let label = if row == 0 { 99 } else { row };
            text.push_str(&format!("{label},{row},0.25\n"));
        }
        std::fs::write(&path, text).unwrap();
        Self {
            _folder: folder,
            path,
        }
    }
}

/// `edgectl sense --json` against the broker on `port`, ready to start.
pub fn sense(port: u16, data: &Data, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgectl"));
    command
        .arg("sense")
        .arg(format!("--broker=mqtt://127.0.0.1:{port}"))
        .args(["--region", REGION, "--model", MODEL, "--json", "--data"])
        .arg(&data.path)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Exit code, report and words of a run that ended.
pub fn outcome(output: &Output) -> (i32, serde_json::Value, String) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
    (output.status.code().unwrap(), report, stderr)
}
