//! How long requests take, stage by stage: totals and histograms since the agent started.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A part of a request's way, in order. Together with what lies between them they are the whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From its arrival until a thread has it, without what it took to read it.
    Queue,
    /// Reading it, and checking it against the graph.
    Input,
    /// The run, alone or with others, with what it takes to give the runtime its inputs.
    Infer,
    /// Writing the answer.
    Output,
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 4] = [Self::Queue, Self::Input, Self::Infer, Self::Output];

    /// Name in metrics: Triton's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Input => "compute_input",
            Self::Infer => "compute_infer",
            Self::Output => "compute_output",
        }
    }
}

/// How long one request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// See [`Stage::Queue`].
    pub queue: Duration,
    /// See [`Stage::Input`].
    pub input: Duration,
    /// See [`Stage::Infer`].
    pub infer: Duration,
    /// See [`Stage::Output`].
    pub output: Duration,
    /// From its arrival until its answer was handed on.
    pub total: Duration,
}

impl Times {
    const fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Queue => self.queue,
            Stage::Input => self.input,
            Stage::Infer => self.infer,
            Stage::Output => self.output,
        }
    }
}

/// Upper bounds of the buckets in microseconds; above the last is one more.
pub const BOUNDS_US: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// How often a time lay in each bucket.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    total_us: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// Times of at most each of [`BOUNDS_US`], those of smaller bounds included.
    pub at_most: [u64; BOUNDS_US.len()],
    /// All times.
    pub count: u64,
    /// Their sum in microseconds.
    pub total_us: u64,
}

impl Histogram {
    fn record(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let index = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.total_us.fetch_add(us, Ordering::Relaxed);
    }

    fn spread(&self) -> Spread {
        let mut spread = Spread {
            total_us: self.total_us.load(Ordering::Relaxed),
            ..Spread::default()
        };
        let mut at_most = spread.at_most.iter_mut();
        for bucket in &self.buckets {
            spread.count += bucket.load(Ordering::Relaxed);
            if let Some(at_most) = at_most.next() {
                *at_most = spread.count;
            }
        }
        spread
    }
}

/// How long requests take.
#[derive(Debug, Default)]
pub struct Stages {
    stages: [Histogram; Stage::ALL.len()],
    total: Histogram,
}

impl Stages {
    /// A request has taken this long.
    pub fn record(&self, times: &Times) {
        for (histogram, stage) in self.stages.iter().zip(Stage::ALL) {
            histogram.record(times.of(stage));
        }
        self.total.record(times.total);
    }

    /// Each stage at this moment.
    pub fn spreads(&self) -> impl Iterator<Item = (Stage, Spread)> {
        Stage::ALL
            .into_iter()
            .zip(self.stages.iter().map(Histogram::spread))
    }

    /// What a stage took in all, in microseconds.
    #[must_use]
    pub fn total_us(&self, stage: Stage) -> u64 {
        let mut stages = self.stages.iter().zip(Stage::ALL);
        stages
            .find(|(_, other)| *other == stage)
            .map_or(0, |(histogram, _)| {
                histogram.total_us.load(Ordering::Relaxed)
            })
    }

    /// Whole requests at this moment.
    #[must_use]
    pub fn total(&self) -> Spread {
        self.total.spread()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times(queue_us: u64) -> Times {
        Times {
            queue: Duration::from_micros(queue_us),
            ..Times::default()
        }
    }

    #[test]
    fn a_time_lies_in_every_bucket_whose_bound_it_does_not_pass() {
        let stages = Stages::default();
        for queue_us in [0, 50, 51, 10_000_000, 10_000_001, u64::MAX] {
            stages.record(&times(queue_us));
        }
        let (stage, spread) = stages.spreads().next().unwrap();
        assert_eq!(stage, Stage::Queue);
        assert_eq!(spread.count, 6);
        assert_eq!((spread.at_most[0], spread.at_most[1]), (2, 3));
        assert_eq!(spread.at_most[BOUNDS_US.len() - 1], 4);
    }

    proptest! {
        #[test]
        fn buckets_only_grow_and_end_at_the_count(values in prop::collection::vec(0..20_000_000_u64, 0..50)) {
            let stages = Stages::default();
            values.iter().for_each(|value| stages.record(&times(*value)));
            let (_, spread) = stages.spreads().next().unwrap();
            prop_assert!(spread.at_most.is_sorted());
            prop_assert!(spread.at_most.iter().all(|count| *count <= spread.count));
            prop_assert_eq!(spread.count, values.len() as u64);
            prop_assert_eq!(spread.total_us, values.iter().sum::<u64>());
            for (bound, count) in BOUNDS_US.iter().zip(spread.at_most) {
                prop_assert_eq!(count, values.iter().filter(|value| *value <= bound).count() as u64);
            }
        }
    }
}
