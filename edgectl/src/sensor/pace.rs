//! When the next request may begin: a steady rate, and the end of the run. Time is a [`Duration`] since its start.

use std::time::Duration;

/// When a run begins no more requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After this many requests.
    Count(u64),
    /// After this long.
    After(Duration),
}

/// Admits requests at a rate until the end.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    next: Duration,
    begun: u64,
    end: End,
}

/// How far a sensor that was held up may catch up at once.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

impl Pace {
    /// Requests at `rate_per_s`, or as fast as they are answered, until `end`.
    #[must_use]
    pub fn new(rate_per_s: Option<f64>, end: End) -> Self {
        let interval = rate_per_s
            .and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok())
            .unwrap_or(Duration::ZERO);
        Self {
            interval,
            next: Duration::ZERO,
            begun: 0,
            end,
        }
    }

    /// Whether no more requests begin.
    #[must_use]
    pub fn is_over(&self, now: Duration) -> bool {
        match self.end {
            End::Count(count) => self.begun >= count,
            End::After(end) => now >= end,
        }
    }

    /// When to ask [`Pace::admit`] again.
    #[must_use]
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Admits the next request and returns its number from 0, or `None` when it is not yet or no longer time.
    pub fn admit(&mut self, now: Duration) -> Option<u64> {
        if self.is_over(now) || now < self.next {
            return None;
        }
        let number = self.begun;
        self.begun += 1;
        // Timers are late by up to a millisecond: the next request is due by the plan, not by when this one left.
        self.next = (self.next + self.interval).max(now.saturating_sub(CATCH_UP_MAX));
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Requests admitted when asked each millisecond of `times`.
    fn admitted(pace: &mut Pace, times: std::ops::Range<u64>) -> u64 {
        let mut count = 0;
        for now in times {
            while pace.admit(ms(now)).is_some() {
                count += 1;
            }
        }
        count
    }

    #[test]
    fn without_a_rate_the_count_is_the_only_limit() {
        let mut pace = Pace::new(None, End::Count(1_000));
        assert_eq!(admitted(&mut pace, 0..1), 1_000);
        assert!(pace.is_over(ms(0)));
    }

    #[test]
    fn a_rate_holds_though_timers_are_coarse() {
        // 3 a millisecond.
        let mut pace = Pace::new(Some(3_000.0), End::After(ms(100)));
        let count = admitted(&mut pace, 0..200);
        assert!((295..=301).contains(&count), "{count}");
        assert!(pace.is_over(ms(100)));
    }

    #[test]
    fn a_long_stop_is_not_caught_up_in_one_burst() {
        let mut pace = Pace::new(Some(10.0), End::Count(u64::MAX));
        assert_eq!(admitted(&mut pace, 0..1), 1);
        let burst = admitted(&mut pace, 60_000..60_001);
        assert!((10..=12).contains(&burst), "{burst}");
    }
}
