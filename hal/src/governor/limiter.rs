//! Which share of the work keeps one zone at its target: the one under which the distance to the target dies away, by
//! what the estimator believes of the zone.

use super::estimator::State;

/// Time constant with which the distance to the target dies away, in seconds: three times the delays of a sensor
/// (5 s) and a step of the work, which an error of heating by half makes no less stable.
const APPROACH_S: f64 = 15.0;
/// How far below the target it aims, in kelvins.
const BIAS_KELVIN: f64 = 0.2;
/// Change of what is left of the other work, a second and kelvin. That warms the zone through the case, in minutes.
const OTHER_PER_KELVIN_S: f64 = 0.001_6;

/// The limiter of one zone.
#[derive(Debug, Clone)]
pub(super) struct Limiter {
    /// Share that is allowed of what does not heat the zone by itself.
    other: f64,
}

/// What a zone allows, as shares of all work: of what heats it, and of the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    pub(super) own: f64,
    pub(super) other: f64,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { other: 1.0 }
    }
}

impl Limiter {
    /// The shares that are allowed. The rest is cut only where what heats the zone is at nothing.
    pub(super) fn step(&mut self, seconds: f64, state: State) -> Shares {
        let room = -BIAS_KELVIN - state.kelvin;
        let own = state.work_for(room / APPROACH_S);
        if own < 0.0 || room > 0.0 {
            self.other = (self.other + room * OTHER_PER_KELVIN_S * seconds).clamp(0.0, 1.0);
        }
        Shares {
            own: own.clamp(0.0, 1.0),
            other: self.other,
        }
    }
}
