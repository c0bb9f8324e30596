//! `cargo xtask demo`: a region with boxes and a sensor, shown working.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::region::{BoxState, Plan, Region, RegionError, Totals};
use crate::sensor::{Sensor, SensorError, SensorResult, Until};

/// Requests a second: lively on the page, light on the machine.
const RATE: u32 = 100;
/// A sensor for a person to play: its certificate is there.
const CAMERA: &str = "cam-1";
/// How often the live line changes.
const TICK: Duration = Duration::from_millis(500);
/// How long the boxes' counters may lag behind the sensor's.
const TELEMETRY_LAG: Duration = Duration::from_secs(5);

/// A demo that did not work.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The region.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The sensor.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// Ctrl-C while it started.
    #[error("interrupted before the sensor began")]
    Interrupted,
    /// It ran, but the region did not do what it is for.
    #[error("the demo ran, but {0}")]
    Unconvincing(String),
    /// The report.
    #[error("could not write the report {}", path.display())]
    Report {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What the demo found, as `--report` writes it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The sensor's side.
    #[serde(flatten)]
    pub sensor: SensorResult,
    /// Boxes online at the end.
    pub boxes_online: u64,
    /// Telemetry messages that the indexer took.
    pub telemetry_messages: u64,
    /// Each box's part.
    pub boxes: Vec<BoxReport>,
}

/// What one box did.
#[derive(Debug, Clone, Serialize)]
pub struct BoxReport {
    /// Its name.
    pub id: String,
    /// Is it there?
    pub online: bool,
    /// Its board.
    pub board: String,
    /// Requests it answered.
    pub requests: u64,
    /// Of those, the ones not answered with 200.
    pub failures: u64,
    /// Its telemetry messages.
    pub telemetry_messages: u64,
    /// Median time from arrival to inference, in microseconds.
    pub queue_p50_us: u64,
    /// Median time of inference, in microseconds.
    pub compute_p50_us: u64,
}

/// Runs the demo for `seconds`, or until `stop` speaks, and ends all it started.
///
/// # Errors
/// When the region does not come up or end, or the sensor has no result.
pub fn run(
    plan: Plan,
    images: &Path,
    seconds: Option<u64>,
    stop: &Receiver<()>,
) -> Result<Report, DemoError> {
    let boxes = plan.boxes;
    let region = crate::shell::step(&format!("start an indexer and {boxes} boxes"), || {
        Region::start(plan)
    })?;
    eprintln!("  page    {}", region.page());
    eprintln!("  broker  {}", region.broker_url());
    if let Some(folder) = region.sensor_identity(CAMERA)? {
        eprintln!("  {CAMERA}   {}", folder.display());
    }
    if stop.try_recv().is_ok() {
        region.stop()?;
        return Err(DemoError::Interrupted);
    }
    let report = show(&region, images, RATE, seconds, stop)?;
    region.stop()?;
    Ok(report)
}

/// Lets a sensor ask a region that is up, `rate` times a second, and tells what goes on.
///
/// # Errors
/// When the sensor has no result, or the indexer does not answer.
pub fn show(
    region: &Region,
    images: &Path,
    rate: u32,
    seconds: Option<u64>,
    stop: &Receiver<()>,
) -> Result<Report, DemoError> {
    let until = seconds.map_or(Until::Stopped, Until::Seconds);
    let mut sensor = Sensor::start(region, "sensor-1", images, until, rate)?;
    watch(region, &mut sensor, seconds, stop)?;
    let sensor = sensor.result(Duration::ZERO)?;
    report(region, sensor)
}

/// Writes the report as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write(report: &impl Serialize, path: &Path) -> Result<(), DemoError> {
    let text = serde_json::to_string_pretty(report).map_err(io::Error::other);
    text.and_then(|text| fs::write(path, text + "\n"))
        .map_err(|source| DemoError::Report {
            path: path.to_path_buf(),
            source,
        })
}

impl Report {
    /// The report as people read it.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _written = self.write_table(&mut text);
        text
    }

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n  {:10} {:8} {:10} {:>9} {:>7} {:>10} {:>11} {:>13}",
            "box", "state", "board", "requests", "failed", "telemetry", "queue p50", "compute p50"
        )?;
        for state in &self.boxes {
            let online = if state.online { "online" } else { "offline" };
            writeln!(
                text,
                "  {:10} {online:8} {:10} {:>9} {:>7} {:>10} {:>8} us {:>10} us",
                state.id,
                state.board,
                state.requests,
                state.failures,
                state.telemetry_messages,
                state.queue_p50_us,
                state.compute_p50_us
            )?;
        }
        let SensorResult {
            requests,
            answered,
            correct,
            latency_us,
            ..
        } = &self.sensor;
        writeln!(
            text,
            "\n  sensor-1   {answered} of {requests} requests answered"
        )?;
        writeln!(
            text,
            "             {correct} digits read right ({:.1} %)",
            self.accuracy()
        )?;
        writeln!(
            text,
            "             latency p50 {} us, p90 {} us, p99 {} us",
            latency_us.p50, latency_us.p90, latency_us.p99
        )?;
        for (status, count) in &self.sensor.failures {
            writeln!(text, "             {count} failed with {status}")?;
        }
        writeln!(
            text,
            "  indexer    {} telemetry messages",
            self.telemetry_messages
        )
    }

    /// A demo that shows nothing working is a failed one.
    ///
    /// # Errors
    /// When not all of `boxes` were online or no request was answered.
    pub fn judge(&self, boxes: usize) -> Result<(), DemoError> {
        let mut wrong = Vec::new();
        if usize::try_from(self.boxes_online) != Ok(boxes) {
            wrong.push(format!(
                "{} of {boxes} boxes were online",
                self.boxes_online
            ));
        }
        if self.sensor.answered == 0 {
            wrong.push(format!(
                "none of {} requests was answered",
                self.sensor.requests
            ));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(DemoError::Unconvincing(wrong.join(" and ")))
    }

    /// Right answers, in percent of all answers.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    pub fn accuracy(&self) -> f64 {
        100.0 * self.sensor.correct as f64 / self.sensor.answered.max(1) as f64
    }
}

/// Shows what goes on until the sensor is done or somebody wants to stop.
fn watch(
    region: &Region,
    sensor: &mut Sensor,
    seconds: Option<u64>,
    stop: &Receiver<()>,
) -> Result<(), DemoError> {
    let line = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
        line.set_style(style);
    }
    line.enable_steady_tick(Duration::from_millis(100));
    let end = seconds.map_or("Ctrl-C ends it".to_owned(), |seconds| {
        format!("{seconds} s")
    });
    let started = Instant::now();
    while !sensor.is_done()? {
        match stop.recv_timeout(TICK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                sensor.interrupt();
                break;
            }
        }
        let Totals {
            boxes_online,
            requests_total,
            ..
        } = region.totals()?;
        let elapsed = started.elapsed().as_secs();
        line.set_message(format!(
            "{boxes_online} boxes online, {requests_total} requests answered, {elapsed} s ({end})"
        ));
    }
    line.disable_steady_tick();
    line.finish_and_clear();
    Ok(())
}

/// Reads the boxes' side once their telemetry has caught up with the sensor.
fn report(region: &Region, sensor: SensorResult) -> Result<Report, DemoError> {
    let started = Instant::now();
    let boxes = loop {
        let boxes: Vec<BoxReport> = region.boxes()?.iter().map(box_report).collect();
        let counted: u64 = boxes.iter().map(|state| state.requests).sum();
        if counted >= sensor.answered || started.elapsed() > TELEMETRY_LAG {
            break boxes;
        }
        std::thread::sleep(TICK / 5);
    };
    let Totals {
        boxes_online,
        telemetry_messages,
        ..
    } = region.totals()?;
    Ok(Report {
        sensor,
        boxes_online,
        telemetry_messages,
        boxes,
    })
}

fn box_report(state: &BoxState) -> BoxReport {
    let metric = |name: &str| {
        let value = state.metrics.get(&format!("inference/digits/{name}"));
        value.and_then(serde_json::Value::as_u64).unwrap_or(0)
    };
    BoxReport {
        id: state.id.clone(),
        online: state.online,
        board: state.board.clone().unwrap_or_default(),
        requests: state.requests,
        failures: state.requests_failed,
        telemetry_messages: state.messages,
        queue_p50_us: metric("queue_p50_us"),
        compute_p50_us: metric("compute_p50_us"),
    }
}
