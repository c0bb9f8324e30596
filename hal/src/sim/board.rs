//! The simulated board: owns the thermal model and every simulated part. What happens when is a [`Script`], and how
//! that is felt is in `life.rs`; what a part says is read through the same traits as on a real board.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    life::{GOOD_CLOCK, State, spends, to_thousandths, wear},
    reading::SimReading,
    script::{Event, Script},
    thermal_model::{Loads, ThermalModel},
};
use crate::{
    board::{Board, FanSource, GpuSource, WatchdogSource, ZoneSource},
    clock::SimClock,
    fan::SimFan,
    gpu::{GpuReading, SimGpu},
    power::SimPower,
    storage_health::SimStorageHealth,
    thermal::SimZone,
    watchdog::SimWatchdog,
};

/// Longest stretch that is simulated at once: events and resets are that exact.
const STRETCH: Duration = Duration::from_millis(500);
/// Longest time that one call moves: a machine that slept for a day does not compute for minutes.
const MAX_ADVANCE: Duration = Duration::from_secs(3_600);

/// A simulated board. Clones are the same board: the sensors move it on, the governor sets its fan, a demonstration
/// lets it suffer.
#[derive(Debug, Clone)]
pub struct SimBoard {
    state: Arc<Mutex<State>>,
    parts: SimParts,
}

/// The parts of a simulated board. Each clone shares its readings with the board.
#[derive(Debug, Clone)]
pub struct SimParts {
    /// Its simulated zones with their names, in the board file's order.
    pub zones: Vec<(String, SimZone)>,
    /// Its fan, where the board file states a simulated one.
    pub fan: Option<SimFan>,
    /// Its GPU, where the board file states a simulated one.
    pub gpu: Option<SimGpu>,
    /// Its clock.
    pub clock: SimClock,
    /// How far its clock is off without anybody noticing, in milliseconds.
    pub clock_offset_ms: SimReading<i64>,
    /// Wear of its storage.
    pub storage_health: SimStorageHealth,
    /// What it spends.
    pub power: SimPower,
    pub(super) watchdog: Option<SimWatchdog>,
}

/// Why a simulated board last started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// It was switched on.
    PowerOn,
    /// The watchdog was not fed in time.
    Watchdog,
    /// It had switched itself off at a critical trip point, and somebody switched it on again.
    Thermal,
}

/// Whether a simulated board is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    /// It runs.
    On,
    /// A zone passed its critical trip point: it switched itself off, and waits for [`SimBoard::power_on`].
    ThermalShutdown,
}

/// Why a script cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimBoardError {
    /// It names a zone that the board does not simulate.
    #[error("the simulation's script names zone {zone:?}; this board simulates: {known}")]
    UnknownZone {
        /// What it names.
        zone: String,
        /// Zones that there are.
        known: String,
    },
    /// It lets a part fail that the board does not simulate.
    #[error("the simulation's script lets the {part} fail, and this board simulates none")]
    NoSuchPart {
        /// The part.
        part: &'static str,
    },
}

impl SimBoard {
    /// Whether `board` has anything that only a simulated board can be: a zone, a fan, a GPU or a watchdog.
    #[must_use]
    pub fn is_for(board: &Board) -> bool {
        let has_zone = board
            .thermal_zones
            .iter()
            .any(|zone| matches!(zone.source, ZoneSource::Simulated { .. }));
        let has_fan = board
            .fan
            .as_ref()
            .is_some_and(|fan| matches!(fan.source, FanSource::Simulated { .. }));
        let has_gpu = board
            .gpu
            .as_ref()
            .is_some_and(|gpu| gpu.source == GpuSource::Simulated);
        let has_watchdog = board
            .watchdog
            .as_ref()
            .is_some_and(|watchdog| watchdog.source == WatchdogSource::Simulated);
        has_zone || has_fan || has_gpu || has_watchdog
    }

    /// The simulated parts of `board`, at rest in its air. Clock and storage wear are simulated on every board.
    #[must_use]
    pub fn new(board: &Board) -> Self {
        let model = ThermalModel::new(board);
        let simulated = || {
            let is_simulated = |source: &ZoneSource| matches!(source, ZoneSource::Simulated { .. });
            board
                .thermal_zones
                .iter()
                .filter(move |zone| is_simulated(&zone.source))
        };
        let max_rpm = board.fan.as_ref().and_then(|fan| match fan.source {
            FanSource::Simulated { max_rpm } => Some(max_rpm),
            FanSource::Hwmon { .. } => None,
        });
        let watchdog = board
            .watchdog
            .as_ref()
            .filter(|watchdog| watchdog.source == WatchdogSource::Simulated)
            .map(|watchdog| SimWatchdog {
                timeout: Duration::from_secs(watchdog.timeout_s.into()),
                meals: SimReading::new(0),
                armed: SimReading::new(false),
                caused_last_reset: SimReading::new(false),
            });
        let parts = SimParts {
            zones: simulated()
                .zip(model.zones_celsius())
                .map(|(zone, celsius)| {
                    let reading = SimReading::new(to_thousandths(celsius));
                    (zone.name.clone(), SimZone(reading))
                })
                .collect(),
            fan: max_rpm.map(|_| SimFan {
                percent: SimReading::new(0),
                rpm: SimReading::new(0),
            }),
            gpu: board
                .gpu
                .as_ref()
                .filter(|gpu| gpu.source == GpuSource::Simulated)
                .map(|_| SimGpu(SimReading::new(GpuReading::default()))),
            clock: SimClock(SimReading::new(GOOD_CLOCK)),
            clock_offset_ms: SimReading::new(0),
            storage_health: SimStorageHealth(SimReading::new(wear(0.0))),
            power: SimPower(SimReading::new(spends(model.watts(Loads::default())))),
            watchdog,
        };
        let criticals = simulated().map(crate::board::ThermalZoneConfig::critical_millicelsius);
        let state = State::new(model, criticals.collect(), max_rpm.unwrap_or(0));
        Self {
            state: Arc::new(Mutex::new(state)),
            parts,
        }
    }

    /// Its parts.
    #[must_use]
    pub fn parts(&self) -> &SimParts {
        &self.parts
    }

    /// Its watchdog, which runs from now on; `None` where the board file states no simulated one.
    #[must_use]
    pub fn open_watchdog(&self) -> Option<SimWatchdog> {
        let watchdog = self.parts.watchdog.clone()?;
        watchdog.armed.set(true);
        self.with(|state| state.hunger = Duration::ZERO);
        Some(watchdog)
    }

    /// Plays `script` from now on, instead of what was left of another.
    ///
    /// # Errors
    /// [`SimBoardError`] when it speaks of a part that the board does not simulate; then nothing changes.
    pub fn play(&self, script: &Script) -> Result<(), SimBoardError> {
        for step in script.steps() {
            self.parts.check(&step.event)?;
        }
        self.with(|state| {
            state.script = script.steps().iter().rev().cloned().collect();
            state.script_time = Duration::ZERO;
        });
        Ok(())
    }

    /// Lets one event happen now.
    ///
    /// # Errors
    /// [`SimBoardError`] when it speaks of a part that the board does not simulate.
    pub fn suffer(&self, event: &Event) -> Result<(), SimBoardError> {
        self.parts.check(event)?;
        self.with(|state| state.suffer(&self.parts, event));
        Ok(())
    }

    /// Lets `elapsed` pass, at most an hour a call, under these loads: events come, temperatures and the fan follow,
    /// a hungry watchdog bites, and a zone past its critical trip point switches the board off.
    pub fn advance(&self, elapsed: Duration, loads: Loads) {
        let mut left = elapsed.min(MAX_ADVANCE);
        self.with(|state| {
            while !left.is_zero() {
                let stretch = left.min(STRETCH);
                state.advance(&self.parts, stretch, loads);
                left -= stretch;
            }
        });
    }

    /// Says how busy rendering keeps the GPU, 0 to 1: nobody can measure a GPU that does not exist.
    pub fn set_rendering(&self, gpu_share: f64) {
        self.with(|state| state.gpu_share = gpu_share);
    }

    /// What [`SimBoard::set_rendering`] was last told; 0 before.
    #[must_use]
    pub fn rendering(&self) -> f64 {
        self.with(|state| state.gpu_share)
    }

    /// Whether it runs.
    #[must_use]
    pub fn power_state(&self) -> PowerState {
        self.with(|state| state.power)
    }

    /// Why it last started.
    #[must_use]
    pub fn reset_reason(&self) -> ResetReason {
        self.with(|state| state.reset_reason)
    }

    /// How often it started again since it was made.
    #[must_use]
    pub fn resets(&self) -> u32 {
        self.with(|state| state.resets)
    }

    /// The air around it, in thousandths of a degree Celsius.
    #[must_use]
    pub fn air_millicelsius(&self) -> i32 {
        self.with(|state| to_thousandths(state.model.air_celsius()))
    }

    /// Switches it on again after [`PowerState::ThermalShutdown`]; when it is on, nothing happens.
    pub fn power_on(&self) {
        self.with(|state| {
            if state.power == PowerState::ThermalShutdown {
                state.power = PowerState::On;
                state.start(&self.parts, ResetReason::Thermal);
            }
        });
    }

    fn with<R>(&self, action: impl FnOnce(&mut State) -> R) -> R {
        // A panic while the lock is held leaves a whole state behind: nothing here can panic halfway.
        action(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SimParts {
    pub(super) fn zone(&self, name: &str) -> Option<&SimZone> {
        let (_, zone) = self.zones.iter().find(|(known, _)| known == name)?;
        Some(zone)
    }

    fn check(&self, event: &Event) -> Result<(), SimBoardError> {
        let must_have = |part: &'static str, has: bool| {
            has.then_some(()).ok_or(SimBoardError::NoSuchPart { part })
        };
        match event {
            Event::SensorGone { zone } | Event::SensorBack { zone } => {
                self.zone(zone).map(|_| ()).ok_or_else(|| {
                    let known: Vec<&str> = self.zones.iter().map(|(n, _)| n.as_str()).collect();
                    SimBoardError::UnknownZone {
                        zone: zone.clone(),
                        known: known.join(", "),
                    }
                })
            }
            Event::FanStuck | Event::FanDeaf | Event::FanBack => {
                must_have("fan", self.fan.is_some())
            }
            Event::GpuLost | Event::GpuBack => must_have("GPU", self.gpu.is_some()),
            Event::WatchdogBroken | Event::WatchdogBack => {
                must_have("watchdog", self.watchdog.is_some())
            }
            Event::HotDay { .. }
            | Event::StorageDying { .. }
            | Event::ClockUntrusted
            | Event::ClockJump { .. }
            | Event::ClockTrusted => Ok(()),
        }
    }
}
