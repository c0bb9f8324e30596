//! What runs of a model have taken, and what that says of the next one.

use std::time::{Duration, Instant};

/// Runs after which the fastest is believed.
const RUNS_MIN: u32 = 16;
/// Time after the last run in which the fastest is believed. Afterwards one request runs whatever is expected of it,
/// so that a wrong belief does not last.
const BELIEVED_FOR: Duration = Duration::from_secs(10);

/// What runs have taken.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    /// Moving mean of the time that a row takes in its run, in nanoseconds.
    row_ns: u64,
    /// Moving mean of a run, in nanoseconds.
    run_ns: u64,
    fastest: Option<Duration>,
    runs: u32,
    last: Option<Instant>,
}

impl Estimate {
    /// A run of so many rows has taken this long.
    pub(super) fn ran(&mut self, rows: usize, took: Duration, now: Instant) {
        let run_ns = nanoseconds(took);
        let row_ns = run_ns / (rows as u64).max(1);
        self.row_ns = mean(self.row_ns, row_ns, self.runs);
        self.run_ns = mean(self.run_ns, run_ns, self.runs);
        self.fastest = Some(self.fastest.map_or(took, |fastest| fastest.min(took)));
        self.runs = self.runs.saturating_add(1);
        self.last = Some(now);
    }

    /// What `rows` are expected to cost, in nanoseconds; at least 1.
    pub(super) fn cost_ns(&self, rows: usize) -> u64 {
        self.row_ns.saturating_mul(rows as u64).max(1)
    }

    /// What a run is expected to take.
    pub(super) const fn run(&self) -> Duration {
        Duration::from_nanos(self.run_ns)
    }

    /// What a run takes at least: half of what the fastest took. Nothing while too little is known.
    pub(super) fn at_least(&self, now: Instant) -> Duration {
        let is_recent = self.last.is_some_and(|last| now < last + BELIEVED_FOR);
        match self.fastest {
            Some(fastest) if is_recent && self.runs >= RUNS_MIN => fastest / 2,
            _ => Duration::ZERO,
        }
    }
}

/// The first value, then a mean that forgets half of the past in about five values.
const fn mean(old: u64, new: u64, count: u32) -> u64 {
    if count == 0 {
        return new;
    }
    old - old / 8 + new / 8
}

/// Whole nanoseconds; 584 years fit.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_is_believed_after_some_runs_and_for_some_time() {
        let (mut estimate, now) = (Estimate::default(), Instant::now());
        for run in 0..RUNS_MIN {
            assert_eq!(estimate.at_least(now), Duration::ZERO, "after {run} runs");
            estimate.ran(1, Duration::from_millis(20 + u64::from(run)), now);
        }
        assert_eq!(estimate.at_least(now), Duration::from_millis(10));
        assert_eq!(estimate.at_least(now + BELIEVED_FOR), Duration::ZERO);
    }

    #[test]
    fn costs_follow_what_runs_take() {
        let (mut estimate, now) = (Estimate::default(), Instant::now());
        assert_eq!(estimate.cost_ns(4), 1);
        for _ in 0..100 {
            estimate.ran(8, Duration::from_micros(80), now);
        }
        let cost = estimate.cost_ns(4);
        assert!((39_000..=40_000).contains(&cost), "{cost}");
    }
}
