//! The thermal governor: how much work the temperatures allow. Pure: what it is told in, what is to be done out; it
//! knows neither sensors nor clocks, and one call a second (up to one in five) is what it is made for.
//!
//! - [`estimator`]: temperature, trend and what heats a zone, from readings and the work that was done
//! - [`limiter`]: which share of the work keeps one zone at its target
//! - [`steps`]: that share with few changes
//! - [`Duty`]: a share of requests that run at the same time as whole requests
//! - [`fan`]: the fan's speed, and whether it turns at all
//!
//! Rules:
//! - **Who is cut.** A zone cuts what heats it: the processor's zones cut inference, the GPU's cut rendering. Only
//!   when that is at nothing and the zone is still too hot, the other is cut too. Zones heated by the whole board cut
//!   both in the same proportion. Of several zones the strictest rules.
//! - **Near the critical trip point** both are cut to nothing at once, for at least [`EMERGENCY_S`].
//! - **Without a sensor** of a governed zone for [`BLIND_AFTER_S`], both get at most [`BLIND_SHARE`] and the fan runs
//!   at full speed; the other zones go on ruling.
//! - **Changes are bounded**: concurrency and GPU duty change at most 6 times a minute each, those near the critical
//!   trip point included, where cutting does not wait.

mod duty;
mod estimator;
mod fan;
mod limiter;
mod steps;

use std::time::Duration;

pub use self::duty::Duty;
use self::{
    estimator::Estimator,
    fan::FanRule,
    limiter::{Limiter, Shares},
    steps::Steps,
};
use crate::board::{Board, HeatedBy};

/// How long work stays cut to nothing after a zone came near its critical trip point, in seconds.
pub const EMERGENCY_S: f64 = 30.0;
/// How long the last reading of a sensor that went silent still counts, in seconds.
pub const BLIND_AFTER_S: f64 = 10.0;
/// Share of the work that is allowed while a governed zone cannot be seen: our boards stand it in air of 45 °C with
/// a stuck fan.
pub const BLIND_SHARE: f64 = 0.25;
/// How near the critical trip point everything is cut; half of the way from the target where that is less.
const EMERGENCY_KELVIN: f64 = 10.0;
/// How far ahead it looks for that, in seconds: the sensors' lag.
const EMERGENCY_LEAD_S: f64 = 5.0;
/// Critical trip point of a zone whose board file has none, above its target.
const DEFAULT_CRITICAL_KELVIN: f64 = 25.0;
/// Longest step that counts: whoever calls more seldom gets a slower governor, not a wilder one.
const MAX_STEP_S: f64 = 10.0;
/// Readings outside of this are faults: no part of a running box is colder or hotter.
const PLAUSIBLE_MILLICELSIUS: std::ops::RangeInclusive<i32> = -45_000..=150_000;

/// What the governor is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation<'a> {
    /// Temperatures of [`Governor::zones`] in that order, in thousandths of a degree Celsius; what is absent or
    /// implausible counts as not known.
    pub millicelsius: &'a [Option<i32>],
    /// Turns of the fan a minute; `None` where nobody counts them.
    pub fan_rpm: Option<u32>,
    /// Most requests that inference would run at the same time.
    pub inference_max_concurrency: u16,
    /// How many requests ran at the same time since the previous call, on average.
    pub inference_busy: f64,
    /// Whether there is anything to render.
    pub gpu_wanted: bool,
    /// Share of the time since the previous call that rendering kept the GPU busy, 0 to 1.
    pub gpu_busy: f64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Most requests that inference may run at the same time on average, in thousandths of a request: 2,400 are two
    /// all the time and a third for 0.4 of it.
    pub inference_concurrency_milli: u32,
    /// Share of time that rendering may keep the GPU busy; 0 where nothing is to be rendered.
    pub gpu_duty_percent: u8,
    /// Speed of the fan.
    pub fan_percent: u8,
    /// Why.
    pub reason: Reason,
    /// Whether the fan is told to turn and does not.
    pub is_fan_stuck: bool,
}

/// Why the governor decided so: the gravest that applies. Zones are places in [`Governor::zones`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is limited.
    Unlimited,
    /// A zone is held at its target.
    HoldsTarget {
        /// Which.
        zone: usize,
    },
    /// A zone's temperature is not known, so the limits are those that every board stands.
    Blind {
        /// Which.
        zone: usize,
    },
    /// A zone came near its critical trip point.
    NearCritical {
        /// Which.
        zone: usize,
    },
}

/// The governor of one board.
#[derive(Debug, Clone)]
pub struct Governor {
    zones: Vec<Zone>,
    fan: FanRule,
    inference: Steps,
    gpu: Steps,
}

#[derive(Debug, Clone)]
struct Zone {
    name: String,
    heated_by: HeatedBy,
    target_celsius: f64,
    /// Kelvins above the target at which all work is cut.
    cut_kelvin: f64,
    estimator: Estimator,
    limiter: Limiter,
    /// What is left of an emergency, in seconds; over only below the target.
    emergency_s: f64,
    is_emergency: bool,
}

/// What a zone allows: shares of the processor's and the GPU's work.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    cpu: f64,
    gpu: f64,
    reason: Option<Reason>,
}

impl Governor {
    /// The governor of `board`: it governs the zones that have a target.
    #[must_use]
    pub fn new(board: &Board) -> Self {
        let zones = board.thermal_zones.iter().filter_map(|zone| {
            let target_celsius = f64::from(zone.target_millicelsius?) / 1_000.0;
            let critical = zone
                .critical_millicelsius()
                .map_or(target_celsius + DEFAULT_CRITICAL_KELVIN, |critical| {
                    f64::from(critical) / 1_000.0
                });
            let margin = EMERGENCY_KELVIN.min((critical - target_celsius) / 2.0);
            Some(Zone {
                name: zone.name.clone(),
                heated_by: zone.heated_by,
                target_celsius,
                cut_kelvin: critical - target_celsius - margin,
                estimator: Estimator::default(),
                limiter: Limiter::default(),
                emergency_s: 0.0,
                is_emergency: false,
            })
        });
        Self {
            zones: zones.collect(),
            fan: FanRule::new(board.fan.as_ref()),
            inference: Steps::default(),
            gpu: Steps::default(),
        }
    }

    /// Names of the zones that it governs, in the order in which it wants their temperatures.
    pub fn zones(&self) -> impl Iterator<Item = &str> {
        self.zones.iter().map(|zone| zone.name.as_str())
    }

    /// What is to be done from now on; `elapsed` is the time since the previous call. It never fails and never
    /// allocates: whatever it is not told, it is careful about.
    pub fn decide(&mut self, elapsed: Duration, observation: &Observation<'_>) -> Decision {
        let seconds = elapsed.as_secs_f64().min(MAX_STEP_S);
        let mut allowed = Allowed {
            cpu: 1.0,
            gpu: 1.0,
            reason: None,
        };
        let most = observation.inference_max_concurrency;
        let done = Work {
            cpu: share(observation.inference_busy / f64::from(most.max(1))),
            gpu: share(observation.gpu_busy),
            gpu_wanted: observation.gpu_wanted,
        };
        let mut hottest = f64::MIN;
        for (number, zone) in self.zones.iter_mut().enumerate() {
            let millicelsius = observation.millicelsius.get(number).copied().flatten();
            let reading = millicelsius
                .filter(|value| PLAUSIBLE_MILLICELSIUS.contains(value))
                .map(|value| f64::from(value) / 1_000.0 - zone.target_celsius);
            zone.estimator
                .step(seconds, done.of(zone.heated_by), reading);
            allowed = allowed.and(zone.allow(number, seconds, reading, done));
            if let Some(state) = zone.estimator.state() {
                hottest = hottest.max(zone.target_celsius + state.kelvin_in(fan::LEAD_S));
            }
        }
        let is_cut = matches!(allowed.reason, Some(Reason::NearCritical { .. }));
        let is_limited = allowed.reason.is_some();
        let inference = self.inference.step(seconds, allowed.cpu, is_cut);
        let gpu = self.gpu.step(seconds, allowed.gpu, is_cut);
        Decision {
            inference_concurrency_milli: whole(inference * f64::from(most) * 1_000.0),
            gpu_duty_percent: u8::try_from(whole(gpu * 100.0)).unwrap_or(100)
                * u8::from(observation.gpu_wanted),
            fan_percent: self
                .fan
                .step(seconds, hottest, is_limited, observation.fan_rpm),
            reason: allowed.reason.unwrap_or(Reason::Unlimited),
            is_fan_stuck: self.fan.is_stuck(),
        }
    }
}

/// Work that was done, as shares of all.
#[derive(Debug, Clone, Copy)]
struct Work {
    cpu: f64,
    gpu: f64,
    gpu_wanted: bool,
}

impl Work {
    /// What of it heats such a zone.
    fn of(self, heated_by: HeatedBy) -> f64 {
        match heated_by {
            HeatedBy::Cpu => self.cpu,
            HeatedBy::Gpu => self.gpu,
            HeatedBy::Board => f64::midpoint(self.cpu, self.gpu),
        }
    }
}

impl Zone {
    fn allow(&mut self, number: usize, seconds: f64, reading: Option<f64>, done: Work) -> Allowed {
        let Some(state) = self.estimator.state() else {
            return Allowed {
                cpu: BLIND_SHARE,
                gpu: BLIND_SHARE,
                reason: Some(Reason::Blind { zone: number }),
            };
        };
        self.emergency_s -= seconds;
        // The reading itself counts too: here nothing waits for the estimator.
        let coming = state.kelvin_in(EMERGENCY_LEAD_S);
        if coming.max(reading.unwrap_or(coming)) >= self.cut_kelvin {
            self.is_emergency = true;
            self.emergency_s = EMERGENCY_S;
        } else if self.emergency_s <= 0.0 && state.kelvin < 0.0 {
            self.is_emergency = false;
        }
        if self.is_emergency {
            return Allowed {
                cpu: 0.0,
                gpu: 0.0,
                reason: Some(Reason::NearCritical { zone: number }),
            };
        }
        let Shares { own, other } = self.limiter.step(seconds, state);
        let (cpu, gpu) = match self.heated_by {
            HeatedBy::Cpu => (own, other),
            HeatedBy::Gpu => (other, own),
            // Both together are all of its work.
            HeatedBy::Board if done.gpu_wanted => (own, own),
            HeatedBy::Board => ((2.0 * own).min(1.0), own),
        };
        Allowed {
            cpu,
            gpu,
            reason: (own.min(other) < 1.0).then_some(Reason::HoldsTarget { zone: number }),
        }
    }
}

impl Allowed {
    fn and(self, other: Self) -> Self {
        let rank = |reason: Option<Reason>| match reason {
            None | Some(Reason::Unlimited) => 0,
            Some(Reason::HoldsTarget { .. }) => 1,
            Some(Reason::Blind { .. }) => 2,
            Some(Reason::NearCritical { .. }) => 3,
        };
        Self {
            cpu: self.cpu.min(other.cpu),
            gpu: self.gpu.min(other.gpu),
            reason: if rank(other.reason) > rank(self.reason) {
                other.reason
            } else {
                self.reason
            },
        }
    }
}

/// A share between 0 and 1; what is no number is all.
fn share(value: f64) -> f64 {
    if value.is_nan() {
        1.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

/// The nearest whole number.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the type's range before"
)]
fn whole(value: f64) -> u32 {
    value.round().clamp(0.0, f64::from(u32::MAX)) as u32
}
