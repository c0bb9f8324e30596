//! Slots that exist only in memory, under somebody's control.

use super::{
    SlotControl, SlotError, SlotStatus,
    policy::{Fallback, Slot, SlotState, SlotTable},
};
use crate::sim::SimReading;

/// What simulated slots hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimSlotState {
    /// The slots.
    pub table: SlotTable,
    /// The one that runs.
    pub running: Option<Slot>,
    /// Changes so far.
    pub changes: u64,
}

/// Slots in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct SimSlots {
    /// The slots, to look at, to set and to let fail.
    pub state: SimReading<SimSlotState>,
    tries: u8,
}

impl SimSlots {
    /// A good slot A that runs, and an empty slot B.
    #[must_use]
    pub fn new(tries: u8) -> Self {
        let table = SlotTable {
            first: Some(Slot::A),
            a: SlotState {
                successful: true,
                bootable: true,
                tries_left: tries,
            },
            b: SlotState {
                successful: false,
                bootable: false,
                tries_left: 0,
            },
        };
        Self {
            state: SimReading::new(SimSlotState {
                table,
                running: Some(Slot::A),
                changes: 0,
            }),
            tries,
        }
    }

    /// Starts the box, as a boot loader would: counts a try, gives up what has none left. Returns what runs then.
    ///
    /// # Errors
    /// While the slots are told to fail.
    pub fn start(&self) -> Result<Option<Slot>, SlotError> {
        let mut state = self.state.read()?;
        state.running = state.table.next(Fallback::Good);
        if let Some(slot) = state.running {
            let other = state.table.get_mut(slot.other());
            if !other.successful && other.tries_left == 0 {
                other.bootable = false;
            }
            let chosen = state.table.get_mut(slot);
            if !chosen.successful {
                chosen.tries_left = chosen.tries_left.saturating_sub(1);
            }
            state.table.first = Some(slot);
        }
        self.state.set(state);
        Ok(state.running)
    }

    fn change(
        &self,
        decide: impl FnOnce(SimSlotState) -> Result<SlotTable, SlotError>,
    ) -> Result<(), SlotError> {
        let state = self.state.read()?;
        let table = decide(state)?;
        if table != state.table {
            self.state.set(SimSlotState {
                table,
                changes: state.changes + 1,
                ..state
            });
        }
        Ok(())
    }
}

impl SlotControl for SimSlots {
    fn status(&mut self) -> Result<SlotStatus, SlotError> {
        let state = self.state.read()?;
        Ok(SlotStatus {
            table: state.table,
            running: state.running,
            next: state.table.next(Fallback::Good),
            unfinished: None,
        })
    }

    fn arm(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.change(|state| Ok(state.table.armed(state.running, slot, self.tries)?))
    }

    fn mark_good(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.change(|state| Ok(state.table.proved(state.running, slot, self.tries)?))
    }

    fn mark_dead(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.change(|state| Ok(state.table.given_up(slot)?))
    }

    fn repair(&mut self) -> Result<(), SlotError> {
        self.state.read()?;
        Ok(())
    }
}
