//! U-Boot's slots in two text files on FAT, for boards whose U-Boot keeps no environment.
//!
//! FAT can neither rename nor overwrite atomically, so there are two files, `FILE.0` and `FILE.1`: the valid one with
//! the higher counter counts, and a change overwrites the other one. U-Boot's script does the same.

use super::{Copies, EnvError, Found, UbootSlots, at, decode, encode, unread, written};
use crate::slots::{
    SlotError,
    policy::{Slot, SlotTable},
    state_file::StateFile,
};

/// The counter's first value. Its top bit is always set, so that U-Boot, which writes no leading zeros, writes eight
/// digits.
const FIRST_COUNT: u32 = 0x8000_0000;
/// Set in the checksum for the same reason.
const SUM_BIT: u32 = 0x8000_0000;
/// Bytes before the line with the checksum: 0x59 in the script.
const SUMMED_BYTES: usize = 89;
/// Bytes of a file: 0x6b in the script.
const FILE_BYTES: usize = 107;

/// The checksum as U-Boot sees it: `crc32` stores it with its high byte first, `setexpr.l` reads it back with its
/// low byte first.
fn sum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes).swap_bytes() | SUM_BIT
}

/// What a valid file states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextState {
    /// The slots.
    pub table: SlotTable,
    /// Number of the change that wrote it, from 0x8000_0000 on.
    pub count: u32,
}

impl TextState {
    /// The file, as `env export -t` would write it and `env import -t` reads it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = String::new();
        for (name, value) in encode(&self.table) {
            text.push_str(&format!("{name}={value}\n"));
        }
        text.push_str(&format!("BOOT_SEQ={:08x}\n", self.count));
        let sum = sum(text.as_bytes());
        text.push_str(&format!("BOOT_SUM={sum:08x}\n"));
        text.into_bytes()
    }

    /// Reads a file; none where it is not whole and ours.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != FILE_BYTES {
            return None;
        }
        let summed = bytes.get(..SUMMED_BYTES)?;
        let line = |name: &str| {
            let text = std::str::from_utf8(bytes).ok()?;
            text.lines().find_map(|line| {
                let (found, value) = line.split_once('=')?;
                (found == name).then_some(value.as_bytes())
            })
        };
        let number = |name| {
            let text = std::str::from_utf8(line(name)?).ok()?;
            (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok())?
        };
        if number("BOOT_SUM")? != sum(summed) {
            return None;
        }
        let state = Self {
            table: decode(line).ok()?,
            count: number("BOOT_SEQ")?,
        };
        (state.encode() == bytes).then_some(state)
    }
}

/// U-Boot's slots in two text files.
pub type UbootTextSlots<F> = UbootSlots<TextCopies<F>>;

/// Both files.
pub struct TextCopies<F> {
    copies: [F; 2],
    name: String,
}

impl<F: StateFile> UbootTextSlots<F> {
    /// The slots in two files, which messages call `name`.
    ///
    /// # Errors
    /// [`SlotError::Tries`].
    pub fn new(
        copies: [F; 2],
        name: &str,
        tries: u8,
        running: Option<Slot>,
    ) -> Result<Self, SlotError> {
        let name = name.to_owned();
        Self::over(TextCopies { copies, name }, tries, running)
    }
}

impl<F: StateFile> Copies for TextCopies<F> {
    /// The counter.
    type Base = u32;

    fn find(&mut self) -> Result<Found<u32>, SlotError> {
        let mut is_damaged = false;
        let mut newest: Option<(usize, TextState)> = None;
        for (index, copy) in self.copies.iter_mut().enumerate() {
            let bytes = copy.read().map_err(|source| unread(&self.name, source))?;
            let Some(bytes) = bytes else { continue };
            match TextState::decode(&bytes) {
                None => is_damaged = true,
                Some(state) => {
                    if newest.is_none_or(|(_, newest)| state.count > newest.count) {
                        newest = Some((index, state));
                    }
                }
            }
        }
        let (table, base, spare) = match newest {
            Some((index, state)) => (state.table, state.count, 1 - index),
            // What the script assumes.
            None => {
                let table = decode(|_| None).map_err(|source| at(&self.name, source))?;
                (table, FIRST_COUNT, 0)
            }
        };
        Ok(Found {
            table,
            base,
            spare,
            is_damaged,
        })
    }

    fn put(&mut self, found: Found<u32>, table: &SlotTable) -> Result<(), SlotError> {
        let count = found.base.checked_add(1);
        let count = count.ok_or_else(|| at(&self.name, EnvError::CounterUsedUp))?;
        let table = *table;
        let bytes = TextState { table, count }.encode();
        let write = |copy: &mut F| {
            copy.write(&bytes)?;
            Ok(copy.read()?.is_some_and(|read| read == bytes))
        };
        let [first, second] = &mut self.copies;
        let reads_back = write(if found.spare == 0 { first } else { second });
        written(&self.name, reads_back)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::slots::policy::SlotState;

    fn state() -> impl Strategy<Value = TextState> {
        let slot = || {
            (any::<bool>(), 0_u8..10).prop_map(|(successful, tries_left)| SlotState {
                successful,
                bootable: successful || tries_left > 0,
                tries_left,
            })
        };
        let first = prop_oneof![Just(Slot::A), Just(Slot::B)];
        (first, slot(), slot(), FIRST_COUNT..).prop_map(|(first, a, b, count)| TextState {
            table: SlotTable {
                first: Some(first),
                a,
                b,
            },
            count,
        })
    }

    proptest! {
        #[test]
        fn a_state_survives_its_file_of_constant_size(state in state()) {
            let bytes = state.encode();
            prop_assert_eq!(bytes.len(), FILE_BYTES);
            prop_assert_eq!(&bytes[SUMMED_BYTES..SUMMED_BYTES + 9], b"BOOT_SUM=");
            prop_assert_eq!(TextState::decode(&bytes), Some(state));
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(TextState::decode(&bytes), None);
        }

        #[test]
        fn a_mixture_of_two_states_is_refused(old in state(), new in state(), at in 1..FILE_BYTES) {
            let mut bytes = new.encode();
            bytes[at..].copy_from_slice(&old.encode()[at..]);
            if bytes != old.encode() && bytes != new.encode() {
                prop_assert_eq!(TextState::decode(&bytes), None);
            }
        }
    }

    #[test]
    fn the_file_is_what_the_script_writes_and_reads() {
        // Written by the script under Debian's U-Boot 2023.01 for qemu_arm64, at its first start without files.
        let written = "BOOT_A_GOOD=0\nBOOT_A_LEFT=2\nBOOT_B_GOOD=0\nBOOT_B_LEFT=3\nBOOT_ORDER=A B\n\
                       BOOT_SEQ=80000001\nBOOT_SUM=c918d694\n";
        let state = TextState::decode(written.as_bytes()).unwrap();
        assert_eq!(state.count, FIRST_COUNT + 1);
        assert_eq!(state.table.a.tries_left, 2);
        assert_eq!(state.encode(), written.as_bytes());
        let script = super::super::TEXT_BOOT_SCRIPT;
        for constant in [
            format!("setenv slots_summed {SUMMED_BYTES:x}"),
            format!("setenv slots_bytes {FILE_BYTES:x}"),
            format!("setenv BOOT_SEQ {FIRST_COUNT:x}"),
        ] {
            assert!(script.contains(&constant), "{constant}");
        }
    }
}
