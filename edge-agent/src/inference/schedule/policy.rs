//! What a model's settings say about its queue.

use std::time::Duration;

use super::Quota;

/// How far a request of one priority level goes before one of the next: compute time between clients, time of arrival
/// within one. Longer than a run of most models on a box, shorter than people notice.
pub const HEAD_START: Duration = Duration::from_millis(100);

/// How requests of a model are queued and put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Requests that may wait.
    pub max_queue_size: usize,
    /// Rows that run together. A request that has more by itself runs alone.
    pub max_batch_size: usize,
    /// How long a request may wait for others to run with.
    pub max_queue_delay: Duration,
    /// Levels of priority, 1 the most urgent; 0 and 1 mean that all are equal.
    pub priority_levels: u32,
    /// Level of a request that names none, or one that there is not.
    pub default_priority_level: u32,
    /// What one client may send; none for all that it wants.
    pub quota: Option<Quota>,
    /// Whether a run takes about as long whatever the request, so that what earlier ones took says something.
    pub is_steady: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_queue_size: 128,
            max_batch_size: 1,
            max_queue_delay: Duration::ZERO,
            priority_levels: 0,
            default_priority_level: 1,
            quota: None,
            is_steady: false,
        }
    }
}

impl Policy {
    /// How far behind a request of the most urgent level one stands that names `level`.
    #[must_use]
    pub(super) fn behind(&self, level: Option<u32>) -> Duration {
        let levels = self.priority_levels.max(1);
        let level = level
            .filter(|level| (1..=levels).contains(level))
            .unwrap_or(self.default_priority_level.clamp(1, levels));
        HEAD_START * (level - 1)
    }
}
