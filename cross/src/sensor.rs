//! The sensor of the demo and of the tests: `edgectl sense` as a child process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Deserializer, Serialize};

use crate::processes::{Process, ProcessError};
use crate::region::{self, Region, RegionError};

/// When it gives a request up.
const EXPIRY_S: &str = "15";
/// What it may take after its last request: that time, and a little to print.
const LAST_ANSWERS: Duration = Duration::from_secs(20);

/// A sensor that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Its process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its program.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Its last words are no result.
    #[error("the sensor ended without a result{log}")]
    NoResult {
        /// The end of what it printed, on lines of its own.
        log: String,
        /// Why it is none.
        #[source]
        source: serde_json::Error,
    },
}

/// What the sensor says at its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SensorResult {
    /// Requests, each counted once however often it was sent.
    pub requests: u64,
    /// Those that got an answer with status 200.
    pub answered: u64,
    /// Those whose answer was the image's label.
    pub correct: u64,
    /// Requests without such an answer, by status.
    pub failures: BTreeMap<String, u64>,
    /// Requests that were sent again.
    pub retries: u64,
    /// Answers that came again.
    pub duplicates: u64,
    /// From the first sending to the answer.
    #[serde(deserialize_with = "zeros_for_none")]
    pub latency_us: Latency,
    /// From the first request to the last answer.
    pub seconds: f64,
}

/// A sensor without answers has no latency to tell.
fn zeros_for_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Percentiles of a latency, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "percentiles are named for themselves")]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

/// How long a sensor goes on.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// So many requests.
    Count(u64),
    /// So many seconds.
    Seconds(u64),
    /// Until it is stopped.
    Stopped,
}

/// A running sensor.
#[derive(Debug)]
pub struct Sensor {
    process: Process,
}

impl Sensor {
    /// Starts a sensor that sends the images at `rate` requests a second to any box.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        region: &Region,
        name: &str,
        images: &Path,
        until: Until,
        rate: u32,
    ) -> Result<Self, SensorError> {
        let broker_url = region.broker_url();
        let images = images.display().to_string();
        let rate = rate.to_string();
        let (limit, value) = match until {
            Until::Count(count) => ("--count", count),
            Until::Seconds(seconds) => ("--seconds", seconds),
            Until::Stopped => ("--seconds", 100 * 365 * 24 * 3600),
        };
        let value = value.to_string();
        let mut arguments = vec!["sense", "--broker", &broker_url, "--region", region::NAME];
        arguments.extend(["--model", "digits", "--data", &images, "--client", name]);
        arguments.extend([
            "--rate", &rate, "--expiry", EXPIRY_S, "--json", limit, &value,
        ]);
        let identity = region.sensor_identity(name)?;
        let identity = identity.map(|folder| folder.display().to_string());
        if let Some(folder) = &identity {
            arguments.extend(["--identity", folder]);
        }
        let process = Process::start(
            name,
            &region.program("edgectl")?,
            arguments,
            region.folder(),
        )?;
        Ok(Self { process })
    }

    /// Is it done?
    ///
    /// # Errors
    /// When the system does not say.
    pub fn is_done(&mut self) -> Result<bool, SensorError> {
        Ok(self.process.ended()?.is_some())
    }

    /// Asks it to come to an end, as Ctrl-C would.
    pub fn interrupt(&mut self) {
        self.process.signal(Signal::SIGINT);
    }

    /// Waits for its end, at most `limit` and the time its last answers may take.
    ///
    /// # Errors
    /// When it does not end or prints no result.
    pub fn result(mut self, limit: Duration) -> Result<SensorResult, SensorError> {
        self.process.wait(limit.saturating_add(LAST_ANSWERS))?;
        let printed = self.process.printed()?;
        let last_line = printed.lines().next_back().unwrap_or_default();
        serde_json::from_str(last_line).map_err(|source| SensorError::NoResult {
            log: self.process.log(),
            source,
        })
    }
}
