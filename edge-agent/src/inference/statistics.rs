//! What a model or a version of it has done: counters since the agent started, and medians since they were last asked
//! for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use edge_protocol::Status;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::stages::{Stage, Stages, Times};

/// What a model or a version of it has done.
pub struct Statistics {
    outcomes: [AtomicU64; Status::ALL.len()],
    inferences: AtomicU64,
    executions: AtomicU64,
    stages: Stages,
    interval: Mutex<Interval>,
    /// Of the model that this is a version of.
    whole: Option<Arc<Self>>,
}

struct Interval {
    queue_us: Histogram<u32>,
    compute_us: Histogram<u32>,
}

/// Longest time that the histograms tell apart, in microseconds: one minute.
const TIME_MAX_US: u64 = 60_000_000;

impl Statistics {
    /// Nothing done yet.
    #[must_use]
    #[allow(
        clippy::expect_used,
        reason = "the bounds are constants that the histogram accepts"
    )]
    pub fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, TIME_MAX_US, 2).expect("1 < TIME_MAX_US, 2 digits");
        Self {
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
            inferences: AtomicU64::new(0),
            executions: AtomicU64::new(0),
            stages: Stages::default(),
            interval: Mutex::new(Interval {
                queue_us: histogram(),
                compute_us: histogram(),
            }),
            whole: None,
        }
    }

    /// Nothing done yet by a version of a model; what it does counts for the model as well.
    #[must_use]
    pub fn of_version(whole: Arc<Self>) -> Self {
        Self {
            whole: Some(whole),
            ..Self::new()
        }
    }

    /// A request has ended.
    pub fn ended(&self, status: Status) {
        if let Some(index) = Status::ALL.iter().position(|other| *other == status)
            && let Some(count) = self.outcomes.get(index)
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(whole) = &self.whole {
            whole.ended(status);
        }
    }

    /// The model has run once, for so many rows.
    pub fn executed(&self, rows: usize) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        self.inferences.fetch_add(rows as u64, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.executed(rows);
        }
    }

    /// Rows that the model has run for since the start, and the runs that it took: Triton's `nv_inference_count` and
    /// `nv_inference_exec_count`. Their ratio is the mean batch.
    #[must_use]
    pub fn runs(&self) -> (u64, u64) {
        (
            self.inferences.load(Ordering::Relaxed),
            self.executions.load(Ordering::Relaxed),
        )
    }

    /// A request has run, by itself or with others.
    pub fn ran(&self, times: &Times) {
        self.stages.record(times);
        if let Some(whole) = &self.whole {
            whole.ran(times);
            return;
        }
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut interval = self.interval.lock();
        interval
            .queue_us
            .saturating_record(microseconds(times.queue).max(1));
        interval
            .compute_us
            .saturating_record(microseconds(times.infer).max(1));
    }

    /// How long requests took since the start.
    #[must_use]
    pub const fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Requests ended since the start, by status.
    pub fn outcomes(&self) -> impl Iterator<Item = (Status, u64)> {
        Status::ALL
            .into_iter()
            .zip(&self.outcomes)
            .map(|(status, count)| (status, count.load(Ordering::Relaxed)))
    }

    /// Total time in the queue and in the runtime since the start, in microseconds.
    #[must_use]
    pub fn totals_us(&self) -> (u64, u64) {
        (
            self.stages.total_us(Stage::Queue),
            self.stages.total_us(Stage::Infer),
        )
    }

    /// Medians of a model's time in the queue and in the runtime since this was last called, in microseconds; `None` when
    /// nothing has run. A version has none of its own.
    pub fn take_medians_us(&self) -> Option<(u64, u64)> {
        let mut interval = self.interval.lock();
        if interval.queue_us.is_empty() {
            return None;
        }
        let medians = (
            interval.queue_us.value_at_quantile(0.5),
            interval.compute_us.value_at_quantile(0.5),
        );
        interval.queue_us.reset();
        interval.compute_us.reset();
        Some(medians)
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self::new()
    }
}
