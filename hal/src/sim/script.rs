//! Scripts of the simulation: what is to happen to the board when. Read from TOML, bounded, with the line of what is
//! wrong; nothing here knows of the parts that it happens to.
//!
//! ```toml
//! [[step]]
//! at_s = 60                      # since the script began
//! event = { kind = "hot-day", millicelsius = 41_000, over_s = 3_600 }
//!
//! [[step]]
//! at_s = 90
//! event = { kind = "sensor-gone", zone = "cpu" }
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

/// Largest script file.
const MAX_BYTES: u64 = 64 * 1_024;
/// Most steps of a script.
const MAX_STEPS: usize = 1_000;
/// Longest time that a script may name: a week.
const MAX_S: u32 = 7 * 24 * 3_600;
/// Air temperatures that occur on Earth, with room to spare.
const AIR_MILLICELSIUS: std::ops::RangeInclusive<i32> = -60_000..=80_000;

/// Events in the order in which they come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    steps: Vec<Step>,
}

/// An event, and when it comes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Seconds since the script began.
    pub at_s: u32,
    /// What happens.
    pub event: Event,
}

/// What can happen to a simulated board.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The air's temperature goes to a value in a straight line.
    HotDay {
        /// Where to, in thousandths of a degree Celsius.
        millicelsius: i32,
        /// In how many seconds; 0 for at once.
        over_s: u32,
    },
    /// A zone's sensor no longer answers.
    SensorGone {
        /// The zone's name in the board file.
        zone: String,
    },
    /// A zone's sensor answers again.
    SensorBack {
        /// The zone's name in the board file.
        zone: String,
    },
    /// The fan's rotor is blocked: it takes orders and does not turn.
    FanStuck,
    /// The fan takes no order and keeps its speed.
    FanDeaf,
    /// The fan works again.
    FanBack,
    /// The storage's stated wear rises to its end in a straight line; then it no longer answers.
    StorageDying {
        /// In how many seconds.
        over_s: u32,
    },
    /// The time service is lost: the kernel no longer trusts the clock.
    ClockUntrusted,
    /// The clock is off by this much, and nobody has noticed: it still counts as synchronised.
    ClockJump {
        /// How far, in milliseconds; negative into the past.
        by_ms: i64,
    },
    /// The clock is right and trusted again.
    ClockTrusted,
    /// The GPU no longer answers.
    GpuLost,
    /// The GPU answers again.
    GpuBack,
    /// The watchdog takes no food.
    WatchdogBroken,
    /// The watchdog takes food again.
    WatchdogBack,
}

/// Why there is no script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("cannot read the simulation's script {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is too large.
    #[error("the simulation's script {} has {bytes} bytes; at most {MAX_BYTES} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is not a script.
    #[error("{file}:{line}: {problem}")]
    Invalid {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A step asks for what cannot be.
    #[error("{file}: step {number}: {problem}")]
    Step {
        /// The file.
        file: String,
        /// Which step, counted from 1 in the file's order.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// There are too many steps.
    #[error("{file} has {steps} steps; at most {MAX_STEPS} are played")]
    TooLong {
        /// The file.
        file: String,
        /// How many it has.
        steps: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "step")]
    steps: Vec<toml::Spanned<Step>>,
}

impl Script {
    /// The script that a file describes.
    ///
    /// # Errors
    /// [`ScriptError`] says what is wrong where.
    pub fn from_file(path: &Path) -> Result<Self, ScriptError> {
        let failed = |source| ScriptError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if bytes > MAX_BYTES {
            return Err(ScriptError::TooLarge {
                path: path.to_owned(),
                bytes,
            });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// The script that `text` describes; `file` names it in errors.
    ///
    /// # Errors
    /// [`ScriptError`] says what is wrong where.
    pub fn parse(text: &str, file: &str) -> Result<Self, ScriptError> {
        let invalid = |offset: usize, problem: String| ScriptError::Invalid {
            file: file.to_owned(),
            line: line_of(text, offset),
            problem,
        };
        let read: File = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            invalid(offset, error.message().trim_end().replace('\n', " "))
        })?;
        for step in &read.steps {
            step.get_ref()
                .check()
                .map_err(|problem| invalid(step.span().start, problem))?;
        }
        let steps = read.steps.into_iter().map(toml::Spanned::into_inner);
        Self::new(steps.collect(), file)
    }

    /// A script of these steps, whatever their order; `file` names it in errors.
    ///
    /// # Errors
    /// [`ScriptError::TooLong`] and [`ScriptError::Step`].
    pub fn new(mut steps: Vec<Step>, file: &str) -> Result<Self, ScriptError> {
        if steps.len() > MAX_STEPS {
            return Err(ScriptError::TooLong {
                file: file.to_owned(),
                steps: steps.len(),
            });
        }
        for (index, step) in steps.iter().enumerate() {
            step.check().map_err(|problem| ScriptError::Step {
                file: file.to_owned(),
                number: index + 1,
                problem,
            })?;
        }
        steps.sort_by_key(|step| step.at_s);
        Ok(Self { steps })
    }

    /// The steps in the order in which they come.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// When its last event comes.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let last = self.steps.last().map_or(0, |step| step.at_s);
        Duration::from_secs(last.into())
    }
}

impl Step {
    fn check(&self) -> Result<(), String> {
        let over_s = match &self.event {
            Event::HotDay {
                millicelsius,
                over_s,
            } => {
                if !AIR_MILLICELSIUS.contains(millicelsius) {
                    return Err(format!(
                        "air of {millicelsius} thousandths of a degree Celsius; it can have {} to {}",
                        AIR_MILLICELSIUS.start(),
                        AIR_MILLICELSIUS.end()
                    ));
                }
                *over_s
            }
            Event::StorageDying { over_s } => *over_s,
            _ => 0,
        };
        for (name, seconds) in [("at_s", self.at_s), ("over_s", over_s)] {
            if seconds > MAX_S {
                return Err(format!(
                    "{name} is {seconds} s; a script lasts at most {MAX_S} s"
                ));
            }
        }
        Ok(())
    }
}

/// Line of a byte offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
