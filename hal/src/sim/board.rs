//! The simulated board: owns the thermal model and every simulated part, and moves them on in time together. What
//! happens when is a [`Script`]; what a part says is read through the same traits as on a real board.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    reading::SimReading,
    script::{Event, Script, Step},
    thermal_model::{Loads, ThermalModel},
};
use crate::{
    board::{Board, FanSource, GpuSource, WatchdogSource, ZoneSource},
    clock::{ClockTrust, SimClock},
    fan::SimFan,
    gpu::{GpuReading, SimGpu},
    power::{PowerReading, SimPower},
    storage_health::{Reserve, SimStorageHealth, Wear},
    thermal::SimZone,
    watchdog::SimWatchdog,
};

/// Time in which a fan gets within a third of the speed that it was told (our choice: small fans take 1 to 3 s).
const FAN_LAG_S: f64 = 2.0;
/// Longest stretch that is simulated at once: events and resets are that exact.
const STRETCH: Duration = Duration::from_millis(500);
/// Longest time that one call moves: a machine that slept for a day does not compute for minutes.
const MAX_ADVANCE: Duration = Duration::from_secs(3_600);
/// Error that a time service states on a good day.
const GOOD_CLOCK_ERROR_US: u64 = 2_000;
/// Error that the kernel states at most (adjtimex(2): 16 s), here of a clock that nobody holds.
const LOST_CLOCK_ERROR_US: u64 = 16_000_000;
/// Wear at which simulated storage stops to answer: past its stated life.
const WEAR_END_PERCENT: f64 = 110.0;

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
    watchdog: Option<SimWatchdog>,
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

#[derive(Debug)]
struct State {
    model: ThermalModel,
    criticals: Vec<Option<i32>>,
    /// How busy rendering keeps the GPU, as [`SimBoard::set_rendering`] was told.
    gpu_share: f64,
    max_rpm: u32,
    fan_percent: f64,
    is_fan_stuck: bool,
    script: Vec<Step>,
    /// Time since the script began.
    script_time: Duration,
    air_ramp: Option<Ramp>,
    wear_ramp: Option<Ramp>,
    meals_seen: u64,
    hunger: Duration,
    power: PowerState,
    reset_reason: ResetReason,
    resets: u32,
}

/// A value that goes somewhere in a straight line.
#[derive(Debug, Clone, Copy)]
struct Ramp {
    value: f64,
    to: f64,
    left_s: f64,
}

impl Ramp {
    fn advance(&mut self, seconds: f64) -> f64 {
        if seconds >= self.left_s {
            self.value = self.to;
            self.left_s = 0.0;
        } else {
            self.value += (self.to - self.value) * seconds / self.left_s;
            self.left_s -= seconds;
        }
        self.value
    }
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
        let state = State {
            criticals: simulated()
                .map(crate::board::ThermalZoneConfig::critical_millicelsius)
                .collect(),
            model,
            gpu_share: 0.0,
            max_rpm: max_rpm.unwrap_or(0),
            fan_percent: 0.0,
            is_fan_stuck: false,
            script: Vec::new(),
            script_time: Duration::ZERO,
            air_ramp: None,
            wear_ramp: None,
            meals_seen: 0,
            hunger: Duration::ZERO,
            power: PowerState::On,
            reset_reason: ResetReason::PowerOn,
            resets: 0,
        };
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

impl State {
    fn advance(&mut self, parts: &SimParts, elapsed: Duration, loads: Loads) {
        self.script_time += elapsed;
        while let Some(step) = self
            .script
            .pop_if(|step| Duration::from_secs(step.at_s.into()) <= self.script_time)
        {
            self.suffer(parts, &step.event);
        }
        let seconds = elapsed.as_secs_f64();
        if let Some(ramp) = &mut self.air_ramp {
            self.model.set_air_celsius(ramp.advance(seconds));
        }
        if let Some(ramp) = &mut self.wear_ramp {
            let used = ramp.advance(seconds);
            parts.storage_health.0.set(wear(used));
            if used >= WEAR_END_PERCENT {
                parts
                    .storage_health
                    .0
                    .fail("the storage no longer answers: its life is used up");
            }
        }
        match self.power {
            PowerState::On => {
                self.turn_fan(parts, seconds);
                self.model.advance(elapsed, loads, self.fan_percent);
                parts.power.0.set(spends(self.model.watts(loads)));
                if let Some(SimGpu(reading)) = &parts.gpu {
                    #[allow(
                        clippy::cast_possible_truncation,
                        reason = "a percentage needs no more than f32's 24 bits"
                    )]
                    let load_percent = (loads.gpu_share * 100.0).clamp(0.0, 100.0) as f32;
                    reading.set(GpuReading {
                        khz: None,
                        load_percent: Some(load_percent),
                    });
                }
                self.hold_watchdog(parts, elapsed);
            }
            PowerState::ThermalShutdown => self.model.cool(elapsed),
        }
        self.show_temperatures(parts);
    }

    fn turn_fan(&mut self, parts: &SimParts, seconds: f64) {
        let Some(fan) = &parts.fan else { return };
        // A fan that takes no order goes on as it turns.
        let told = fan.percent.read().map_or(self.fan_percent, f64::from);
        let wanted = if self.is_fan_stuck { 0.0 } else { told };
        self.fan_percent += (wanted - self.fan_percent) * -f64::exp_m1(-seconds / FAN_LAG_S);
        let rpm = f64::from(self.max_rpm) * self.fan_percent / 100.0;
        fan.rpm.set(to_whole(rpm));
    }

    fn hold_watchdog(&mut self, parts: &SimParts, elapsed: Duration) {
        let Some(watchdog) = &parts.watchdog else {
            return;
        };
        let is_armed = watchdog.armed.read().unwrap_or(false);
        // A broken one has taken nothing since.
        let meals = watchdog.meals.read().unwrap_or(self.meals_seen);
        if !is_armed || meals != self.meals_seen {
            self.meals_seen = meals;
            self.hunger = Duration::ZERO;
            return;
        }
        self.hunger += elapsed;
        if self.hunger >= watchdog.timeout {
            self.start(parts, ResetReason::Watchdog);
        }
    }

    /// The board starts again: it keeps its heat, its parts and what is broken in them; drivers come back, the fan
    /// waits for orders, and the watchdog for whoever opens it.
    fn start(&mut self, parts: &SimParts, reason: ResetReason) {
        self.reset_reason = reason;
        self.resets = self.resets.saturating_add(1);
        self.hunger = Duration::ZERO;
        for (_, SimZone(reading)) in &parts.zones {
            reading.recover();
        }
        if let Some(fan) = &parts.fan {
            fan.percent.recover();
            fan.percent.set(0);
        }
        if let Some(SimGpu(reading)) = &parts.gpu {
            reading.recover();
        }
        if let Some(watchdog) = &parts.watchdog {
            watchdog.meals.recover();
            watchdog.armed.set(false);
            watchdog
                .caused_last_reset
                .set(reason == ResetReason::Watchdog);
        }
    }

    fn show_temperatures(&mut self, parts: &SimParts) {
        let zones = parts.zones.iter().zip(self.model.zones_celsius());
        for (((name, SimZone(reading)), celsius), critical) in zones.zip(&self.criticals) {
            let millicelsius = to_thousandths(celsius);
            reading.set(millicelsius);
            if self.power == PowerState::On
                && critical.is_some_and(|critical| millicelsius >= critical)
            {
                self.power = PowerState::ThermalShutdown;
                let reason = format!("the board switched itself off: zone {name} is too hot");
                for (_, SimZone(reading)) in &parts.zones {
                    reading.fail(&reason);
                }
                parts.power.0.set(spends(0.0));
                if let Some(fan) = &parts.fan {
                    self.fan_percent = 0.0;
                    fan.rpm.set(0);
                }
            }
        }
    }

    fn suffer(&mut self, parts: &SimParts, event: &Event) {
        match event {
            Event::HotDay {
                millicelsius,
                over_s,
            } => {
                self.air_ramp = Some(Ramp {
                    value: self.model.air_celsius(),
                    to: f64::from(*millicelsius) / 1_000.0,
                    left_s: f64::from(*over_s),
                });
            }
            Event::SensorGone { zone } => {
                if let Some(SimZone(reading)) = parts.zone(zone) {
                    reading.fail("the sensor is gone");
                }
            }
            Event::SensorBack { zone } => {
                if let Some(SimZone(reading)) = parts.zone(zone) {
                    reading.recover();
                }
            }
            Event::FanStuck => self.is_fan_stuck = true,
            Event::FanDeaf => {
                if let Some(fan) = &parts.fan {
                    fan.percent.fail("the fan takes no order");
                }
            }
            Event::FanBack => {
                self.is_fan_stuck = false;
                if let Some(fan) = &parts.fan {
                    fan.percent.recover();
                }
            }
            Event::StorageDying { over_s } => {
                self.wear_ramp = Some(Ramp {
                    value: self.wear_ramp.map_or(0.0, |ramp| ramp.value),
                    to: WEAR_END_PERCENT,
                    left_s: f64::from(*over_s),
                });
            }
            Event::ClockUntrusted => parts.clock.0.set(ClockTrust {
                is_synchronised: false,
                max_error_us: LOST_CLOCK_ERROR_US,
            }),
            Event::ClockJump { by_ms } => {
                let offset = parts.clock_offset_ms.read().unwrap_or(0);
                parts.clock_offset_ms.set(offset.saturating_add(*by_ms));
            }
            Event::ClockTrusted => {
                parts.clock.0.set(GOOD_CLOCK);
                parts.clock_offset_ms.set(0);
            }
            Event::GpuLost => {
                if let Some(SimGpu(reading)) = &parts.gpu {
                    reading.fail("the GPU fell off its bus");
                }
            }
            Event::GpuBack => {
                if let Some(SimGpu(reading)) = &parts.gpu {
                    reading.recover();
                }
            }
            Event::WatchdogBroken => {
                if let Some(watchdog) = &parts.watchdog {
                    watchdog.meals.fail("the watchdog takes no food");
                }
            }
            Event::WatchdogBack => {
                if let Some(watchdog) = &parts.watchdog {
                    watchdog.meals.recover();
                }
            }
        }
    }
}

impl SimParts {
    fn zone(&self, name: &str) -> Option<&SimZone> {
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

const GOOD_CLOCK: ClockTrust = ClockTrust {
    is_synchronised: true,
    max_error_us: GOOD_CLOCK_ERROR_US,
};

/// Wear as UFS and eMMC state it: in steps of 10 %, with the reserve going as life does.
fn wear(used_percent: f64) -> Wear {
    let steps = (used_percent / 10.0).ceil().clamp(1.0, 11.0);
    Wear {
        used_percent: u8::try_from(to_whole(steps * 10.0)).ok(),
        reserve: Some(match used_percent {
            used if used < 80.0 => Reserve::Normal,
            used if used < 90.0 => Reserve::Warning,
            _ => Reserve::Urgent,
        }),
        written_bytes: None,
    }
}

fn spends(watts: f64) -> PowerReading {
    PowerReading {
        milliwatts: Some(to_whole(watts * 1_000.0).into()),
        ..PowerReading::default()
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the type's range before"
)]
fn to_whole(value: f64) -> u32 {
    value.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Degrees as a sensor states them.
#[allow(
    clippy::cast_possible_truncation,
    reason = "clamped to the type's range before"
)]
fn to_thousandths(celsius: f64) -> i32 {
    (celsius * 1_000.0)
        .round()
        .clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32
}
