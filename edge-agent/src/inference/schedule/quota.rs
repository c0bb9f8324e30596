//! A token bucket, kept as the one time at which it will be full (the generic cell rate algorithm of ITU-T I.371).

use std::time::{Duration, Instant};

/// What one client may send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// Time in which one more request is earned.
    pub interval: Duration,
    /// Requests that may come at once after a pause; at least 1.
    pub burst: u32,
}

/// What is left of a client's quota.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub(super) const fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// Takes one request out of the quota.
    ///
    /// # Errors
    /// The time until there is one.
    pub(super) fn take(&mut self, quota: Quota, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + quota.interval;
        let capacity = quota.interval * quota.burst.max(1);
        let wait = full_at.saturating_duration_since(now + capacity);
        if wait.is_zero() {
            self.full_at = full_at;
            Ok(())
        } else {
            Err(wait)
        }
    }

    /// Puts one back that was not used.
    pub(super) fn give_back(&mut self, quota: Quota) {
        if let Some(earlier) = self.full_at.checked_sub(quota.interval) {
            self.full_at = earlier;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUOTA: Quota = Quota {
        interval: Duration::from_millis(100),
        burst: 3,
    };

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        for _ in 0..3 {
            assert_eq!(bucket.take(QUOTA, start), Ok(()));
        }
        assert_eq!(bucket.take(QUOTA, start), Err(QUOTA.interval));
        let later = start + Duration::from_millis(70);
        let wait = bucket.take(QUOTA, later).unwrap_err();
        assert_eq!(wait, Duration::from_millis(30));
        assert_eq!(
            bucket.take(QUOTA, later + wait),
            Ok(()),
            "the wait is what it takes"
        );
        bucket.give_back(QUOTA);
        assert_eq!(bucket.take(QUOTA, later + wait), Ok(()));
        assert!(bucket.is_full(start + Duration::from_secs(1)));
    }

    proptest! {
        /// In any stretch of time no more gets through than the burst and what the stretch earns.
        #[test]
        fn never_more_than_promised(gaps in prop::collection::vec(0_u64..200, 1..200), burst in 1_u32..8) {
            let quota = Quota { burst, ..QUOTA };
            let start = Instant::now();
            let mut bucket = Bucket::full(start);
            let (mut now, mut taken) = (start, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if bucket.take(quota, now).is_ok() {
                    taken.push(now);
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let earned = (*to - *from).as_millis() / quota.interval.as_millis();
                    prop_assert!((last - first) as u128 <= u128::from(burst) + earned);
                }
            }
        }
    }
}
