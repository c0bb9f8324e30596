//! The running slot proved itself. Who decides that it did is not known here.

use edge_hal::slots::{Refusal, Slot, SlotControl, SlotError};

/// What confirming did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// The slot that runs, good now.
    pub slot: Slot,
    /// Whether it was good before.
    pub was_good: bool,
    /// Whether a change that a power cut left unfinished was tidied up.
    pub repaired: bool,
}

/// Marks the running slot good, after tidying up. With `expected`, only if that is the slot that runs.
///
/// # Errors
/// [`SlotError::Refused`] before anything is written, when the running slot is not known or another one; others when
/// storage fails.
pub fn confirm(
    slots: &mut dyn SlotControl,
    expected: Option<Slot>,
) -> Result<Confirmed, SlotError> {
    let before = slots.status()?;
    let slot = before.running.ok_or(Refusal::RunningUnknown)?;
    if let Some(expected) = expected
        && expected != slot
    {
        return Err(Refusal::NotRunning {
            slot: expected,
            running: slot,
        }
        .into());
    }
    if before.unfinished.is_some() {
        slots.repair()?;
    }
    slots.mark_good(slot)?;
    Ok(Confirmed {
        slot,
        was_good: before.table.get(slot).is_good(),
        repaired: before.unfinished.is_some(),
    })
}
