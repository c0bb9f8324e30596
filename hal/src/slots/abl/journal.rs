//! What a change of ABL's slots intends, written before its first sector and removed after its last. Repair does not
//! need it to know what to do, since the last disk decides; it tells that, and in what, a change was cut short.

use crate::slots::policy::Slot;

/// First word of the file.
const MAGIC: &str = "edge-slots-1";

/// Attributes of one entry, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The disk's logical unit.
    pub lun: u8,
    /// The partition's name.
    pub partition: String,
    /// Before.
    pub old: u64,
    /// After.
    pub new: u64,
}

/// An intended change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// The slot that comes first afterwards.
    pub first: Slot,
    /// Entries that change, in the order of the disks.
    pub changes: Vec<Change>,
}

/// The file is not a journal of ours, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a journal of this version, or damaged")]
pub struct JournalDamaged;

impl Journal {
    /// Lines of text, the last with the checksum of the others.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{MAGIC} {}\n", self.first);
        for change in &self.changes {
            text.push_str(&format!(
                "{} {:016x} {:016x} {}\n",
                change.lun, change.old, change.new, change.partition
            ));
        }
        let sum = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("{sum:08x}\n"));
        text.into_bytes()
    }

    /// Reads what [`Journal::encode`] wrote.
    ///
    /// # Errors
    /// [`JournalDamaged`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, JournalDamaged> {
        let text = std::str::from_utf8(bytes).map_err(|_| JournalDamaged)?;
        let body_bytes = text.len().checked_sub(9).ok_or(JournalDamaged)?;
        let (body, sum) = text.split_at_checked(body_bytes).ok_or(JournalDamaged)?;
        if sum != format!("{:08x}\n", crc32fast::hash(body.as_bytes())) {
            return Err(JournalDamaged);
        }
        let mut lines = body.lines();
        let first = match lines.next().and_then(|line| line.split_once(' ')) {
            Some((MAGIC, "A")) => Slot::A,
            Some((MAGIC, "B")) => Slot::B,
            _ => return Err(JournalDamaged),
        };
        let changes = lines
            .map(|line| {
                let mut words = line.splitn(4, ' ');
                Some(Change {
                    lun: words.next()?.parse().ok()?,
                    old: u64::from_str_radix(words.next()?, 16).ok()?,
                    new: u64::from_str_radix(words.next()?, 16).ok()?,
                    partition: words.next()?.to_owned(),
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(JournalDamaged)?;
        Ok(Self { first, changes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = Change> {
        ("[a-z_]{1,36}", any::<u8>(), any::<u64>(), any::<u64>()).prop_map(
            |(partition, lun, old, new)| Change {
                lun,
                partition,
                old,
                new,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(changes in prop::collection::vec(change(), 0..8), b: bool) {
            let journal = Journal { first: if b { Slot::B } else { Slot::A }, changes };
            prop_assert_eq!(Journal::decode(&journal.encode()), Ok(journal));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Journal::decode(&bytes), Err(JournalDamaged));
        }

        #[test]
        fn a_changed_byte_is_noticed(change in change(), at: prop::sample::Index, bit in 0_u8..8) {
            let mut bytes = Journal { first: Slot::A, changes: vec![change] }.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Journal::decode(&bytes), Err(JournalDamaged));
        }
    }
}
