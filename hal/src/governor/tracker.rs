//! Temperature and trend of a zone from readings that are noisy, coarse and sometimes missing: an alpha-beta filter,
//! critically damped (Benedict and Bordner's form for fading memory: `alpha = 1 - f^2`, `beta = (1 - f)^2`).

/// Memory of the filter, in seconds: noise of 1 K becomes a trend of less than 0.1 K/s.
const MEMORY_S: f64 = 4.0;

/// What is believed of a zone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct State {
    /// Temperature, in degrees Celsius.
    pub(super) celsius: f64,
    /// Its trend, in kelvins a second.
    pub(super) kelvin_per_s: f64,
}

impl State {
    /// Where the temperature is in so many seconds, if the trend holds.
    pub(super) fn celsius_in(self, seconds: f64) -> f64 {
        self.celsius + seconds * self.kelvin_per_s
    }
}

/// Follows one zone.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracker {
    state: Option<State>,
    silent_s: f64,
}

impl Tracker {
    /// Takes a reading, or that there is none.
    pub(super) fn step(&mut self, seconds: f64, celsius: Option<f64>) {
        let Some(celsius) = celsius else {
            self.silent_s += seconds;
            if self.silent_s >= super::BLIND_AFTER_S {
                self.state = None;
            }
            return;
        };
        // A trend over a gap says nothing of now.
        let seconds = seconds + std::mem::take(&mut self.silent_s);
        self.state = Some(match self.state {
            Some(state) if seconds <= 0.0 => state,
            Some(state) => {
                let fading = f64::exp(-seconds / MEMORY_S);
                let expected = state.celsius_in(seconds);
                let surprise = celsius - expected;
                State {
                    celsius: expected + (1.0 - fading * fading) * surprise,
                    kelvin_per_s: state.kelvin_per_s + (1.0 - fading).powi(2) * surprise / seconds,
                }
            }
            None => State {
                celsius,
                kelvin_per_s: 0.0,
            },
        });
    }

    /// What is believed; `None` when nothing was read for too long, or ever.
    pub(super) fn state(&self) -> Option<State> {
        self.state
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn finds_a_ramp_and_its_trend() {
        for seconds in [0.5, 1.0, 2.0, 5.0] {
            let mut tracker = Tracker::default();
            let mut time = 0.0;
            while time < 60.0 {
                time += seconds;
                tracker.step(seconds, Some(40.0 + 0.5 * time));
            }
            let state = tracker.state().unwrap();
            assert!(
                (state.celsius - (40.0 + 0.5 * time)).abs() < 0.1,
                "{state:?}"
            );
            assert!((state.kelvin_per_s - 0.5).abs() < 0.01, "{state:?}");
        }
    }

    #[test]
    fn forgets_after_ten_silent_seconds() {
        let mut tracker = Tracker::default();
        tracker.step(1.0, Some(50.0));
        tracker.step(9.0, None);
        assert!(tracker.state().is_some());
        tracker.step(1.0, None);
        assert_eq!(tracker.state(), None);
    }
}
