//! Slots of U-Boot, in variables that its boot script reads: `BOOT_ORDER`, and for each slot `BOOT_A_LEFT` and
//! `BOOT_A_GOOD`. The first two are RAUC's; the third keeps a proved slot from losing its tries to power cuts.

pub mod binary;
pub mod text;

use std::io;

pub use self::{binary::UbootBinarySlots, text::UbootTextSlots};
use super::policy::{Slot, SlotState, SlotTable};

/// The boot script that goes with [`UbootTextSlots`]; it states what the image must add.
pub const TEXT_BOOT_SCRIPT: &str = include_str!("boot_text.cmd");

/// The boot script that goes with [`UbootBinarySlots`].
pub const BINARY_BOOT_SCRIPT: &str = include_str!("boot_binary.cmd");

/// Most tries that fit one digit.
const MAX_TRIES: u8 = 9;

/// What the boot scripts assume where nothing is recorded.
const DEFAULT_TRIES: u8 = 3;

/// Why U-Boot's record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// It does not answer.
    #[error("cannot {operation} it")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Both copies are damaged.
    #[error("both copies are damaged; write the environment again with the flashing tool")]
    BothDamaged,
    /// The size of a copy.
    #[error("copies of {0} bytes are not supported; give 1024 to 1048576 in slots.size_bytes")]
    Size(u32),
    /// Our variables do not fit in.
    #[error("the environment is full")]
    Full,
    /// A variable has no value of ours.
    #[error("{0} has a value that no boot script of ours writes; correct it with fw_setenv")]
    Value(&'static str),
    /// The counter of text files ended.
    #[error("the counter of changes is used up; remove both files")]
    CounterUsedUp,
    /// The copy reads back differently.
    #[error("it reads back differently than it was written; the storage may be failing")]
    ReadBack,
}

/// Names of a slot's variables.
fn names(slot: Slot) -> (&'static str, &'static str) {
    match slot {
        Slot::A => ("BOOT_A_GOOD", "BOOT_A_LEFT"),
        Slot::B => ("BOOT_B_GOOD", "BOOT_B_LEFT"),
    }
}

const ORDER: &str = "BOOT_ORDER";

/// The slots that variables state. Absent ones are as the boot scripts assume them.
fn decode<'a>(get: impl Fn(&str) -> Option<&'a [u8]>) -> Result<SlotTable, EnvError> {
    let first = match get(ORDER) {
        None | Some(b"A B" | b"A") => Slot::A,
        Some(b"B A" | b"B") => Slot::B,
        Some(_) => return Err(EnvError::Value(ORDER)),
    };
    let state = |slot| {
        let (good, left) = names(slot);
        let successful = match get(good) {
            None | Some(b"0") => false,
            Some(b"1") => true,
            Some(_) => return Err(EnvError::Value(good)),
        };
        let tries_left = match get(left) {
            None => DEFAULT_TRIES,
            Some([digit @ b'0'..=b'9']) => digit - b'0',
            Some(_) => return Err(EnvError::Value(left)),
        };
        Ok(SlotState {
            successful,
            bootable: successful || tries_left > 0,
            tries_left,
        })
    };
    Ok(SlotTable {
        first: Some(first),
        a: state(Slot::A)?,
        b: state(Slot::B)?,
    })
}

/// The variables that state `table`, by name.
fn encode(table: &SlotTable) -> [(&'static str, String); 5] {
    let good = |slot| {
        let state: SlotState = table.get(slot);
        u8::from(state.is_good()).to_string()
    };
    let left = |slot| {
        let state: SlotState = table.get(slot);
        let tries = if state.bootable { state.tries_left } else { 0 };
        tries.min(MAX_TRIES).to_string()
    };
    let order = match table.first {
        Some(Slot::B) => "B A",
        _ => "A B",
    };
    [
        ("BOOT_A_GOOD", good(Slot::A)),
        ("BOOT_A_LEFT", left(Slot::A)),
        ("BOOT_B_GOOD", good(Slot::B)),
        ("BOOT_B_LEFT", left(Slot::B)),
        (ORDER, order.to_owned()),
    ]
}

fn check_tries(tries: u8) -> Result<(), super::SlotError> {
    if tries == 0 || tries > MAX_TRIES {
        return Err(super::SlotError::Tries {
            tries,
            max: MAX_TRIES,
        });
    }
    Ok(())
}
