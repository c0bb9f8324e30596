//! The thermal governor: how much work the temperatures allow. Pure: what it is told in, what is to be done out; it
//! knows neither sensors nor clocks, and one call a second (up to one in five) is what it is made for.
//!
//! - [`tracker`]: temperature and trend from readings that are noisy, coarse and late
//! - [`limiter`]: which share of the work keeps one zone at its target
//! - [`dither`]: that share as a whole number of requests at a time, with few switches
//! - [`fan`]: the fan's speed, and whether it turns at all
//!
//! Rules:
//! - **Who is cut.** A zone cuts what heats it: the processor's zones cut inference, the GPU's cut rendering. Only
//!   when that is at nothing and the zone is still too hot, the other is cut too. Zones heated by the whole board cut
//!   both in the same proportion. Of several zones the strictest rules.
//! - **Near the critical trip point** both are cut to nothing at once, for at least [`EMERGENCY_S`].
//! - **Without a sensor** of a governed zone for [`BLIND_AFTER_S`], both get at most [`BLIND_SHARE`], one request at
//!   least, and the fan runs at full speed; the other zones go on ruling.
//! - **Switches are bounded**: concurrency and GPU duty change at most 6 times a minute each; near the critical trip
//!   point, where cutting does not wait, at most 8.

mod dither;
mod fan;
mod limiter;
mod tracker;

use std::time::Duration;

use self::{dither::Dither, fan::FanRule, limiter::Limiter, tracker::Tracker};
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
/// Steps of the GPU's duty, of 5 % each.
const DUTY_STEPS: u16 = 20;

/// What the governor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation<'a> {
    /// Temperatures of [`Governor::zones`] in that order, in thousandths of a degree Celsius; what is absent or
    /// implausible counts as not known.
    pub millicelsius: &'a [Option<i32>],
    /// Turns of the fan a minute; `None` where nobody counts them.
    pub fan_rpm: Option<u32>,
    /// Most requests that inference would run at the same time.
    pub inference_max_concurrency: u16,
    /// Whether there is anything to render.
    pub gpu_wanted: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Most requests that inference may run at the same time.
    pub inference_concurrency: u16,
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
    inference: Dither,
    gpu: Dither,
}

#[derive(Debug, Clone)]
struct Zone {
    name: String,
    heated_by: HeatedBy,
    target_celsius: f64,
    cut_celsius: f64,
    tracker: Tracker,
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
                cut_celsius: critical - margin,
                tracker: Tracker::default(),
                limiter: Limiter::new(target_celsius),
                emergency_s: 0.0,
                is_emergency: false,
            })
        });
        Self {
            zones: zones.collect(),
            fan: FanRule::new(board.fan.as_ref()),
            inference: Dither::default(),
            gpu: Dither::default(),
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
        let mut hottest = f64::MIN;
        for (number, zone) in self.zones.iter_mut().enumerate() {
            let millicelsius = observation.millicelsius.get(number).copied().flatten();
            let reading = millicelsius
                .filter(|value| PLAUSIBLE_MILLICELSIUS.contains(value))
                .map(|value| f64::from(value) / 1_000.0);
            zone.tracker.step(seconds, reading);
            allowed = allowed.and(zone.allow(number, seconds, reading));
            if let Some(state) = zone.tracker.state() {
                hottest = hottest.max(state.celsius_in(fan::LEAD_S));
            }
        }
        let is_cut = matches!(allowed.reason, Some(Reason::NearCritical { .. }));
        let is_blind = matches!(allowed.reason, Some(Reason::Blind { .. }));
        let most = observation.inference_max_concurrency;
        let least = u16::from(is_blind && most > 0);
        let is_limited = allowed.reason.is_some();
        Decision {
            inference_concurrency: self
                .inference
                .step(seconds, allowed.cpu, most, is_cut)
                .max(least),
            gpu_duty_percent: duty_percent(self.gpu.step(seconds, allowed.gpu, DUTY_STEPS, is_cut))
                * u8::from(observation.gpu_wanted),
            fan_percent: self
                .fan
                .step(seconds, hottest, is_limited, observation.fan_rpm),
            reason: allowed.reason.unwrap_or(Reason::Unlimited),
            is_fan_stuck: self.fan.is_stuck(),
        }
    }
}

impl Zone {
    fn allow(&mut self, number: usize, seconds: f64, reading: Option<f64>) -> Allowed {
        let Some(state) = self.tracker.state() else {
            self.limiter.restart(BLIND_SHARE);
            return Allowed {
                cpu: BLIND_SHARE,
                gpu: BLIND_SHARE,
                reason: Some(Reason::Blind { zone: number }),
            };
        };
        self.emergency_s -= seconds;
        // The reading itself counts too: here nothing waits for the tracker.
        let coming = state.celsius_in(EMERGENCY_LEAD_S);
        if coming.max(reading.unwrap_or(coming)) >= self.cut_celsius {
            self.is_emergency = true;
            self.emergency_s = EMERGENCY_S;
        } else if self.emergency_s <= 0.0 && state.celsius < self.target_celsius {
            self.is_emergency = false;
        }
        if self.is_emergency {
            // What was believed of the board led here.
            self.limiter.restart(0.0);
            return Allowed {
                cpu: 0.0,
                gpu: 0.0,
                reason: Some(Reason::NearCritical { zone: number }),
            };
        }
        let share = self.limiter.step(seconds, state);
        // Below 0, what heats the zone is at nothing and the other is cut.
        let (own, other) = (share.max(0.0), 1.0 + share.min(0.0));
        let (cpu, gpu) = match self.heated_by {
            HeatedBy::Cpu => (own, other),
            HeatedBy::Gpu => (other, own),
            HeatedBy::Board => (own, own),
        };
        Allowed {
            cpu,
            gpu,
            reason: (share < 1.0).then_some(Reason::HoldsTarget { zone: number }),
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

fn duty_percent(steps: u16) -> u8 {
    u8::try_from(steps * (100 / DUTY_STEPS)).unwrap_or(100)
}
