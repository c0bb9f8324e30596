//! `cargo xtask bench flash`: how fast `edgectl flash` writes beside `dd` and `openssl`, which do the same without its
//! promises, what a second flash of the same image writes, and how much memory it takes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::BenchError;
use crate::shell;

/// Rounds that alternate between the floor and `edgectl`, so that a busy moment of the machine meets both.
const ROUNDS: usize = 5;
/// How often the memory of a running program is looked at; its peak only grows.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const MIB: usize = 1 << 20;

/// What to measure with.
#[derive(Debug)]
pub struct Plan {
    /// The release binary of `edgectl`.
    pub edgectl: PathBuf,
    /// Bytes of the image, in MiB.
    pub image_mib: usize,
    /// Where image and targets are, each of that size.
    pub folder: PathBuf,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    image_mib: usize,
    targets: Vec<TargetReport>,
    packed: Vec<PackedReport>,
}

#[derive(Debug, Serialize)]
struct TargetReport {
    target: &'static str,
    /// `dd conv=fsync`, then `openssl dgst -sha256`: seconds.
    floor_s: f64,
    edgectl_s: f64,
    /// Of the floor's speed.
    ratio: f64,
    /// Of the image, in percent.
    second_flash_percent: f64,
    peak_memory_kib: u64,
}

#[derive(Debug, Serialize)]
struct PackedReport {
    packed_by: &'static str,
    seconds: f64,
    mib_per_s: f64,
    peak_memory_kib: u64,
}

/// Runs the benchmark; says on standard error what it does.
///
/// # Errors
/// When a program fails or the system refuses.
pub fn run(plan: &Plan) -> Result<Report, BenchError> {
    let system = |what| move |source| BenchError::System(what, source);
    let folder = tempfile::tempdir_in(&plan.folder).map_err(system("create a folder"))?;
    let at = |name: &str| folder.path().join(name);
    let [image, other] = [at("image"), at("other")];
    eprintln!("making images of {} MiB", plan.image_mib);
    make_image(&image, plan.image_mib, 1).map_err(system("make an image"))?;
    make_image(&other, plan.image_mib, 2).map_err(system("make an image"))?;
    let file = at("file");
    let mut targets = vec![measure(
        plan,
        "file",
        &image,
        &file,
        || match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BenchError::System("remove a file", error))
            }
            _ => Ok(()),
        },
    )?];
    if nix::unistd::geteuid().is_root() {
        let disk = at("disk");
        fs::copy(&other, &disk).map_err(system("make a disk"))?;
        let device = LoopDevice::over(&disk)?;
        // What is on it must differ, or nothing would be written.
        let spoil = || dd(&other, &device.0);
        targets.push(measure(plan, "loop device", &image, &device.0, spoil)?);
    } else {
        eprintln!("no loop device: that needs root");
    }
    let packers: [(&str, &str, &[&str]); 4] = [
        ("zstd", "zstd", &["-q", "-1", "-c"]),
        (
            "zstd, 32 MiB window",
            "zstd",
            &["-q", "-1", "--long=25", "-c"],
        ),
        (
            "xz, 8 MiB dictionary",
            "xz",
            &["--lzma2=preset=0,dict=8MiB", "-c"],
        ),
        (
            "xz, 32 MiB dictionary",
            "xz",
            &["--lzma2=preset=0,dict=32MiB", "-c"],
        ),
    ];
    let mut packed = Vec::new();
    for (packed_by, program, arguments) in packers {
        eprintln!("packing by {packed_by}");
        let path = at("packed");
        let out = File::create(&path).map_err(system("create a file"))?;
        shell::visibly(
            Command::new(program)
                .args(arguments)
                .arg(&image)
                .stdout(out),
        )?;
        let target = at("unpacked");
        let flashed = flash(&plan.edgectl, &path, &target)?;
        fs::remove_file(&target).map_err(system("remove a file"))?;
        #[allow(clippy::cast_precision_loss, reason = "MiB of an image fit 2^52")]
        let mib_per_s = plan.image_mib as f64 / flashed.seconds;
        packed.push(PackedReport {
            packed_by,
            seconds: flashed.seconds,
            mib_per_s,
            peak_memory_kib: flashed.peak_memory_kib,
        });
    }
    Ok(Report {
        image_mib: plan.image_mib,
        targets,
        packed,
    })
}

/// Measures floor and `edgectl` in turn; `before` brings the target to where writing it is work.
fn measure(
    plan: &Plan,
    name: &'static str,
    image: &Path,
    target: &Path,
    before: impl Fn() -> Result<(), BenchError>,
) -> Result<TargetReport, BenchError> {
    let (mut floor, mut ours, mut peak) = (Vec::new(), Vec::new(), 0);
    for round in 1..=ROUNDS {
        eprintln!("flashing a {name}, round {round} of {ROUNDS}");
        before()?;
        let started = Instant::now();
        dd(image, target)?;
        shell::output(
            Command::new("openssl")
                .args(["dgst", "-sha256"])
                .arg(target),
        )?;
        floor.push(started.elapsed().as_secs_f64());
        before()?;
        let flashed = flash(&plan.edgectl, image, target)?;
        ours.push(flashed.seconds);
        peak = peak.max(flashed.peak_memory_kib);
    }
    let again = flash(&plan.edgectl, image, target)?;
    let (floor_s, edgectl_s) = (median(floor), median(ours));
    #[allow(clippy::cast_precision_loss, reason = "bytes of an image fit 2^52")]
    let second_flash_percent = 100.0 * again.written_bytes as f64 / (plan.image_mib * MIB) as f64;
    Ok(TargetReport {
        target: name,
        floor_s,
        edgectl_s,
        ratio: floor_s / edgectl_s,
        second_flash_percent,
        peak_memory_kib: peak.max(again.peak_memory_kib),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn dd(from: &Path, to: &Path) -> Result<(), BenchError> {
    let files = [
        format!("if={}", from.display()),
        format!("of={}", to.display()),
    ];
    shell::output(Command::new("dd").args(files).args(["bs=1M", "conv=fsync"]))?;
    Ok(())
}

struct Flashed {
    seconds: f64,
    written_bytes: u64,
    peak_memory_kib: u64,
}

/// Runs `edgectl flash`, and watches its memory.
fn flash(edgectl: &Path, image: &Path, target: &Path) -> Result<Flashed, BenchError> {
    let system = |what| move |source| BenchError::System(what, source);
    let started = Instant::now();
    let mut child = Command::new(edgectl)
        .args(["flash", "--yes", "--json", "--image"])
        .arg(image)
        .arg("--to")
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(system("start edgectl"))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_memory_kib = 0;
    let seconds = loop {
        // Gone between two looks: then the last one counts.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak_memory_kib = peak.unwrap_or(peak_memory_kib).max(peak_memory_kib);
        if child
            .try_wait()
            .map_err(system("wait for edgectl"))?
            .is_some()
        {
            break started.elapsed().as_secs_f64();
        }
        thread::sleep(LOOK_AGAIN);
    };
    let output = child
        .wait_with_output()
        .map_err(system("read what edgectl printed"))?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let written_bytes = report
        .pointer("/written/written_bytes")
        .and_then(serde_json::Value::as_u64);
    let Some(written_bytes) = written_bytes.filter(|_| output.status.success()) else {
        return Err(BenchError::Flash(report.to_string()));
    };
    Ok(Flashed {
        seconds,
        written_bytes,
        peak_memory_kib,
    })
}

/// Half noise, half what packs well, in blocks of 4 KiB as file systems have them.
fn make_image(path: &Path, mib: usize, seed: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut block = Vec::with_capacity(MIB);
    for _ in 0..mib {
        block.clear();
        while block.len() < MIB {
            // Xorshift (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let word = if block.len() & 4096 == 0 {
                state
            } else {
                state & 0x0101
            };
            block.extend(word.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// A loop device over a file; it goes with the value.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn over(file: &Path) -> Result<Self, BenchError> {
        let path = shell::output(Command::new("losetup").args(["--find", "--show"]).arg(file))?;
        Ok(Self(path.into()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Nobody to tell; `losetup --list` shows it.
        let _detached = shell::output(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

impl Report {
    /// The report for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "Flashing {} MiB, median of {ROUNDS} rounds\n\
             target         floor s   edgectl s   speed of the floor's   second flash writes   peak memory MiB\n",
            self.image_mib
        );
        for row in &self.targets {
            let _infallible = writeln!(
                text,
                "{:12}{:>10.2}{:>12.2}{:>23.2}{:>20.2} %{:>18.1}",
                row.target,
                row.floor_s,
                row.edgectl_s,
                row.ratio,
                row.second_flash_percent,
                mebibytes(row.peak_memory_kib),
            );
        }
        text.push_str("floor = dd bs=1M conv=fsync, then openssl dgst -sha256 of the target\n\n");
        text.push_str("Packed, onto a file           s       MiB/s   peak memory MiB\n");
        for row in &self.packed {
            let _infallible = writeln!(
                text,
                "{:22}{:>9.2}{:>12.0}{:>18.1}",
                row.packed_by,
                row.seconds,
                row.mib_per_s,
                mebibytes(row.peak_memory_kib),
            );
        }
        text
    }
}

fn mebibytes(kib: u64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "memory of a program fits 2^52 KiB"
    )]
    let kib = kib as f64;
    kib / 1024.0
}
