//! Which parts of the agent have stopped making progress. Pure: marks and time come in as values.
//!
//! A part that has nothing to do is idle, and idle is never stuck. A busy part must change its mark within its limit.
//! Time is what the observer has seen pass, at most [`STEP_MAX`] a look: after a process was frozen (a debugger, a
//! suspended machine), nobody is blamed for the time in which nobody could run.

use std::{collections::BTreeMap, fmt, time::Duration};

use edge_protocol::Id;

/// Longest time that one look may count. Twice the usual time between two looks.
pub const STEP_MAX: Duration = Duration::from_secs(2);

/// A part of the agent that must make progress.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The asynchronous thread.
    MainLoop,
    /// The polling of an MQTT connection, by what it is for. Pings and attempts to connect are progress, so a broker
    /// that is away is nobody's fault.
    Connection(&'static str),
    /// A thread that runs a model; idle while it waits for requests.
    Worker(WorkerId),
    /// The loading of a model for this worker.
    Load(WorkerId),
    /// Writing to the data folder.
    Store,
}

/// A thread that runs a model. One that replaces another one has a number of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerId {
    /// The model.
    pub model: Id,
    /// Counts all workers since the agent's start.
    pub number: u64,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MainLoop => write!(f, "main loop"),
            Self::Connection(purpose) => write!(f, "connection {purpose}"),
            Self::Worker(WorkerId { model, number }) => write!(f, "worker {number} of {model}"),
            Self::Load(WorkerId { model, number }) => {
                write!(f, "loading of {model} for worker {number}")
            }
            Self::Store => write!(f, "store"),
        }
    }
}

/// How far a part has come: every change is progress. Odd while it is busy, even while it is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u64);

impl Mark {
    /// Whether the part owes progress.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        self.0 % 2 == 1
    }
}

/// How long a busy part may go without progress.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of the main loop, which reports every second.
    pub main_loop: Duration,
    /// Of a connection, which polls an event at least at each keep-alive ping.
    pub connection: Duration,
    /// Of one run of a model.
    pub run: Duration,
    /// Of loading a model once.
    pub load: Duration,
    /// Of one write to the data folder.
    pub store: Duration,
}

impl Limits {
    /// The limits of an agent whose models may run for `run`.
    #[must_use]
    pub const fn new(run: Duration) -> Self {
        Self {
            main_loop: Duration::from_secs(10),
            // Four and a half keep-alive times (20 s), so that one lost ping is the connection's own business.
            connection: Duration::from_secs(90),
            run,
            // A model of gigabytes from a slow card.
            load: Duration::from_secs(300),
            // A card that reorganises itself may stand still for seconds.
            store: Duration::from_secs(60),
        }
    }

    const fn of(&self, part: &Part) -> Duration {
        match part {
            Part::MainLoop => self.main_loop,
            Part::Connection(_) => self.connection,
            Part::Worker(_) => self.run,
            Part::Load(_) => self.load,
            Part::Store => self.store,
        }
    }
}

/// A part beyond its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The part.
    pub part: Part,
    /// How long it has made no progress.
    pub still_for: Duration,
}

/// What was seen of each part.
#[derive(Debug)]
pub struct Progress {
    limits: Limits,
    seen: BTreeMap<Part, (Mark, Duration)>,
}

impl Progress {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            seen: BTreeMap::new(),
        }
    }

    /// Looks at all parts, `elapsed` after the last look: those that are stuck. A part that is not among `marks` any
    /// more is forgotten.
    pub fn observe(
        &mut self,
        marks: impl IntoIterator<Item = (Part, Mark)>,
        elapsed: Duration,
    ) -> Vec<Stuck> {
        let elapsed = elapsed.min(STEP_MAX);
        let before = std::mem::take(&mut self.seen);
        let mut stuck = Vec::new();
        for (part, mark) in marks {
            let still_for = match before.get(&part) {
                Some((last, still_for)) if *last == mark && mark.is_busy() => *still_for + elapsed,
                _ => Duration::ZERO,
            };
            if still_for > self.limits.of(&part) {
                let part = part.clone();
                stuck.push(Stuck { part, still_for });
            }
            self.seen.insert(part, (mark, still_for));
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn progress() -> Progress {
        Progress::new(Limits::new(3 * SECOND))
    }

    fn worker(number: u64) -> Part {
        let model = Id::new("digits").unwrap();
        Part::Worker(WorkerId { model, number })
    }

    /// Looks each second at one part with these marks: when it is stuck.
    fn stuck_at(part: &Part, marks: &[u64]) -> Vec<usize> {
        let mut progress = progress();
        let look = |mark: &u64| {
            let stuck = progress.observe([(part.clone(), Mark(*mark))], SECOND);
            !stuck.is_empty()
        };
        let looks: Vec<bool> = marks.iter().map(look).collect();
        (0..looks.len()).filter(|i| looks[*i]).collect()
    }

    #[test]
    fn idle_is_not_stuck_and_busy_is_after_its_limit() {
        assert!(stuck_at(&worker(1), &[4; 100]).is_empty());
        assert_eq!(stuck_at(&worker(1), &[5; 6]), [4, 5]);
        assert_eq!(stuck_at(&worker(1), &[5, 5, 5, 7, 7, 7, 7, 7, 8]), [7]);
        assert!(stuck_at(&Part::MainLoop, &[1; 11]).is_empty());
        assert_eq!(stuck_at(&Part::MainLoop, &[1; 12]), [11]);
    }

    #[test]
    fn a_frozen_process_blames_nobody() {
        let mut progress = progress();
        let mark = [(Part::MainLoop, Mark(1))];
        assert!(progress.observe(mark.clone(), SECOND).is_empty());
        assert!(progress.observe(mark, Duration::from_secs(3600)).is_empty());
    }

    #[test]
    fn a_part_that_is_gone_is_forgotten() {
        let mut progress = progress();
        for _ in 0..6 {
            progress.observe([(worker(1), Mark(1))], SECOND);
        }
        assert!(progress.observe([], SECOND).is_empty());
        assert!(progress.observe([(worker(1), Mark(1))], SECOND).is_empty());
    }

    proptest! {
        /// Stuck exactly when the same busy mark was seen for longer than the limit.
        #[test]
        fn stuck_is_the_same_busy_mark_for_longer_than_the_limit(marks in prop::collection::vec(0_u64..3, 1..60)) {
            let wanted: Vec<usize> = (0..marks.len())
                .filter(|end| {
                    let same = marks[..=*end].iter().rev().take_while(|m| **m == marks[*end]).count();
                    marks[*end] == 1 && same > 4
                })
                .collect();
            prop_assert_eq!(stuck_at(&worker(1), &marks), wanted);
        }
    }
}
