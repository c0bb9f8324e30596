//! A share as a whole number of things at a time: between two numbers it goes to and fro slowly, so that the mean is
//! right and the switches are few.

/// Shortest time between two changes, in seconds: at most 6 a minute.
const DWELL_S: f64 = 10.0;
/// Debt at which it goes to the other number, in units times seconds.
const BAND: f64 = 1.5;
/// Debt beyond which the past no longer counts, in units times seconds.
const MAX_DEBT: f64 = 10.0;

/// A number that follows a share.
#[derive(Debug, Clone, Default)]
pub(super) struct Dither {
    /// `None` before the first step.
    level: Option<u16>,
    /// What the number so far fell short of the share, in units times seconds.
    debt: f64,
    since_change_s: f64,
}

impl Dither {
    /// The number from now on, at most `most`, for a share of `most`. Cut, it is 0 at once; else it changes only when
    /// the dwell is over, or because `most` fell.
    pub(super) fn step(&mut self, seconds: f64, share: f64, most: u16, is_cut: bool) -> u16 {
        let wanted = share.clamp(0.0, 1.0) * f64::from(most);
        self.since_change_s += seconds;
        let Some(level) = self.level else {
            let level = if is_cut { 0 } else { whole(wanted) };
            self.level = Some(level);
            return level;
        };
        let was = f64::from(level);
        self.debt = (self.debt + (wanted - was) * seconds).clamp(-MAX_DEBT, MAX_DEBT);
        let next = if is_cut {
            self.debt = 0.0;
            0
        } else if self.since_change_s < DWELL_S {
            level
        } else if was < wanted.floor() || was > wanted.ceil() {
            self.debt = 0.0;
            whole(wanted.round())
        } else if was < wanted && self.debt >= BAND {
            whole(wanted.ceil())
        } else if was > wanted && self.debt <= -BAND {
            whole(wanted.floor())
        } else {
            level
        };
        if next != level {
            self.since_change_s = 0.0;
            self.level = Some(next);
        }
        next.min(most)
    }
}

/// The whole number below.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the type's range before"
)]
fn whole(value: f64) -> u16 {
    value.clamp(0.0, f64::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_the_share_and_the_switches_are_few() {
        for most in [1_u16, 2, 5, 8, 20] {
            for percent in 0..=100_u16 {
                let share = f64::from(percent) / 100.0;
                let mut dither = Dither::default();
                let (mut sum, mut switches, mut last) = (0.0, 0, None);
                for _ in 0..6_000 {
                    let level = dither.step(1.0, share, most, false);
                    sum += f64::from(level);
                    switches += u32::from(last.is_some_and(|last| last != level));
                    last = Some(level);
                }
                let mean = sum / 6_000.0;
                let wanted = share * f64::from(most);
                assert!((mean - wanted).abs() < 0.02, "{mean} for {wanted}");
                assert!(switches <= 600, "{switches} in 100 minutes");
            }
        }
    }

    #[test]
    fn a_cut_does_not_wait_and_its_end_does() {
        let mut dither = Dither::default();
        assert_eq!(dither.step(1.0, 1.0, 8, false), 8);
        assert_eq!(dither.step(1.0, 0.0, 8, true), 0);
        for _ in 0..9 {
            assert_eq!(dither.step(1.0, 1.0, 8, false), 0);
        }
        assert_eq!(dither.step(1.0, 1.0, 8, false), 8);
    }
}
