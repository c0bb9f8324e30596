//! What happens to a simulated board as time passes: events come, temperatures and the fan follow, storage wears, a
//! hungry watchdog bites. Who asks when is [`super::board`]'s.

use std::time::Duration;

use super::{
    board::{PowerState, ResetReason, SimParts},
    script::{Event, Step},
    thermal_model::{Loads, ThermalModel},
};
use crate::{
    clock::ClockTrust,
    gpu::{GpuReading, SimGpu},
    power::PowerReading,
    storage_health::{Reserve, Wear},
    thermal::SimZone,
};

/// Time in which a fan gets within a third of the speed that it was told (our choice: small fans take 1 to 3 s).
const FAN_LAG_S: f64 = 2.0;
/// Error that a time service states on a good day.
const GOOD_CLOCK_ERROR_US: u64 = 2_000;
/// Error that the kernel states at most (adjtimex(2): 16 s), here of a clock that nobody holds.
const LOST_CLOCK_ERROR_US: u64 = 16_000_000;
/// Wear at which simulated storage stops to answer: past its stated life.
const WEAR_END_PERCENT: f64 = 110.0;

/// The state of a simulated board, without its parts.
#[derive(Debug)]
pub(super) struct State {
    pub(super) model: ThermalModel,
    criticals: Vec<Option<i32>>,
    /// How busy rendering keeps the GPU, as [`super::SimBoard::set_rendering`] was told.
    pub(super) gpu_share: f64,
    max_rpm: u32,
    fan_percent: f64,
    is_fan_stuck: bool,
    pub(super) script: Vec<Step>,
    /// Time since the script began.
    pub(super) script_time: Duration,
    air_ramp: Option<Ramp>,
    wear_ramp: Option<Ramp>,
    meals_seen: u64,
    pub(super) hunger: Duration,
    pub(super) power: PowerState,
    pub(super) reset_reason: ResetReason,
    pub(super) resets: u32,
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

impl State {
    /// A board at rest.
    pub(super) fn new(model: ThermalModel, criticals: Vec<Option<i32>>, max_rpm: u32) -> Self {
        Self {
            criticals,
            model,
            gpu_share: 0.0,
            max_rpm,
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
        }
    }

    /// Lets a short stretch pass.
    pub(super) fn advance(&mut self, parts: &SimParts, elapsed: Duration, loads: Loads) {
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
    pub(super) fn start(&mut self, parts: &SimParts, reason: ResetReason) {
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

    /// Lets an event happen.
    pub(super) fn suffer(&mut self, parts: &SimParts, event: &Event) {
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

/// A clock that a time service holds.
pub(super) const GOOD_CLOCK: ClockTrust = ClockTrust {
    is_synchronised: true,
    max_error_us: GOOD_CLOCK_ERROR_US,
};

/// Wear as UFS and eMMC state it: in steps of 10 %, with the reserve going as life does.
pub(super) fn wear(used_percent: f64) -> Wear {
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

/// What so many watts show.
pub(super) fn spends(watts: f64) -> PowerReading {
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
pub(super) fn to_thousandths(celsius: f64) -> i32 {
    (celsius * 1_000.0)
        .round()
        .clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32
}
