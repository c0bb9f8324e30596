//! A limit with a fraction as whole requests: two all the time and a third for a part of it, so that the mean is
//! right however short or long requests are. Pure: it is told how time passes.
//!
//! The fraction saves request-seconds while the last request does not run and spends them while it does. A request
//! cannot be interrupted: one that runs for longer than was saved leaves a debt, and the next waits for it.

use std::time::Duration;

/// What is saved before the last request may begin, in request-seconds: where half of one is allowed, short requests
/// go through for a fifth of a second and wait for as long.
const SLICE: f64 = 0.1;
/// Most that is saved, in request-seconds: whoever looks late loses nothing, and after a pause no more than half a
/// second of one request is made up for.
const MAX_SAVED: f64 = 0.5;
/// Debt beyond which the past no longer counts, in request-seconds.
const MAX_DEBT: f64 = 30.0;

/// How many requests may run at once.
#[derive(Debug, Clone)]
pub struct Duty {
    whole: u32,
    fraction: f64,
    /// What the fraction has saved, in request-seconds.
    saved: f64,
    /// Whether one more than the whole ones may begin.
    is_open: bool,
}

impl Duty {
    /// No limit.
    pub const UNLIMITED: u32 = u32::MAX;

    /// A limit in thousandths of a request.
    #[must_use]
    pub fn new(limit_milli: u32) -> Self {
        let mut duty = Self {
            whole: 0,
            fraction: 0.0,
            saved: SLICE,
            is_open: true,
        };
        duty.set(limit_milli);
        duty
    }

    /// Sets the limit, in thousandths of a request, and says whether it is another. What was saved or owed stays.
    pub fn set(&mut self, limit_milli: u32) -> bool {
        let before = (self.whole, self.fraction);
        self.whole = limit_milli / 1_000;
        self.fraction = f64::from(limit_milli % 1_000) / 1_000.0;
        before != (self.whole, self.fraction)
    }

    /// Lets time pass in which so many requests ran.
    pub fn pass(&mut self, elapsed: Duration, running: u32) {
        let spent = if running > self.whole { 1.0 } else { 0.0 };
        let saved = self.saved + (self.fraction - spent) * elapsed.as_secs_f64();
        self.saved = saved.clamp(-MAX_DEBT, MAX_SAVED);
        if self.saved >= SLICE {
            self.is_open = true;
        } else if self.saved <= 0.0 {
            self.is_open = false;
        }
    }

    /// Whether one more may begin while so many run.
    #[must_use]
    pub fn may_begin(&self, running: u32) -> bool {
        running < self.whole || (running == self.whole && self.fraction > 0.0 && self.is_open)
    }

    /// When one more may begin though none of those that run ends; `None` where only an end or another limit helps.
    #[must_use]
    pub fn opens_in(&self, running: u32) -> Option<Duration> {
        let is_closed = running == self.whole && self.fraction > 0.0 && !self.is_open;
        // A microsecond more, so that rounding does not wake anybody in vain.
        is_closed.then(|| {
            let seconds = (SLICE - self.saved).max(0.0) / self.fraction;
            Duration::from_secs_f64(seconds) + Duration::from_micros(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean concurrency and the most at once, over ten minutes of requests that each take so long.
    fn run(limit_milli: u32, request: Duration) -> (f64, u32) {
        let tick = Duration::from_millis(10);
        let mut duty = Duty::new(limit_milli);
        let mut running: Vec<Duration> = Vec::new();
        let (mut sum, mut most) = (0_u32, 0);
        for _ in 0..60_000 {
            let mut count = u32::try_from(running.len()).unwrap_or(u32::MAX);
            while duty.may_begin(count) {
                running.push(request);
                count += 1;
            }
            duty.pass(tick, count);
            sum += count;
            most = most.max(count);
            for left in &mut running {
                *left = left.saturating_sub(tick);
            }
            running.retain(|left| !left.is_zero());
        }
        (f64::from(sum) / 60_000.0, most)
    }

    #[test]
    fn the_mean_is_the_limit_for_short_and_for_long_requests() {
        for limit_milli in [0, 50, 300, 500, 999, 1_000, 1_001, 2_400, 7_950] {
            for request_ms in [10, 90, 1_000, 5_000] {
                let (mean, most) = run(limit_milli, Duration::from_millis(request_ms));
                let limit = f64::from(limit_milli) / 1_000.0;
                // The last debt is open.
                let tolerance =
                    0.003 + f64::from(u32::try_from(request_ms).unwrap_or(0)) / 600_000.0;
                let case = format!("{limit} with {request_ms} ms: {mean}, at most {most}");
                assert!((mean - limit).abs() < tolerance, "{case}");
                assert!(most <= limit_milli.div_ceil(1_000), "{case}");
            }
        }
    }

    #[test]
    fn it_says_when_it_opens() {
        let mut duty = Duty::new(1_250);
        assert!(duty.may_begin(0) && duty.may_begin(1));
        assert!(!duty.may_begin(2));
        duty.pass(Duration::from_millis(400), 2);
        assert!(duty.may_begin(0) && !duty.may_begin(1));
        assert_eq!(duty.opens_in(0), None);
        assert_eq!(duty.opens_in(2), None);
        // 0.1 less 0.75 * 0.4 saved, 0.25 a second.
        let opens_in = duty.opens_in(1).unwrap_or_default();
        assert!((opens_in.as_secs_f64() - 1.2).abs() < 1e-3, "{opens_in:?}");
        duty.pass(opens_in, 1);
        assert!(duty.may_begin(1));
        duty.set(0);
        assert!(!duty.may_begin(0));
        assert_eq!(duty.opens_in(0), None);
        duty.set(Duty::UNLIMITED);
        assert!(duty.may_begin(1_000));
    }
}
