//! What a zone does, from readings that are noisy, coarse, late and sometimes missing, and from the work that heated
//! it: an extended Kalman filter over the model that the limiter steers by. In kelvins above the target and seconds:
//!
//! ```text
//! sensor:  ds/dt = (T - s) / lag
//! zone:    dT/dt = heating * work + drift - decay * T
//! ```
//!
//! `heating` is how fast all work together warms the zone, `decay` how fast a difference to its surroundings dies
//! away, and `drift` what everything else does to it at the target: the case and the air, the rest of the board, and
//! what the model has wrong. All three are estimated too. Since the work is known, the filter's own variances say how
//! far they can be told from each other: heating is learnt where the work changes, decay where the temperature does,
//! drift all the time.

/// Time constant with which a sensor follows its zone, in seconds. One that is faster makes the zone look ahead of
/// itself, so work is cut a little early.
const SENSOR_LAG_S: f64 = 5.0;
/// Longest step of the model, in seconds.
const STEP_S: f64 = 0.5;
/// Variance of a reading: even noise of 1 K and steps of 1 K.
const READING_VARIANCE: f64 = 0.45;
/// Heating before anything is known, in kelvins a second. Less than most boards have: who believes in more than there
/// is cuts too little on the first way to the target.
const HEATING: f64 = 0.4;
/// Heating that is believed.
const HEATING_RANGE: (f64, f64) = (0.1, 3.0);
/// Decay before anything is known, a second: most zones have 20 to 60 s against their case.
const DECAY: f64 = 1.0 / 30.0;
/// Decay that is believed.
const DECAY_RANGE: (f64, f64) = (0.01, 0.1);

/// What is estimated: sensor, zone, drift, heating, decay.
const N: usize = 5;
const SENSOR: usize = 0;
const HEATS: usize = 3;
const DECAYS: usize = 4;
/// Variances at the first reading, in that order.
const FIRST: [f64; N] = [READING_VARIANCE, 1.0, 0.01, 0.09, 1e-4];
/// Their growth a second: how fast each may change by itself. What cannot be seen for hours, as heating without work,
/// goes back to what was expected, and its variance to the first.
const GROWTH: [f64; N] = [1e-3, 1e-3, 1e-4, 1e-5, 1e-7];

/// What is believed of a zone. Temperatures are in kelvins above the target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct State {
    /// Temperature.
    pub(super) kelvin: f64,
    /// Its trend under the work of now, in kelvins a second.
    pub(super) kelvin_per_s: f64,
    work: f64,
    heating: f64,
}

impl State {
    /// Where the temperature is in so many seconds, if the trend holds.
    pub(super) fn kelvin_in(self, seconds: f64) -> f64 {
        self.kelvin + seconds * self.kelvin_per_s
    }

    /// The share of the work under which the temperature changes by `kelvin_per_s` now; it may be below 0 or above 1.
    pub(super) fn work_for(self, kelvin_per_s: f64) -> f64 {
        self.work + (kelvin_per_s - self.kelvin_per_s) / self.heating
    }
}

/// Follows one zone.
#[derive(Debug, Clone, Default)]
pub(super) struct Estimator {
    belief: Option<Belief>,
    /// What was believed when the sensor went silent: what heats the zone and how it cools is still true.
    before: Option<Belief>,
    silent_s: f64,
    work: f64,
}

#[derive(Debug, Clone)]
struct Belief {
    mean: [f64; N],
    variance: [[f64; N]; N],
}

impl Estimator {
    /// Lets `seconds` pass under `work`, the share of all work that was done in them, and takes a reading in kelvins
    /// above the target, or that there is none.
    pub(super) fn step(&mut self, seconds: f64, work: f64, reading: Option<f64>) {
        self.work = work;
        if let Some(belief) = &mut self.belief {
            belief.pass(seconds, work);
        }
        let Some(reading) = reading else {
            self.silent_s += seconds;
            if self.silent_s >= super::BLIND_AFTER_S {
                self.before = self.belief.take().or(self.before.take());
            }
            return;
        };
        self.silent_s = 0.0;
        match &mut self.belief {
            Some(belief) => belief.take(reading),
            None => self.belief = Some(Belief::at(reading, work, self.before.as_ref())),
        }
    }

    /// What is believed; `None` when nothing was read for too long, or ever.
    pub(super) fn state(&self) -> Option<State> {
        let belief = self.belief.as_ref()?;
        let [_, kelvin, _, heating, _] = belief.mean;
        Some(State {
            kelvin,
            kelvin_per_s: belief.trend(self.work),
            work: self.work,
            heating,
        })
    }
}

#[allow(
    clippy::indexing_slicing,
    reason = "all places run over the arrays' own length"
)]
impl Belief {
    /// A zone that is read for the first time, or again: at rest under this work.
    fn at(reading: f64, work: f64, known: Option<&Self>) -> Self {
        let [.., heating, decay] =
            known.map_or([0.0, 0.0, 0.0, HEATING, DECAY], |known| known.mean);
        let mut variance = [[0.0; N]; N];
        for (place, first) in FIRST.iter().enumerate() {
            variance[place][place] = *first;
        }
        if let Some(known) = known {
            for place in [HEATS, DECAYS] {
                variance[place][place] = known.variance[place][place];
            }
        }
        let drift = reading * decay - heating * work;
        Self {
            mean: [reading, reading, drift, heating, decay],
            variance,
        }
    }

    /// Trend of the zone, in kelvins a second.
    fn trend(&self, work: f64) -> f64 {
        let [_, kelvin, drift, heating, decay] = self.mean;
        heating * work + drift - decay * kelvin
    }

    fn pass(&mut self, seconds: f64, work: f64) {
        let steps = (seconds / STEP_S).ceil();
        let step_s = seconds / steps.max(1.0);
        let mut left = steps;
        while left > 0.5 {
            self.step(step_s, work);
            left -= 1.0;
        }
    }

    /// The model's step; the variances follow its slopes.
    fn step(&mut self, step_s: f64, work: f64) {
        let [sensor, zone, drift, heating, decay] = self.mean;
        let lag = step_s / SENSOR_LAG_S;
        let back = |place: usize| step_s * GROWTH[place] / (2.0 * FIRST[place]);
        let (heats_back, decays_back) = (back(HEATS), back(DECAYS));
        self.mean = [
            sensor + lag * (zone - sensor),
            zone + step_s * self.trend(work),
            drift,
            heating + heats_back * (HEATING - heating),
            decay + decays_back * (DECAY - decay),
        ];
        let slope = |[s, z, d, h, c]: [f64; N]| {
            [
                s + lag * (z - s),
                z + step_s * (work * h + d - decay * z - zone * c),
                d,
                h - heats_back * h,
                c - decays_back * c,
            ]
        };
        // slope * variance * slope'.
        self.variance = transposed(self.variance.map(slope)).map(slope);
        for (place, growth) in GROWTH.iter().enumerate() {
            self.variance[place][place] += growth * step_s;
        }
    }

    /// Takes a reading.
    fn take(&mut self, reading: f64) {
        let surprise = reading - self.mean[SENSOR];
        let seen = self.variance[SENSOR];
        let doubt = seen[SENSOR] + READING_VARIANCE;
        for place in 0..N {
            let gain = self.variance[place][SENSOR] / doubt;
            self.mean[place] += gain * surprise;
            for (value, seen) in self.variance[place].iter_mut().zip(seen) {
                *value -= gain * seen;
            }
        }
        let within = |value: f64, (least, most): (f64, f64)| value.clamp(least, most);
        self.mean[HEATS] = within(self.mean[HEATS], HEATING_RANGE);
        self.mean[DECAYS] = within(self.mean[DECAYS], DECAY_RANGE);
    }
}

#[allow(
    clippy::indexing_slicing,
    reason = "all places run over the arrays' own length"
)]
fn transposed(matrix: [[f64; N]; N]) -> [[f64; N]; N] {
    std::array::from_fn(|row| std::array::from_fn(|column| matrix[column][row]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// A zone without flaws in steps of `seconds`, its sensor 5 s behind, under work that comes and goes.
    fn follow(heating: f64, decay: f64, drift: f64, seconds: f64) -> (Estimator, f64) {
        let mut estimator = Estimator::default();
        let (mut zone, mut sensor) = (-40.0, -40.0);
        let mut time = 0.0;
        while time < 1_200.0 {
            let work = if time % 200.0 < 100.0 { 0.9 } else { 0.2 };
            let mut within = 0.0;
            while within < seconds {
                zone += 0.05 * (heating * work + drift - decay * zone);
                sensor += 0.05 * (zone - sensor) / SENSOR_LAG_S;
                within += 0.05;
            }
            time += seconds;
            estimator.step(seconds, work, Some(sensor));
        }
        (estimator, zone)
    }

    #[test]
    fn finds_temperature_heating_decay_and_drift_of_a_zone() {
        for (heating, decay, drift) in [
            (0.3, 0.015, -0.2),
            (0.8, 0.033, -0.5),
            (1.2, 0.05, -0.6),
            (0.5, 0.08, -0.4),
        ] {
            for seconds in [0.5, 1.0, 2.0] {
                let (estimator, zone) = follow(heating, decay, drift, seconds);
                let state = estimator.state().unwrap();
                let case = format!("{heating} {decay} {drift} each {seconds} s: {zone} {state:?}");
                assert!((state.kelvin - zone).abs() < 0.5, "{case}");
                assert!((state.heating / heating - 1.0).abs() < 0.25, "{case}");
                let hold = (decay * zone - drift) / heating;
                assert!((state.work_for(0.0) - hold).abs() < 0.08, "{hold} {case}");
            }
        }
    }

    #[test]
    fn days_without_work_teach_nothing_wrong() {
        let mut estimator = Estimator::default();
        for _ in 0..20_000 {
            estimator.step(5.0, 0.0, Some(-40.0));
        }
        let belief = estimator.belief.unwrap();
        assert!((belief.mean[HEATS] - HEATING).abs() < 0.01, "{belief:?}");
        for place in [HEATS, DECAYS] {
            let variance = belief.variance[place][place];
            assert!(
                variance > 0.0 && variance < 1.01 * FIRST[place],
                "{belief:?}"
            );
        }
    }

    #[test]
    fn forgets_after_ten_silent_seconds() {
        let mut estimator = Estimator::default();
        estimator.step(1.0, 0.0, Some(50.0));
        estimator.step(9.0, 0.0, None);
        assert!(estimator.state().is_some());
        estimator.step(1.0, 0.0, None);
        assert_eq!(estimator.state(), None);
    }
}
