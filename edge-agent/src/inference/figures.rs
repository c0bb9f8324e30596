//! The figures of each version of a model at one moment, by Triton's terms.

use edge_protocol::{Id, Status};

use super::{Models, Stage, Statistics, stages::Spread};

/// What a version has done and does, since the agent started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// The model.
    pub model: Id,
    /// Its version.
    pub version: u64,
    /// Requests ended, by status.
    pub outcomes: Vec<(Status, u64)>,
    /// Rows that were computed: a request of a batch counts each of its own.
    pub inferences: u64,
    /// Runs that it took.
    pub executions: u64,
    /// Requests that wait.
    pub pending: u64,
    /// How long each stage took, of the requests that ran.
    pub stages: Vec<(Stage, Spread)>,
    /// How long whole requests took, of those that ran.
    pub total: Spread,
}

impl Figures {
    fn of(model: &Id, version: u64, pending: usize, statistics: &Statistics) -> Self {
        let (inferences, executions) = statistics.runs();
        Self {
            model: model.clone(),
            version,
            outcomes: statistics.outcomes().collect(),
            inferences,
            executions,
            pending: pending as u64,
            stages: statistics.stages().spreads().collect(),
            total: statistics.stages().total(),
        }
    }

    /// Requests that ended with a status.
    #[must_use]
    pub fn outcome(&self, status: Status) -> u64 {
        let mut outcomes = self.outcomes.iter();
        outcomes
            .find(|(other, _)| *other == status)
            .map_or(0, |(_, count)| *count)
    }

    /// What a stage took in all, in microseconds.
    #[must_use]
    pub fn stage_us(&self, stage: Stage) -> u64 {
        let mut stages = self.stages.iter();
        stages
            .find(|(other, _)| *other == stage)
            .map_or(0, |(_, spread)| spread.total_us)
    }
}

impl Models {
    /// The figures of every version that takes requests.
    #[must_use]
    pub fn figures(&self) -> Vec<Figures> {
        self.look(|served| {
            let figures = |(name, model): (&Id, &super::models::Served)| {
                let of = |(version, ready): (u64, &super::models::Ready)| {
                    Figures::of(name, version, ready.waiting(), &ready.statistics)
                };
                model.ready().map(of).collect::<Vec<_>>()
            };
            served.iter().flat_map(figures).collect()
        })
    }
}
