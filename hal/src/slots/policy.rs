//! What may happen to the slots, and which one starts next: decisions over plain values. It must not know how a
//! boot loader stores them.

use std::fmt;

/// One of the two places for a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both, in their order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that this is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// What its partitions' names end in: `_a` or `_b`.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::A => "_a",
            Self::B => "_b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// What the boot loader knows of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    /// It was started and proved itself; its starts are not counted.
    pub successful: bool,
    /// It may be started at all.
    pub bootable: bool,
    /// Starts that are left while it is not successful.
    pub tries_left: u8,
}

impl SlotState {
    /// Proved, and not given up since.
    #[must_use]
    pub fn is_good(self) -> bool {
        self.bootable && self.successful
    }

    /// Given up, or out of tries.
    #[must_use]
    pub fn is_dead(self) -> bool {
        !self.is_startable()
    }

    fn is_startable(self) -> bool {
        self.bootable && (self.successful || self.tries_left > 0)
    }
}

/// Which slots a boot loader falls back to when the first is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// A good one only (ABL).
    Good,
    /// Any that has tries left (our U-Boot script).
    Startable,
}

/// Both slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotTable {
    /// The one that the boot loader looks at first; none where its data names none.
    pub first: Option<Slot>,
    /// Slot A.
    pub a: SlotState,
    /// Slot B.
    pub b: SlotState,
}

/// Why a change of the slots is refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The kernel's command line does not say which slot this is.
    #[error(
        "the running slot is not known: the boot loader must pass androidboot.slot_suffix= or edge.slot="
    )]
    RunningUnknown,
    /// Only the other slot can be tried.
    #[error("slot {0} is running and cannot be armed; arm the other one")]
    ArmRunning(Slot),
    /// There would be no slot to return to.
    #[error(
        "slot {0} is running and not yet marked good, so there would be none to return to; mark it good first"
    )]
    NoWayBack(Slot),
    /// A slot proves itself only by running.
    #[error("slot {slot} cannot be marked good: slot {running} is the one that runs")]
    NotRunning {
        /// The one that was to be marked.
        slot: Slot,
        /// The one that runs.
        running: Slot,
    },
    /// No good slot would be left.
    #[error("slot {0} cannot be given up: the other one is not marked good")]
    LastGood(Slot),
    /// A slot on trial needs a try.
    #[error("a slot cannot be armed with no tries")]
    NoTries,
}

impl SlotTable {
    /// One slot.
    #[must_use]
    pub fn get(&self, slot: Slot) -> SlotState {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    /// One slot, to change.
    pub fn get_mut(&mut self, slot: Slot) -> &mut SlotState {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    /// The slot that starts next; none when the box would not start.
    #[must_use]
    pub fn next(&self, fallback: Fallback) -> Option<Slot> {
        let first = self.first?;
        if self.get(first).is_startable() {
            return Some(first);
        }
        let other = self.get(first.other());
        let taken = match fallback {
            Fallback::Good => other.is_good(),
            Fallback::Startable => other.is_startable(),
        };
        taken.then_some(first.other())
    }

    /// The table that starts `slot` next, on trial, `tries` times at most, with the running one to return to.
    ///
    /// # Errors
    /// [`Refusal`] when `slot` runs, or what runs is unknown or not good, or there are no tries.
    pub fn armed(self, running: Option<Slot>, slot: Slot, tries: u8) -> Result<Self, Refusal> {
        let running = running.ok_or(Refusal::RunningUnknown)?;
        if running == slot {
            return Err(Refusal::ArmRunning(slot));
        }
        if !self.get(running).is_good() {
            return Err(Refusal::NoWayBack(running));
        }
        if tries == 0 {
            return Err(Refusal::NoTries);
        }
        let mut table = self;
        table.first = Some(slot);
        *table.get_mut(slot) = SlotState {
            successful: false,
            bootable: true,
            tries_left: tries,
        };
        Ok(table)
    }

    /// The table in which the running `slot` is proved; which one starts next stays.
    ///
    /// # Errors
    /// [`Refusal`] when `slot` does not run.
    pub fn proved(self, running: Option<Slot>, slot: Slot, tries: u8) -> Result<Self, Refusal> {
        let running = running.ok_or(Refusal::RunningUnknown)?;
        if running != slot {
            return Err(Refusal::NotRunning { slot, running });
        }
        if self.get(slot).is_good() {
            return Ok(self);
        }
        let mut table = self;
        *table.get_mut(slot) = SlotState {
            successful: true,
            bootable: true,
            tries_left: tries,
        };
        if table.first.is_none() {
            table.first = Some(slot);
        }
        Ok(table)
    }

    /// The table in which `slot` is given up and the other one, which is good, comes first.
    ///
    /// # Errors
    /// [`Refusal::LastGood`] when the other one is not good.
    pub fn given_up(self, slot: Slot) -> Result<Self, Refusal> {
        let dead = SlotState {
            successful: false,
            bootable: false,
            tries_left: 0,
        };
        let mut table = self;
        *table.get_mut(slot) = dead;
        if self.get(slot.other()).is_good() {
            table.first = Some(slot.other());
            return Ok(table);
        }
        if table == self {
            return Ok(self);
        }
        Err(Refusal::LastGood(slot))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRIES: u8 = 3;

    fn factory() -> SlotTable {
        SlotTable {
            first: Some(Slot::A),
            a: SlotState {
                successful: true,
                bootable: true,
                tries_left: TRIES,
            },
            b: SlotState {
                successful: false,
                bootable: false,
                tries_left: 0,
            },
        }
    }

    /// What a boot loader does with the table at a start.
    fn start(table: &mut SlotTable, fallback: Fallback) -> Option<Slot> {
        let slot = table.next(fallback)?;
        if !table.get(slot).successful {
            table.get_mut(slot).tries_left -= 1;
        }
        if table.first != Some(slot) {
            let first = slot.other();
            table.get_mut(first).bootable = false;
            table.first = Some(slot);
        }
        Some(slot)
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Arm(Slot),
        Good(Slot),
        Dead(Slot),
        Start,
    }

    fn slot() -> impl Strategy<Value = Slot> {
        prop_oneof![Just(Slot::A), Just(Slot::B)]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            slot().prop_map(Step::Arm),
            slot().prop_map(Step::Good),
            slot().prop_map(Step::Dead),
            Just(Step::Start),
        ]
    }

    fn fallback() -> impl Strategy<Value = Fallback> {
        prop_oneof![Just(Fallback::Good), Just(Fallback::Startable)]
    }

    proptest! {
        #[test]
        fn one_slot_stays_good_whatever_we_do(
            steps in prop::collection::vec(step(), 0..40),
            fallback in fallback(),
        ) {
            let mut table = factory();
            let mut running = Slot::A;
            for step in steps {
                let changed = match step {
                    Step::Arm(slot) => table.armed(Some(running), slot, TRIES),
                    Step::Good(slot) => table.proved(Some(running), slot, TRIES),
                    Step::Dead(slot) => table.given_up(slot),
                    Step::Start => {
                        running = start(&mut table, fallback).unwrap();
                        Ok(table)
                    }
                };
                table = changed.unwrap_or(table);
                prop_assert!(Slot::BOTH.iter().any(|slot| table.get(*slot).is_good()));
                prop_assert!(table.next(fallback).is_some());
            }
        }

        #[test]
        fn an_armed_slot_that_fails_gives_way_to_the_old_one(
            tries in 1_u8..8,
            fallback in fallback(),
        ) {
            let mut table = factory().armed(Some(Slot::A), Slot::B, tries).unwrap();
            for _ in 0..tries {
                prop_assert_eq!(start(&mut table, fallback), Some(Slot::B));
            }
            for _ in 0..20 {
                prop_assert_eq!(start(&mut table, fallback), Some(Slot::A));
            }
            prop_assert!(table.b.is_dead());
        }

        #[test]
        fn a_slot_that_proves_itself_in_time_stays(failed in 0_u8..TRIES) {
            let mut table = factory().armed(Some(Slot::A), Slot::B, TRIES).unwrap();
            for _ in 0..=failed {
                prop_assert_eq!(start(&mut table, Fallback::Good), Some(Slot::B));
            }
            let proved = table.proved(Some(Slot::B), Slot::B, TRIES).unwrap();
            prop_assert_eq!(proved.proved(Some(Slot::B), Slot::B, TRIES), Ok(proved));
            table = proved;
            for _ in 0..20 {
                prop_assert_eq!(start(&mut table, Fallback::Good), Some(Slot::B));
            }
        }
    }

    #[test]
    fn what_would_leave_no_way_back_is_refused() {
        let table = factory();
        let running = Some(Slot::A);
        assert_eq!(table.armed(None, Slot::B, 3), Err(Refusal::RunningUnknown));
        assert_eq!(
            table.armed(running, Slot::A, 3),
            Err(Refusal::ArmRunning(Slot::A))
        );
        assert_eq!(table.armed(running, Slot::B, 0), Err(Refusal::NoTries));
        assert_eq!(table.given_up(Slot::A), Err(Refusal::LastGood(Slot::A)));
        assert_eq!(table.given_up(Slot::B), Ok(table));
        let trial = table.armed(running, Slot::B, 3).unwrap();
        assert_eq!(
            trial.armed(Some(Slot::B), Slot::A, 3),
            Err(Refusal::NoWayBack(Slot::B))
        );
        assert_eq!(
            trial.proved(Some(Slot::B), Slot::A, 3),
            Err(Refusal::NotRunning {
                slot: Slot::A,
                running: Slot::B
            })
        );
        let back = trial.given_up(Slot::B).unwrap();
        assert_eq!(back.next(Fallback::Good), Some(Slot::A));
    }

    #[test]
    fn a_slot_that_lost_its_starts_is_taken_only_where_the_loader_does() {
        let untried = SlotState {
            successful: false,
            bootable: true,
            tries_left: 2,
        };
        let table = SlotTable {
            first: Some(Slot::A),
            a: SlotState {
                tries_left: 0,
                ..untried
            },
            b: untried,
        };
        assert_eq!(table.next(Fallback::Good), None);
        assert_eq!(table.next(Fallback::Startable), Some(Slot::B));
    }
}
