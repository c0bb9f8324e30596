//! All that can be set on one board, together. What is missing costs itself and nothing else.

use std::{error::Error, path::Path, path::PathBuf, time::Duration};

use crate::{
    Board,
    board::{FanSource, LedMeaning, WatchdogConfig, WatchdogSource},
    clock::{AdjtimexClock, Clock},
    fan::{Fan, HwmonFan, SimFan},
    led::{Led, LedState, Lights, SimLed, SysfsLed},
    sim::SimReading,
    watchdog::{LinuxWatchdog, SimWatchdog, Watchdog, WatchdogError, WatchdogNode, WatchdogStatus},
};

/// Names of lights that exist only in memory begin with this.
const SIMULATED_LED: &str = "simulated:";

/// What can be set on a board. Opening it changes nothing: the fan is taken over by its first order, and the watchdog
/// starts with [`UnarmedWatchdog::arm`].
pub struct Controls {
    /// The fan; none where the board has none.
    pub fan: Option<Box<dyn Fan>>,
    /// The watchdog, not running yet; none where the board has none.
    pub watchdog: Option<UnarmedWatchdog>,
    /// The lights.
    pub lights: Lights,
    /// The clock.
    pub clock: Box<dyn Clock>,
    /// One line for each part that the board file states and the machine does not have now: `part: why`. Its control is
    /// there all the same, and works once the driver is loaded.
    pub faults: Vec<String>,
    /// Handles of the simulated parts among these.
    pub simulated: SimControls,
}

/// Handles of simulated parts: who keeps them sees what the agent sets, and makes it fail.
#[derive(Debug, Clone, Default)]
pub struct SimControls {
    /// The fan.
    pub fan: Option<SimFan>,
    /// The watchdog.
    pub watchdog: Option<SimWatchdog>,
    /// The lights by what they say.
    pub leds: Vec<(LedMeaning, SimLed)>,
}

/// A watchdog that the board file states and nobody has started.
#[derive(Debug, Clone)]
pub struct UnarmedWatchdog {
    root: PathBuf,
    config: WatchdogConfig,
    simulated: Option<SimWatchdog>,
}

impl Controls {
    /// The controls that `board` has, below `root` (`/` on a machine).
    #[must_use]
    pub fn open(board: &Board, root: &Path) -> Self {
        let mut faults = Vec::new();
        let mut simulated = SimControls::default();
        let mut keep = |part: &str, probed: Result<(), &dyn Error>| {
            if let Err(error) = probed {
                faults.push(format!("{part}: {}", chain(error)));
            }
        };
        let fan = board.fan.as_ref().map(|config| -> Box<dyn Fan> {
            match &config.source {
                FanSource::Hwmon {
                    chip,
                    pwm,
                    tachometer,
                } => {
                    let fan = HwmonFan::new(root, chip, pwm, tachometer.as_deref());
                    keep("fan", fan.probe().as_ref().copied().map_err(|e| e as _));
                    Box::new(fan)
                }
                FanSource::Simulated { .. } => {
                    let fan = SimFan {
                        percent: SimReading::new(0),
                        rpm: SimReading::new(0),
                    };
                    simulated.fan = Some(fan.clone());
                    Box::new(fan)
                }
            }
        });
        let watchdog = board.watchdog.as_ref().map(|config| {
            let watchdog = UnarmedWatchdog::new(root, config);
            let inspected = watchdog.inspect().map(|_| ());
            keep("watchdog", inspected.as_ref().copied().map_err(|e| e as _));
            simulated.watchdog.clone_from(&watchdog.simulated);
            watchdog
        });
        let mut lights: Vec<(LedMeaning, Box<dyn Led>)> = Vec::new();
        for config in &board.leds {
            if config.name.starts_with(SIMULATED_LED) {
                let led = SimLed(SimReading::new(LedState::Off));
                simulated.leds.push((config.meaning, led.clone()));
                lights.push((config.meaning, Box::new(led)));
            } else {
                let led = SysfsLed::new(root, &config.name);
                let probed = led.probe();
                let part = format!("led {}", config.name);
                keep(&part, probed.as_ref().copied().map_err(|e| e as _));
                lights.push((config.meaning, Box::new(led)));
            }
        }
        Self {
            fan,
            watchdog,
            lights: Lights::new(lights),
            clock: Box::new(AdjtimexClock),
            faults,
            simulated,
        }
    }
}

impl std::fmt::Debug for Controls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controls")
            .field("has_fan", &self.fan.is_some())
            .field("watchdog", &self.watchdog)
            .field("lights", &self.lights)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl UnarmedWatchdog {
    fn new(root: &Path, config: &WatchdogConfig) -> Self {
        let simulated = match config.source {
            WatchdogSource::Linux { .. } => None,
            WatchdogSource::Simulated => Some(SimWatchdog {
                timeout: Duration::from_secs(config.timeout_s.into()),
                meals: SimReading::new(0),
                armed: SimReading::new(false),
                caused_last_reset: SimReading::new(false),
            }),
        };
        Self {
            root: root.to_owned(),
            config: config.clone(),
            simulated,
        }
    }

    /// Starts the watchdog: from now on somebody must feed it.
    ///
    /// # Errors
    /// [`WatchdogError`], as [`LinuxWatchdog::open`].
    pub fn arm(&self) -> Result<Box<dyn Watchdog>, WatchdogError> {
        if let Some(watchdog) = &self.simulated {
            watchdog.armed.read()?;
            watchdog.armed.set(true);
            return Ok(Box::new(watchdog.clone()));
        }
        let config = &self.config;
        let watchdog = LinuxWatchdog::open(
            &self.root,
            self.identity(),
            config.timeout_s,
            config.pretimeout_s,
        )?;
        Ok(Box::new(watchdog))
    }

    /// What the watchdog says of itself, without starting it.
    ///
    /// # Errors
    /// [`WatchdogError`] when there is none, or its files cannot be understood.
    pub fn inspect(&self) -> Result<WatchdogStatus, WatchdogError> {
        match &self.simulated {
            Some(watchdog) => Ok(WatchdogStatus {
                is_active: Some(watchdog.armed.read()?),
                timeout_s: Some(self.config.timeout_s),
                ..WatchdogStatus::default()
            }),
            None => WatchdogNode::find(&self.root, self.identity())?.read(),
        }
    }

    /// Its identity in the board file; for people, a simulated one has one too.
    #[must_use]
    pub fn identity(&self) -> &str {
        match &self.config.source {
            WatchdogSource::Linux { identity } => identity,
            WatchdogSource::Simulated => "simulated",
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
