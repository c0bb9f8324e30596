//! Slots of U-Boot, in variables that its boot script reads: `BOOT_ORDER`, and for each slot `BOOT_A_LEFT` and
//! `BOOT_A_GOOD`. The first two are RAUC's; the third keeps a proved slot from losing its tries to power cuts.

pub mod binary;
pub mod text;

use std::io;

pub use self::{binary::UbootBinarySlots, text::UbootTextSlots};
use super::{
    SlotControl, SlotError, SlotStatus, Unfinished,
    policy::{Fallback, Slot, SlotState, SlotTable},
};

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

/// A record in two copies, of which one counts: a change overwrites the other one, and then that one counts.
pub trait Copies {
    /// What a change needs to know of the copy that counts, besides its slots.
    type Base;

    /// Finds the copy that counts.
    ///
    /// # Errors
    /// [`SlotError::Env`] where the copies cannot be read or do not say what the slots are.
    fn find(&mut self) -> Result<Found<Self::Base>, SlotError>;

    /// Writes slots over the copy that does not count, and reads it back.
    ///
    /// # Errors
    /// [`SlotError::Env`] where that fails; the copy that counts is whole.
    fn put(&mut self, found: Found<Self::Base>, table: &SlotTable) -> Result<(), SlotError>;
}

/// The copy that counts.
pub struct Found<B> {
    /// Its slots.
    pub table: SlotTable,
    /// What a change builds on.
    pub base: B,
    /// The other copy's place, 0 or 1.
    pub spare: usize,
    /// Whether a copy is not valid.
    pub is_damaged: bool,
}

/// U-Boot's slots in such a record.
pub struct UbootSlots<C> {
    copies: C,
    tries: u8,
    running: Option<Slot>,
}

impl<C: Copies> UbootSlots<C> {
    fn over(copies: C, tries: u8, running: Option<Slot>) -> Result<Self, SlotError> {
        if tries == 0 || tries > MAX_TRIES {
            let max = MAX_TRIES;
            return Err(SlotError::Tries { tries, max });
        }
        Ok(Self {
            copies,
            tries,
            running,
        })
    }

    fn change(
        &mut self,
        decide: impl FnOnce(SlotTable) -> Result<SlotTable, SlotError>,
    ) -> Result<(), SlotError> {
        let found = self.copies.find()?;
        let table = decide(found.table)?;
        if table == found.table {
            return Ok(());
        }
        self.copies.put(found, &table)
    }
}

impl<C: Copies + Send> SlotControl for UbootSlots<C> {
    fn status(&mut self) -> Result<SlotStatus, SlotError> {
        let found = self.copies.find()?;
        Ok(SlotStatus {
            table: found.table,
            running: self.running,
            next: found.table.next(Fallback::Startable),
            unfinished: found.is_damaged.then_some(Unfinished::CopiesDiffer),
        })
    }

    fn arm(&mut self, slot: Slot) -> Result<(), SlotError> {
        let (running, tries) = (self.running, self.tries);
        self.change(|table| Ok(table.armed(running, slot, tries)?))
    }

    fn mark_good(&mut self, slot: Slot) -> Result<(), SlotError> {
        let (running, tries) = (self.running, self.tries);
        self.change(|table| Ok(table.proved(running, slot, tries)?))
    }

    fn mark_dead(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.change(|table| Ok(table.given_up(slot)?))
    }

    fn repair(&mut self) -> Result<(), SlotError> {
        // The damaged one is the spare one, unless both are; then the other one follows.
        for _ in 0..2 {
            let found = self.copies.find()?;
            if !found.is_damaged {
                break;
            }
            let table = found.table;
            self.copies.put(found, &table)?;
        }
        Ok(())
    }
}

/// The outcome of a write to a place that messages call `place`, by whether it reads back the same.
fn written(place: &str, reads_back: io::Result<bool>) -> Result<(), SlotError> {
    let source = match reads_back {
        Ok(true) => return Ok(()),
        Ok(false) => EnvError::ReadBack,
        Err(source) => EnvError::Io {
            operation: "write",
            source,
        },
    };
    Err(at(place, source))
}

/// What a place could not be read for.
fn unread(place: &str, source: io::Error) -> SlotError {
    let operation = "read";
    at(place, EnvError::Io { operation, source })
}

fn at(place: &str, source: EnvError) -> SlotError {
    let place = place.to_owned();
    SlotError::Env { place, source }
}
