//! The fan's speed: along the curve of the board file by the temperature that is coming, at full speed while work is
//! limited, and an eye on whether it turns at all.

use crate::board::{FanConfig, FanPoint};

/// How far ahead the fan looks, in seconds: cooling the case takes minutes, so it helps early.
pub(super) const LEAD_S: f64 = 15.0;
/// Steps of the speed, in points: less is not heard as a change.
const STEP_PERCENT: f64 = 5.0;
/// Fastest fall of the speed, in points a second.
const FALL_PER_S: f64 = 1.0;
/// How long a fan may stand still after it was told to turn, in seconds.
const STUCK_AFTER_S: f64 = 10.0;
/// Turns a minute below which a fan stands still.
const STANDING_RPM: u32 = 100;
/// A fan that turns slower than this part of what it once did at that speed is stuck as well.
const SLOW_PART: f64 = 0.25;

/// The rule of one fan.
#[derive(Debug, Clone)]
pub(super) struct FanRule {
    curve: Vec<FanPoint>,
    min_percent: f64,
    percent: f64,
    /// What it was last told.
    told: u8,
    /// Turns a minute at full speed, as far as they were ever seen.
    best_rpm: f64,
    standing_s: f64,
}

impl FanRule {
    /// The rule of this fan; without a fan, always 0.
    pub(super) fn new(config: Option<&FanConfig>) -> Self {
        Self {
            curve: config.map_or_else(Vec::new, |fan| fan.curve.clone()),
            min_percent: config.map_or(0.0, |fan| f64::from(fan.min_percent.min(100))),
            percent: 0.0,
            told: 0,
            best_rpm: 0.0,
            standing_s: 0.0,
        }
    }

    /// The speed from now on. `celsius` is the hottest governed zone's temperature in [`LEAD_S`].
    pub(super) fn step(
        &mut self,
        seconds: f64,
        celsius: f64,
        is_limited: bool,
        rpm: Option<u32>,
    ) -> u8 {
        if self.curve.is_empty() {
            return 0;
        }
        self.watch(seconds, rpm);
        let wanted = if is_limited || self.is_stuck() {
            100.0
        } else {
            self.on_curve(celsius)
        };
        self.percent = wanted.max(self.percent - FALL_PER_S * seconds);
        let told = f64::from(self.told);
        let rounded = (self.percent / STEP_PERCENT).ceil() * STEP_PERCENT;
        // Falling needs a whole step, so that noise on the edge of one does not show.
        if rounded > told || self.percent <= told - 2.0 * STEP_PERCENT || rounded <= 0.0 {
            let speed = if rounded <= 0.0 {
                0.0
            } else {
                rounded.clamp(self.min_percent, 100.0)
            };
            self.told = percent(speed);
        }
        self.told
    }

    /// Whether it is told to turn and does not.
    pub(super) fn is_stuck(&self) -> bool {
        self.standing_s >= STUCK_AFTER_S
    }

    fn watch(&mut self, seconds: f64, rpm: Option<u32>) {
        let told = f64::from(self.told);
        let Some(rpm) = rpm.filter(|_| self.told > 0 && told >= self.min_percent) else {
            return;
        };
        let turns = f64::from(rpm);
        let is_standing = rpm < STANDING_RPM || turns < SLOW_PART * self.best_rpm * told / 100.0;
        if is_standing {
            self.standing_s += seconds;
        } else {
            self.standing_s = 0.0;
            if self.told == 100 {
                self.best_rpm = self.best_rpm.max(turns);
            }
        }
    }

    fn on_curve(&self, celsius: f64) -> f64 {
        let at = |point: &FanPoint| {
            (
                f64::from(point.millicelsius) / 1_000.0,
                f64::from(point.percent.min(100)),
            )
        };
        let mut below = None;
        for point in &self.curve {
            let (x, y) = at(point);
            if celsius < x {
                return match below {
                    None => y,
                    Some((x0, y0)) => y0 + (y - y0) * (celsius - x0) / (x - x0),
                };
            }
            below = Some((x, y));
        }
        below.map_or(0.0, |(_, y)| y)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the type's range before"
)]
fn percent(value: f64) -> u8 {
    value.clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> FanRule {
        let point = |millicelsius, percent| FanPoint {
            millicelsius,
            percent,
        };
        FanRule::new(Some(&FanConfig {
            source: crate::board::FanSource::Simulated { max_rpm: 5_000 },
            curve: vec![point(45_000, 0), point(55_000, 30), point(75_000, 100)],
            min_percent: 20,
        }))
    }

    #[test]
    fn follows_the_curve_up_at_once_and_down_slowly() {
        let mut fan = rule();
        for (celsius, expected) in [(20.0, 0), (46.0, 20), (55.0, 30), (65.0, 65), (90.0, 100)] {
            assert_eq!(fan.step(1.0, celsius, false, None), expected, "{celsius}");
        }
        assert_eq!(fan.step(1.0, 20.0, false, None), 100);
        assert_eq!(fan.step(50.0, 20.0, false, None), 50);
        assert_eq!(fan.step(100.0, 20.0, false, None), 0);
    }

    #[test]
    fn a_fan_that_stands_still_is_stuck_until_it_turns() {
        let mut fan = rule();
        assert_eq!(fan.step(1.0, 60.0, false, Some(0)), 50);
        for _ in 0..10 {
            assert!(!fan.is_stuck());
            fan.step(1.0, 60.0, false, Some(0));
        }
        assert!(fan.is_stuck());
        assert_eq!(fan.step(1.0, 60.0, false, Some(0)), 100);
        fan.step(1.0, 60.0, false, Some(2_000));
        assert!(!fan.is_stuck());
    }
}
