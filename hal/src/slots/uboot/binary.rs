//! U-Boot's redundant environment: two copies of a CRC32, a flag byte and variables that end in NUL. A change writes
//! the copy that does not count, with the next flag, so that the other one stays whole.
//!
//! Layout and choice: U-Boot's `include/env_internal.h` (`env_t`) and `env/common.c` (`env_import_redund`).

use super::{Copies, EnvError, Found, UbootSlots, at, decode, encode, unread, written};
use crate::slots::{
    SlotError,
    block::BlockDevice,
    policy::{Slot, SlotTable},
};

/// Bytes of checksum and flag before the variables.
const HEADER_BYTES: usize = 5;

/// An environment, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The flag: the higher counts, and 0 is higher than 255.
    pub flag: u8,
    /// Names and values.
    pub variables: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Environment {
    /// Reads a copy; none where its checksum is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stated = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let flag = *bytes.get(4)?;
        let data = bytes.get(HEADER_BYTES..)?;
        if crc32fast::hash(data) != stated {
            return None;
        }
        let variables = data
            .split(|byte| *byte == 0)
            .take_while(|variable| !variable.is_empty())
            .filter_map(|variable| {
                let at = variable.iter().position(|byte| *byte == b'=')?;
                let (name, value) = variable.split_at(at);
                Some((name.to_vec(), value.get(1..)?.to_vec()))
            })
            .collect();
        Some(Self { flag, variables })
    }

    /// A copy of `size` bytes; none where the variables do not fit.
    #[must_use]
    pub fn encode(&self, size: usize) -> Option<Vec<u8>> {
        let mut data = Vec::with_capacity(size);
        for (name, value) in &self.variables {
            data.extend_from_slice(name);
            data.push(b'=');
            data.extend_from_slice(value);
            data.push(0);
        }
        data.push(0);
        let room = size.checked_sub(HEADER_BYTES)?;
        if data.len() > room {
            return None;
        }
        data.resize(room, 0);
        let mut bytes = crc32fast::hash(&data).to_le_bytes().to_vec();
        bytes.push(self.flag);
        bytes.append(&mut data);
        Some(bytes)
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .variables
            .iter()
            .find(|(found, _)| found == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    fn set(&mut self, name: &str, value: String) {
        let value = value.into_bytes();
        let found = self
            .variables
            .iter_mut()
            .find(|(found, _)| found == name.as_bytes());
        match found {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.as_bytes().to_vec(), value)),
        }
    }
}

/// Which of two valid copies counts, as U-Boot decides.
fn newer(first: u8, second: u8) -> usize {
    match (first, second) {
        (255, 0) => 1,
        (0, 255) => 0,
        _ => usize::from(second > first),
    }
}

/// A copy's place.
pub struct EnvCopy<D> {
    /// Its name in messages.
    pub name: String,
    /// The device.
    pub device: D,
    /// Bytes from its start.
    pub offset_bytes: u64,
}

/// U-Boot's slots in its redundant environment.
pub type UbootBinarySlots<D> = UbootSlots<EnvCopies<D>>;

/// Both copies of an environment.
pub struct EnvCopies<D> {
    copies: [EnvCopy<D>; 2],
    size: usize,
}

impl<D: BlockDevice> UbootBinarySlots<D> {
    /// The slots in two copies of `size_bytes` each.
    ///
    /// # Errors
    /// [`SlotError::Tries`], and [`EnvError::Size`] for copies below 1 KiB or above 1 MiB.
    pub fn new(
        copies: [EnvCopy<D>; 2],
        size_bytes: u32,
        tries: u8,
        running: Option<Slot>,
    ) -> Result<Self, SlotError> {
        let size = usize::try_from(size_bytes)
            .ok()
            .filter(|size| (1024..=1024 * 1024).contains(size))
            .ok_or_else(|| at(&copies[0].name, EnvError::Size(size_bytes)))?;
        Self::over(EnvCopies { copies, size }, tries, running)
    }
}

impl<D: BlockDevice> EnvCopies<D> {
    fn error(&self, source: EnvError) -> SlotError {
        at(&self.copies[0].name, source)
    }
}

impl<D: BlockDevice> Copies for EnvCopies<D> {
    type Base = Environment;

    fn find(&mut self) -> Result<Found<Environment>, SlotError> {
        let size = self.size;
        let read = |copy: &mut EnvCopy<D>| {
            let mut bytes = vec![0; size];
            match copy.device.read_at(copy.offset_bytes, &mut bytes) {
                Ok(()) => Ok(Environment::decode(&bytes)),
                Err(source) => Err(unread(&copy.name, source)),
            }
        };
        let [first, second] = &mut self.copies;
        let (first, second) = (read(first)?, read(second)?);
        let is_damaged = first.is_none() || second.is_none();
        let (base, spare) = match (first, second) {
            (Some(first), Some(second)) => match newer(first.flag, second.flag) {
                0 => (first, 1),
                _ => (second, 0),
            },
            (Some(first), None) => (first, 1),
            (None, Some(second)) => (second, 0),
            (None, None) => return Err(self.error(EnvError::BothDamaged)),
        };
        let table = decode(|name| base.get(name)).map_err(|source| self.error(source))?;
        Ok(Found {
            table,
            base,
            spare,
            is_damaged,
        })
    }

    fn put(&mut self, found: Found<Environment>, table: &SlotTable) -> Result<(), SlotError> {
        let mut environment = found.base;
        for (name, value) in encode(table) {
            environment.set(name, value);
        }
        environment.flag = environment.flag.wrapping_add(1);
        let bytes = environment.encode(self.size);
        let bytes = bytes.ok_or_else(|| self.error(EnvError::Full))?;
        let [first, second] = &mut self.copies;
        let spare = if found.spare == 0 { first } else { second };
        let write = |copy: &mut EnvCopy<D>| {
            copy.device.write_at(copy.offset_bytes, &bytes)?;
            copy.device.flush()?;
            let mut read = vec![0; bytes.len()];
            copy.device.read_at(copy.offset_bytes, &mut read)?;
            Ok(read == bytes)
        };
        let reads_back = write(spare);
        written(&self.copies[0].name, reads_back)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_environment_survives_its_bytes(
            flag: u8,
            variables in prop::collection::vec(("[a-zA-Z_]{1,12}", "[ -~]{0,20}"), 0..12),
        ) {
            let variables = variables
                .into_iter()
                .map(|(name, value)| (name.into_bytes(), value.into_bytes()))
                .collect();
            let environment = Environment { flag, variables };
            let bytes = environment.encode(1024).unwrap();
            prop_assert_eq!(bytes.len(), 1024);
            prop_assert_eq!(Environment::decode(&bytes), Some(environment));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), fix: bool) {
            if fix && bytes.len() > HEADER_BYTES {
                let sum = crc32fast::hash(&bytes[HEADER_BYTES..]).to_le_bytes();
                bytes[..4].copy_from_slice(&sum);
                let environment = Environment::decode(&bytes).unwrap();
                let _any = decode(|name| environment.get(name));
            } else {
                let _any = Environment::decode(&bytes);
            }
        }
    }

    #[test]
    fn the_flag_wraps() {
        assert_eq!(newer(1, 2), 1);
        assert_eq!(newer(2, 1), 0);
        assert_eq!(newer(255, 0), 1);
        assert_eq!(newer(0, 255), 0);
        assert_eq!(newer(7, 7), 0);
    }

    #[test]
    fn variables_that_do_not_fit_are_refused() {
        let environment = Environment {
            flag: 0,
            variables: vec![(b"a".to_vec(), vec![b'x'; 1020])],
        };
        assert_eq!(environment.encode(1024), None);
    }
}
