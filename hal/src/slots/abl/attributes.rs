//! The bits in which Qualcomm's ABL keeps a slot's state: bits 48 to 55 of the attributes of `boot_a` and `boot_b`.
//!
//! Source: `PartitionTableUpdate.h` and `.c` of QcomModulePkg in the public ABL (`abl/tianocore/edk2`).

use crate::slots::policy::{Slot, SlotState, SlotTable};

const PRIORITY_SHIFT: u32 = 48;
const PRIORITY: u64 = 0b11 << PRIORITY_SHIFT;
/// ABL's `PART_ATT_ACTIVE_VAL`.
pub(crate) const ACTIVE: u64 = 1 << 50;
const TRIES_SHIFT: u32 = 51;
const TRIES: u64 = 0b111 << TRIES_SHIFT;
const SUCCESSFUL: u64 = 1 << 54;
const UNBOOTABLE: u64 = 1 << 55;

/// Most tries that fit.
pub(crate) const MAX_TRIES: u8 = 7;
/// `MAX_PRIORITY`, of the slot that comes first.
const FIRST_PRIORITY: u64 = 3;
/// What ABL's `SetActiveSlot` gives the other one.
const SECOND_PRIORITY: u64 = FIRST_PRIORITY - 1;

/// Attributes of the entries of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    /// Of the entry that ends in `_a`.
    pub(crate) a: u64,
    /// Of the entry that ends in `_b`.
    pub(crate) b: u64,
}

impl Pair {
    fn get(self, slot: Slot) -> u64 {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    fn map(self, change: impl Fn(Slot, u64) -> u64) -> Self {
        Self {
            a: change(Slot::A, self.a),
            b: change(Slot::B, self.b),
        }
    }
}

fn priority(attributes: u64) -> u64 {
    (attributes & PRIORITY) >> PRIORITY_SHIFT
}

fn state(attributes: u64) -> SlotState {
    SlotState {
        successful: attributes & SUCCESSFUL != 0,
        bootable: attributes & UNBOOTABLE == 0,
        // Three bits.
        tries_left: u8::try_from((attributes & TRIES) >> TRIES_SHIFT).unwrap_or(0),
    }
}

/// What the attributes of `boot_a` and `boot_b` say (`GetActiveSlot`): first is the active one, of two active ones
/// that of the higher priority, A at a tie; a priority of 0 does not count.
pub(crate) fn decode(boot: Pair) -> SlotTable {
    let mut table = SlotTable {
        first: None,
        a: state(boot.a),
        b: state(boot.b),
    };
    let mut highest = 0;
    for slot in Slot::BOTH {
        let attributes = boot.get(slot);
        if attributes & ACTIVE != 0 && priority(attributes) > highest {
            highest = priority(attributes);
            table.first = Some(slot);
        }
    }
    // A box that never started: ABL then sets up slot A with all tries.
    if table.first.is_none()
        && boot.a & (ACTIVE | SUCCESSFUL | UNBOOTABLE) == 0
        && priority(boot.a) == 0
    {
        table.first = Some(Slot::A);
        table.a.tries_left = MAX_TRIES;
    }
    table
}

/// The attributes of `boot_a` and `boot_b` that say `table`; other bits stay as in `old`.
pub(crate) fn encode(old: Pair, table: &SlotTable) -> Pair {
    old.map(|slot, attributes| {
        let state = table.get(slot);
        let first = table.first == Some(slot);
        let mut new = attributes & !(PRIORITY | ACTIVE | TRIES | SUCCESSFUL | UNBOOTABLE);
        new |= if first {
            ACTIVE | (FIRST_PRIORITY << PRIORITY_SHIFT)
        } else {
            SECOND_PRIORITY << PRIORITY_SHIFT
        };
        new |= u64::from(state.tries_left.min(MAX_TRIES)) << TRIES_SHIFT;
        if state.successful {
            new |= SUCCESSFUL;
        }
        if !state.bootable {
            new |= UNBOOTABLE;
        }
        new
    })
}

/// The attributes of a pair other than `boot` when `first` comes first: ABL marks what belongs to the slot that it
/// starts as active (`MarkPtnActive`) and asks nothing else of these entries.
pub(crate) fn follow(old: Pair, first: Slot) -> Pair {
    old.map(|slot, attributes| {
        if slot == first {
            attributes | ACTIVE
        } else {
            attributes & !ACTIVE
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot_state() -> impl Strategy<Value = SlotState> {
        (any::<bool>(), any::<bool>(), 0..=MAX_TRIES).prop_map(
            |(successful, bootable, tries_left)| SlotState {
                successful,
                bootable,
                tries_left,
            },
        )
    }

    proptest! {
        #[test]
        fn a_table_survives_its_bits(
            first in prop_oneof![Just(Slot::A), Just(Slot::B)],
            a in slot_state(),
            b in slot_state(),
            old_a: u64,
            old_b: u64,
        ) {
            let table = SlotTable { first: Some(first), a, b };
            let old = Pair { a: old_a, b: old_b };
            let new = encode(old, &table);
            prop_assert_eq!(decode(new), table);
            let ours = 0xFF << 48;
            prop_assert_eq!(new.a & !ours, old_a & !ours);
            prop_assert_eq!(new.b & !ours, old_b & !ours);
        }

        #[test]
        fn any_bits_decode(a: u64, b: u64) {
            let _ = decode(Pair { a, b });
        }
    }

    #[test]
    fn bits_are_where_abl_looks() {
        // What an armed slot B and a good slot A look like in `sgdisk --info`: attribute flags 003F.. in hexadecimal.
        let pair = encode(
            Pair { a: 0, b: 0 },
            &SlotTable {
                first: Some(Slot::B),
                a: SlotState {
                    successful: true,
                    bootable: true,
                    tries_left: 7,
                },
                b: SlotState {
                    successful: false,
                    bootable: true,
                    tries_left: 7,
                },
            },
        );
        assert_eq!(pair.a, 0x007A_0000_0000_0000);
        assert_eq!(pair.b, 0x003F_0000_0000_0000);
        assert_eq!(decode(Pair { a: 0, b: 0 }).first, Some(Slot::A));
    }
}
