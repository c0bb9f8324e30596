//! What is done about parts that are stuck. Pure: from what is stuck, and what was done before, to actions.
//!
//! The rungs, least first; none is skipped:
//! 1. stop the run, with the runtime's own means;
//! 2. give its thread up and put another one in its place;
//! 3. end the agent, which systemd starts again and to which the broker delivers again;
//! 4. let the hardware watchdog reset the box.
//!
//! What a reset does not cure must not be answered with resets for ever: after [`Rungs::resets_max`] of them without a
//! calm hour in between, the box goes on without this rung.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::progress::{Part, Stuck, WorkerId};

/// How long a rung is tried, and how often.
#[derive(Debug, Clone)]
pub struct Rungs {
    /// Time in which a run ends after it was told to.
    pub stop_grace: Duration,
    /// Threads that may be given up; each keeps its memory and maybe a core.
    pub abandoned_max: usize,
    /// Ends of the agent in one boot, after which the next rung's turn is.
    pub agent_ends_max: u32,
    /// Resets without a calm time in between.
    pub resets_max: u32,
    /// Time without anything stuck, after which the past is forgotten.
    pub calm_after: Duration,
    /// Time in which the reset must come once food is withheld.
    pub reset_patience: Duration,
}

impl Rungs {
    /// The rungs of a box whose hardware watchdog, if any, waits for `timeout`.
    #[must_use]
    pub fn new(timeout: Option<Duration>) -> Self {
        let timeout = timeout.unwrap_or(Duration::from_secs(30));
        Self {
            // No food is given meanwhile, and the last was up to a third of the time-out ago.
            stop_grace: (timeout / 6).min(Duration::from_secs(5)),
            abandoned_max: 4,
            agent_ends_max: 3,
            resets_max: 3,
            calm_after: Duration::from_secs(3600),
            // Below the unit's WatchdogSec=60 for the usual 30 s, so that the wait ends in this process.
            reset_patience: timeout * 3 / 2,
        }
    }
}

/// What was done before; kept over ends of the agent and resets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Ends of the agent in this boot.
    pub agent_ends: u32,
    /// Resets since the last calm time.
    pub resets: u32,
    /// Food is withheld so that the box is reset.
    pub is_reset_wanted: bool,
}

impl History {
    /// The past as it is at a start of the agent. A reset by the watchdog that nobody asked for counts too.
    #[must_use]
    pub const fn at_start(self, is_same_boot: bool, watchdog_caused_reset: bool) -> Self {
        if is_same_boot {
            return self;
        }
        let was_reset = self.is_reset_wanted || watchdog_caused_reset;
        Self {
            agent_ends: 0,
            resets: self.resets.saturating_add(was_reset as u32),
            is_reset_wanted: false,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell the run of this worker to end.
    Stop(WorkerId),
    /// Give this worker's thread up and start another one.
    Replace(WorkerId),
    /// End the agent, for this part's sake.
    EndAgent(Part),
    /// Nothing can be done but to withhold food.
    Withhold(Part),
    /// Food was withheld, and the box was not reset.
    NoReset,
}

/// What a look leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// Whether the hardware watchdog may be fed.
    pub feed_hardware: bool,
    /// Whether systemd may hear that all is well.
    pub feed_systemd: bool,
}

/// What the ladder must know of the box at each look.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings {
    /// Threads given up that have not come back.
    pub abandoned: usize,
    /// Whether a hardware watchdog runs.
    pub has_hardware: bool,
    /// Whether the history can be kept. Without that, resets could not be counted.
    pub is_history_kept: bool,
}

/// Which rung each stuck part has reached.
#[derive(Debug)]
pub struct Ladder {
    rungs: Rungs,
    history: History,
    /// Time since a worker's run was told to end.
    stopped: BTreeMap<WorkerId, Duration>,
    calm_for: Duration,
    withheld_for: Duration,
    is_ending: bool,
}

impl Ladder {
    /// A ladder with this past.
    #[must_use]
    pub const fn new(rungs: Rungs, history: History) -> Self {
        Self {
            rungs,
            history,
            stopped: BTreeMap::new(),
            calm_for: Duration::ZERO,
            withheld_for: Duration::ZERO,
            is_ending: false,
        }
    }

    /// What was done so far. Whoever carries out the actions keeps it first, when it has changed.
    #[must_use]
    pub const fn history(&self) -> History {
        self.history
    }

    /// Whether resets have not helped, so that the hardware is fed whatever is stuck.
    #[must_use]
    pub const fn is_out_of_resets(&self) -> bool {
        self.history.resets >= self.rungs.resets_max
    }

    /// Decides, `elapsed` after the last look.
    pub fn step(&mut self, stuck: &[Stuck], around: Surroundings, elapsed: Duration) -> Decision {
        let mut actions = Vec::new();
        if self.history.is_reset_wanted {
            self.withheld_for += elapsed;
            if around.has_hardware && self.withheld_for <= self.rungs.reset_patience {
                return Decision {
                    actions,
                    feed_hardware: false,
                    feed_systemd: false,
                };
            }
            self.withheld_for = Duration::ZERO;
            self.history.is_reset_wanted = false;
            self.history.resets = self.rungs.resets_max;
            actions.push(Action::NoReset);
        }
        self.remember_calm(stuck.is_empty(), elapsed);
        self.climb(stuck, around, elapsed, &mut actions);
        let is_well = stuck.is_empty() && !self.is_ending;
        Decision {
            actions,
            feed_hardware: is_well || (self.is_out_of_resets() && !self.is_ending),
            feed_systemd: is_well,
        }
    }

    fn remember_calm(&mut self, is_calm: bool, elapsed: Duration) {
        if !is_calm {
            self.calm_for = Duration::ZERO;
            return;
        }
        self.calm_for = self.calm_for.saturating_add(elapsed);
        if self.calm_for >= self.rungs.calm_after {
            self.history = History::default();
        }
    }

    fn climb(
        &mut self,
        stuck: &[Stuck],
        around: Surroundings,
        elapsed: Duration,
        actions: &mut Vec<Action>,
    ) {
        let was_stopped = std::mem::take(&mut self.stopped);
        if self.is_ending {
            return;
        }
        let mut abandoned = around.abandoned;
        let mut hopeless = None;
        for Stuck { part, .. } in stuck {
            let Part::Worker(worker) = part else {
                hopeless = hopeless.or(Some(part));
                continue;
            };
            match was_stopped.get(worker).map(|since| *since + elapsed) {
                None => {
                    self.stopped.insert(worker.clone(), Duration::ZERO);
                    actions.push(Action::Stop(worker.clone()));
                }
                Some(since) if since < self.rungs.stop_grace => {
                    self.stopped.insert(worker.clone(), since);
                }
                Some(_) if abandoned < self.rungs.abandoned_max => {
                    abandoned += 1;
                    actions.push(Action::Replace(worker.clone()));
                }
                Some(since) => {
                    self.stopped.insert(worker.clone(), since);
                    hopeless = hopeless.or(Some(part));
                }
            }
        }
        // Those who wait for a thread that is given up get their answers before the agent ends.
        let gives_up_threads = actions.iter().any(|it| matches!(it, Action::Replace(_)));
        if let Some(part) = hopeless.filter(|_| !gives_up_threads) {
            self.give_up(part, around, actions);
        }
    }

    fn give_up(&mut self, part: &Part, around: Surroundings, actions: &mut Vec<Action>) {
        let may_reset = around.has_hardware && around.is_history_kept && !self.is_out_of_resets();
        if may_reset && self.history.agent_ends >= self.rungs.agent_ends_max {
            self.history.is_reset_wanted = true;
            self.stopped.clear();
            self.withheld_for = Duration::ZERO;
            actions.push(Action::Withhold(part.clone()));
        } else {
            self.history.agent_ends = self.history.agent_ends.saturating_add(1);
            self.is_ending = true;
            actions.push(Action::EndAgent(part.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use edge_protocol::Id;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn around(abandoned: usize) -> Surroundings {
        Surroundings {
            abandoned,
            has_hardware: true,
            is_history_kept: true,
        }
    }

    fn stuck(part: Part) -> Stuck {
        Stuck {
            part,
            still_for: Duration::from_secs(31),
        }
    }

    fn worker(number: u64) -> WorkerId {
        let model = Id::new("digits").unwrap();
        WorkerId { model, number }
    }

    fn ladder(history: History) -> Ladder {
        Ladder::new(Rungs::new(Some(30 * SECOND)), history)
    }

    fn all_is_well(decision: &Decision) -> bool {
        decision.actions.is_empty() && decision.feed_hardware && decision.feed_systemd
    }

    #[test]
    fn a_worker_is_stopped_then_replaced_then_calm() {
        let mut ladder = ladder(History::default());
        let parts = [stuck(Part::Worker(worker(1)))];
        let mut step = |parts: &[Stuck]| ladder.step(parts, around(0), SECOND);
        assert!(all_is_well(&step(&[])));
        assert_eq!(step(&parts).actions, [Action::Stop(worker(1))]);
        for _ in 0..4 {
            let decision = step(&parts);
            assert!(decision.actions.is_empty() && !decision.feed_hardware);
        }
        assert_eq!(step(&parts).actions, [Action::Replace(worker(1))]);
        assert!(all_is_well(&step(&[])));
    }

    #[test]
    fn the_agent_ends_when_too_many_threads_are_given_up_and_the_box_resets_after_three_ends() {
        let parts = [stuck(Part::Worker(worker(1)))];
        let mut history = History::default();
        for ends in 1..=4 {
            let mut ladder = ladder(history.at_start(true, false));
            let mut last = Vec::new();
            for _ in 0..6 {
                last = ladder.step(&parts, around(4), SECOND).actions;
            }
            history = ladder.history();
            let part = Part::Worker(worker(1));
            if ends <= 3 {
                assert_eq!(last, [Action::EndAgent(part)]);
                assert_eq!(history.agent_ends, ends);
            } else {
                assert_eq!(last, [Action::Withhold(part)]);
                assert!(history.is_reset_wanted);
            }
        }
        let next_boot = history.at_start(false, true);
        assert_eq!((next_boot.resets, next_boot.agent_ends), (1, 0));
    }

    #[test]
    fn resets_are_bounded_and_then_the_hardware_is_fed_all_the_same() {
        let history = History {
            agent_ends: 3,
            resets: 3,
            is_reset_wanted: false,
        };
        let mut ladder = ladder(history);
        let decision = ladder.step(&[stuck(Part::Store)], around(0), SECOND);
        assert_eq!(decision.actions, [Action::EndAgent(Part::Store)]);
        let worker = [stuck(Part::Worker(worker(1)))];
        let decision = Ladder::new(Rungs::new(None), history).step(&worker, around(0), SECOND);
        assert!(decision.feed_hardware && !decision.feed_systemd);
    }

    #[test]
    fn without_a_count_of_resets_there_are_none() {
        let history = History {
            agent_ends: 9,
            ..History::default()
        };
        for (has_hardware, is_history_kept) in [(false, true), (true, false)] {
            let around = Surroundings {
                abandoned: 0,
                has_hardware,
                is_history_kept,
            };
            let decision = ladder(history).step(&[stuck(Part::MainLoop)], around, SECOND);
            assert_eq!(decision.actions, [Action::EndAgent(Part::MainLoop)]);
        }
    }

    #[test]
    fn a_reset_that_does_not_come_ends_the_wait() {
        let history = History {
            agent_ends: 3,
            resets: 0,
            is_reset_wanted: true,
        };
        let mut ladder = ladder(history);
        for _ in 0..45 {
            let decision = ladder.step(&[], around(0), SECOND);
            assert!(!decision.feed_hardware && !decision.feed_systemd);
        }
        let decision = ladder.step(&[], around(0), SECOND);
        assert_eq!(decision.actions, [Action::NoReset]);
        assert!(decision.feed_hardware && ladder.is_out_of_resets());
    }

    #[test]
    fn only_a_calm_hour_makes_the_past_forgotten() {
        let past = History {
            agent_ends: 2,
            resets: 1,
            is_reset_wanted: false,
        };
        let mut ladder = ladder(past);
        for _ in 0..3_599 {
            ladder.step(&[], around(0), SECOND);
        }
        ladder.step(&[stuck(Part::Worker(worker(1)))], around(0), SECOND);
        for _ in 0..3_599 {
            ladder.step(&[], around(0), SECOND);
        }
        assert_eq!(ladder.history(), past);
        ladder.step(&[], around(0), SECOND);
        assert_eq!(ladder.history(), History::default());
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let part = prop_oneof![
            8 => (0_u64..3).prop_map(|number| Part::Worker(worker(number))),
            1 => Just(Part::MainLoop),
            1 => Just(Part::Store),
        ];
        prop::collection::btree_set(part, 0..3).prop_map(|parts| parts.into_iter().collect())
    }

    proptest! {
        #[test]
        fn food_and_order_of_the_rungs(
            looks in prop::collection::vec((parts(), 1_usize..12, 0_usize..6), 1..40),
            agent_ends in 0_u32..5,
            resets in 0_u32..5,
        ) {
            let history = History { agent_ends, resets, is_reset_wanted: false };
            let mut ladder = ladder(history);
            let mut told: BTreeMap<WorkerId, u32> = BTreeMap::new();
            let mut has_ended = false;
            for (parts, times, abandoned) in looks {
                for _ in 0..times {
                    let stuck: Vec<Stuck> = parts.iter().cloned().map(stuck).collect();
                    let before = ladder.history();
                    told.retain(|worker, _| parts.contains(&Part::Worker(worker.clone())));
                    let decision = ladder.step(&stuck, around(abandoned), SECOND);
                    if !stuck.is_empty() {
                        prop_assert!(!decision.feed_systemd);
                        prop_assert!(!decision.feed_hardware || ladder.is_out_of_resets());
                    } else if !has_ended && !before.is_reset_wanted {
                        prop_assert!(all_is_well(&decision), "recovers at once");
                    }
                    for action in &decision.actions {
                        prop_assert!(!has_ended, "nothing after the end");
                        match action {
                            Action::Stop(worker) => {
                                prop_assert!(told.insert(worker.clone(), 0).is_none());
                            }
                            Action::Replace(worker) => {
                                prop_assert!(told.remove(worker).is_some_and(|since| since >= 5));
                                prop_assert!(abandoned < 4);
                            }
                            Action::EndAgent(part) => {
                                if let Part::Worker(worker) = part {
                                    prop_assert!(told.get(worker).is_some_and(|since| *since >= 5));
                                }
                                has_ended = true;
                            }
                            Action::Withhold(_) => {
                                prop_assert!(before.agent_ends >= 3 && before.resets < 3);
                            }
                            Action::NoReset => prop_assert!(before.is_reset_wanted),
                        }
                    }
                    for since in told.values_mut() {
                        *since += 1;
                    }
                    if ladder.history().is_reset_wanted {
                        told.clear();
                    }
                }
            }
        }
    }
}
