//! How the store is: for the API, the metrics and the health check.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use utoipa::ToSchema;

/// State of the store. Counts are since the indexer started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct StoreView {
    /// Why it cannot write, if it cannot.
    pub failing: Option<String>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that it may have.
    pub limit_bytes: u64,
    /// Messages whose metrics are in the history.
    pub samples_written: u64,
    /// Messages whose metrics are not in the history: the disk was too slow, full or broken, or all their names
    /// were refused.
    pub samples_dropped: u64,
    /// Values that are not in the history because their metric's name is new and the store has its fill of names.
    pub values_refused: u64,
    /// Boxes' records and events that were not written; a box's next record makes up for it.
    pub other_dropped: u64,
    /// Messages deleted from the history for their age or for room.
    pub samples_expired: u64,
    /// Time of the oldest message in the history, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}

/// What is counted outside the writer's thread too.
#[derive(Debug, Default)]
pub(super) struct Counters {
    samples_dropped: AtomicU64,
    other_dropped: AtomicU64,
}

impl Counters {
    pub(super) fn drop_samples(&self, count: usize) {
        self.samples_dropped
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn drop_other(&self, count: usize) {
        self.other_dropped
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn fill(&self, view: &mut StoreView) {
        view.samples_dropped = self.samples_dropped.load(Ordering::Relaxed);
        view.other_dropped = self.other_dropped.load(Ordering::Relaxed);
    }
}
