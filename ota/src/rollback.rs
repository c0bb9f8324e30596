//! Back to the other slot: what that takes, as a function of the slots, and its doing.

use edge_hal::slots::{Refusal, Slot, SlotControl, SlotError, SlotStatus};

/// What going back takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the other slot starts next already.
    Already,
    /// The running slot is good: the other one goes on trial, with this one to return to.
    Arm,
    /// The running slot is on trial itself: it is given up.
    GiveUp,
}

/// A rollback that a restart completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    /// The slot that starts next.
    pub to: Slot,
    /// How.
    pub step: Step,
}

/// Why there is no going back. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// The other slot never worked.
    #[error(
        "slot {0} holds no system that ever worked here, so there is nothing to go back to; slot {running} stays",
        running = .0.other()
    )]
    NeverWorked(Slot),
    /// The slots.
    #[error(transparent)]
    Slots(#[from] SlotError),
}

/// What a rollback would do.
///
/// # Errors
/// [`RollbackError`] when the running slot is not known, or the other one is not good.
pub fn plan(status: &SlotStatus) -> Result<Rollback, RollbackError> {
    let running = status
        .running
        .ok_or_else(|| SlotError::from(Refusal::RunningUnknown))?;
    let to = running.other();
    let step = if status.next == Some(to) {
        Step::Already
    } else if !status.table.get(to).is_good() {
        return Err(RollbackError::NeverWorked(to));
    } else if status.table.get(running).is_good() {
        Step::Arm
    } else {
        Step::GiveUp
    };
    Ok(Rollback { to, step })
}

/// Lets the other slot start next.
///
/// # Errors
/// As [`plan`], and [`SlotError`] when storage fails.
pub fn roll_back(slots: &mut dyn SlotControl) -> Result<Rollback, RollbackError> {
    let status = slots.status()?;
    let rollback = plan(&status)?;
    if status.unfinished.is_some() {
        slots.repair()?;
    }
    match rollback.step {
        Step::Already => {}
        Step::Arm => slots.arm(rollback.to)?,
        Step::GiveUp => slots.mark_dead(rollback.to.other())?,
    }
    Ok(rollback)
}

#[cfg(test)]
mod tests {
    use edge_hal::slots::{SlotState, SlotTable};

    use super::*;

    const GOOD: SlotState = SlotState {
        successful: true,
        bootable: true,
        tries_left: 3,
    };
    const TRIAL: SlotState = SlotState {
        successful: false,
        bootable: true,
        tries_left: 2,
    };
    const DEAD: SlotState = SlotState {
        successful: false,
        bootable: false,
        tries_left: 0,
    };

    fn status(a: SlotState, b: SlotState, running: Option<Slot>, next: Slot) -> SlotStatus {
        SlotStatus {
            table: SlotTable {
                first: Some(next),
                a,
                b,
            },
            running,
            next: Some(next),
            unfinished: None,
        }
    }

    #[test]
    fn what_going_back_takes() {
        use Slot::{A, B};
        for (a, b, running, next, expected) in [
            (GOOD, GOOD, B, B, Ok(Step::Arm)),
            (GOOD, TRIAL, B, B, Ok(Step::GiveUp)),
            (GOOD, TRIAL, A, B, Ok(Step::Already)),
            (GOOD, GOOD, A, B, Ok(Step::Already)),
            (GOOD, DEAD, A, A, Err(B)),
            (GOOD, TRIAL, A, A, Err(B)),
            (TRIAL, DEAD, A, A, Err(B)),
        ] {
            let found = plan(&status(a, b, Some(running), next));
            match (found, expected) {
                (Ok(found), Ok(step)) => assert_eq!(
                    found,
                    Rollback {
                        to: running.other(),
                        step
                    }
                ),
                (Err(RollbackError::NeverWorked(found)), Err(slot)) => assert_eq!(found, slot),
                (found, expected) => {
                    panic!("{a:?} {b:?} {running} {next}: {found:?}, not {expected:?}")
                }
            }
        }
    }

    #[test]
    fn an_unknown_running_slot_is_refused() {
        let error = plan(&status(GOOD, GOOD, None, Slot::A)).unwrap_err();
        assert!(error.to_string().contains("edge.slot="), "{error}");
    }
}
