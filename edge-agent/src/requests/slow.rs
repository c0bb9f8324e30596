//! The log of slow requests: one event each, with what every stage took, so many a second at most.

use std::time::{Duration, Instant};

use edge_protocol::Id;
use parking_lot::Mutex;
use tracing::warn;

use crate::outcome::Outcome;

/// Lines a second at most; the next one says how many were left out.
const LINES_PER_SECOND: u32 = 10;

/// Writes about requests that took longer than a threshold.
#[derive(Debug)]
pub(super) struct SlowLog {
    threshold: Duration,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl SlowLog {
    pub(super) fn new(threshold: Duration) -> Self {
        Self {
            threshold,
            lines: Mutex::new(Lines::since(Instant::now())),
        }
    }

    /// Writes a line if a request, which arrived then, was slow.
    pub(super) fn ended(&self, model: &Id, client: &Id, arrived: Instant, outcome: &Outcome) {
        let total = arrived.elapsed();
        if total <= self.threshold {
            return;
        }
        let Some(left_out) = self.lines.lock().next(Instant::now()) else {
            return;
        };
        let status = outcome.status.code();
        let total_us = total.as_micros();
        match &outcome.times {
            Some(times) => warn!(
                %model,
                %client,
                status,
                total_us,
                queue_us = times.queue.as_micros(),
                compute_input_us = times.input.as_micros(),
                compute_infer_us = times.infer.as_micros(),
                compute_output_us = times.output.as_micros(),
                left_out,
                "slow request"
            ),
            // It did not run, or not to its end.
            None => {
                let why = &outcome.message;
                warn!(%model, %client, status, total_us, why, left_out, "slow request");
            }
        }
    }
}

impl Lines {
    const fn since(since: Instant) -> Self {
        Self {
            since,
            written: 0,
            left_out: 0,
        }
    }

    /// Whether a line may be written now: how many were left out before it.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.written) = (now, 0);
        }
        if self.written == LINES_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_what_is_left_out_is_counted() {
        let now = Instant::now();
        let mut lines = Lines::since(now);
        let written = (0..25).filter_map(|_| lines.next(now)).count();
        assert_eq!(written, 10);
        let later = now + Duration::from_secs(1);
        assert_eq!(lines.next(later), Some(15));
        assert_eq!(lines.next(later), Some(0));
    }
}
