//! One ONNX Runtime session in a process of its own, at the pace of a box: what arena and spinning cost and gain.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BenchError;
use super::runtime::{Options, Runtime};

/// Runs that are measured.
const RUNS: u32 = 60;
/// Time between two runs.
const PAUSE: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// Median of a run, in microseconds.
    pub run_us: f64,
    /// Processor time of a run and the pause behind it, in microseconds.
    pub processor_us: f64,
    /// Memory that the process holds more than before the model was loaded, in KiB.
    pub grown_kib: u64,
}

/// Loads a model with these options and runs it now and then.
///
/// # Errors
/// When the runtime refuses.
pub fn measure(library: &Path, graph: &Path, options: Options) -> Result<Session, BenchError> {
    let runtime = Runtime::load(library)?;
    let before = own("VmRSS:")?;
    let mut floor = runtime.floor_with(graph, options)?;
    let started = processor()?;
    for _ in 0..RUNS {
        floor.run(Duration::ZERO)?;
        thread::sleep(PAUSE);
    }
    let spent = processor()?.saturating_sub(started);
    Ok(Session {
        run_us: super::inference::microseconds(&floor.nanoseconds, 0.5),
        processor_us: spent.as_secs_f64() * 1e6 / f64::from(RUNS),
        grown_kib: own("VmRSS:")?.saturating_sub(before),
    })
}

fn own(key: &str) -> Result<u64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status");
    let status = status.map_err(|e| BenchError::System("read this process's memory", e))?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| {
        line.strip_prefix(key)?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()
    });
    Ok(value.unwrap_or(0))
}

/// Processor time of this process.
fn processor() -> Result<Duration, BenchError> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let time = time.map_err(|e| BenchError::System("read this process's time", e.into()))?;
    Ok(Duration::from(time))
}
