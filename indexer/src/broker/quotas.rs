//! What is left of the quotas of those who have one.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use edge_identity::key::KeyFingerprint;
use edge_identity::limits::Quota;

/// The buckets of all keys with a quota. There are no more of them than keys that were enrolled with one.
#[derive(Debug)]
pub(super) struct Quotas {
    since: Instant,
    buckets: Mutex<HashMap<KeyFingerprint, Quota>>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            buckets: Mutex::default(),
        }
    }
}

impl Quotas {
    /// Takes a publish out of the quota of `key`; false when there is none left.
    pub(super) fn take(&self, key: KeyFingerprint, per_minute: NonZeroU32) -> bool {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets
            .entry(key)
            .or_insert_with(|| Quota::full(per_minute, now_ms))
            .take(per_minute, now_ms)
    }
}
