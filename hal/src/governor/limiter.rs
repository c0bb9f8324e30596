//! Which share of the work keeps one zone at its target: a controller with a proportional part on the temperature
//! that is coming and an integral part that learns what the board can shed today.
//!
//! Gains follow Skogestad's rule for a process whose first response is a slope of 0.8 K/s at full work (7 W into
//! 9 J/K) and whose delays add up to 12 s (sensor 5 s, tracker 4 s, half a dwell); they are stable up to 2 K/s.

use super::tracker::State;

/// How far ahead it looks, in seconds: less than the time constant of any zone, so that a zone which settles below
/// its target is never throttled.
const LEAD_S: f64 = 8.0;
/// Share of the work per kelvin.
const PER_KELVIN: f64 = 0.04;
/// Time in which the integral part does what the proportional one does at once, in seconds.
const INTEGRAL_S: f64 = 50.0;
/// Fastest growth of what is believed possible, a second: a cool minute without work is no proof.
const MAX_GROWTH_PER_S: f64 = 0.01;
/// How far below the target it aims, in kelvins: half of what noise and dithering make of it.
const BIAS_KELVIN: f64 = 0.7;

/// The limiter of one zone.
#[derive(Debug, Clone)]
pub(super) struct Limiter {
    aim_celsius: f64,
    /// Share that would hold the zone now, -1 to 1; below 0, what heats it is at nothing and the rest is cut.
    learnt: f64,
}

impl Limiter {
    pub(super) fn new(target_celsius: f64) -> Self {
        Self {
            aim_celsius: target_celsius - BIAS_KELVIN,
            learnt: 1.0,
        }
    }

    /// Forgets what it learnt and begins with `share`.
    pub(super) fn restart(&mut self, share: f64) {
        self.learnt = share;
    }

    /// The share that is allowed, -1 to 1.
    pub(super) fn step(&mut self, seconds: f64, state: State) -> f64 {
        let growth = (self.aim_celsius - state.celsius) * PER_KELVIN / INTEGRAL_S;
        self.learnt = (self.learnt + growth.min(MAX_GROWTH_PER_S) * seconds).clamp(-1.0, 1.0);
        let room = self.aim_celsius - state.celsius_in(LEAD_S);
        (self.learnt + PER_KELVIN * room).clamp(-1.0, 1.0)
    }
}
