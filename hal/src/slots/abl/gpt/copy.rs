//! One copy of a table: a header's sector and its entries, read and checked. What two of them mean is
//! [`super`]'s.
//!
//! Layout and checks: UEFI specification 2.10, section 5.3. Bounds are ABL's (`ParseGptHeader`), which are narrower:
//! entries of 128 bytes, 128 of them at most.

use super::{Damage, GptError};
use crate::slots::block::BlockDevice;

/// "EFI PART".
const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const MIN_HEADER_BYTES: u32 = 92;
pub(super) const ENTRY_BYTES: usize = 128;
pub(super) const MAX_ENTRIES: u32 = 128;

// Offsets in a header.
const HEADER_SIZE: usize = 12;
const HEADER_CRC: usize = 16;
const MY_LBA: usize = 24;
const ALTERNATE_LBA: usize = 32;
const FIRST_USABLE_LBA: usize = 40;
const LAST_USABLE_LBA: usize = 48;
pub(super) const ENTRIES_LBA: usize = 72;
const ENTRY_COUNT: usize = 80;
const ENTRY_SIZE: usize = 84;
const ENTRIES_CRC: usize = 88;

// Offsets in an entry.
pub(super) const TYPE_GUID: std::ops::Range<usize> = 0..16;
pub(super) const FIRST_LBA: usize = 32;
pub(super) const LAST_LBA: usize = 40;
pub(super) const ATTRIBUTES: usize = 48;
const NAME: std::ops::Range<usize> = 56..128;

/// One copy: a header's sector and the sectors of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) header: Vec<u8>,
    /// Whole sectors; what is behind the last entry is kept as it is.
    pub(super) entries: Vec<u8>,
}

/// Place of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Primary,
    Backup,
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    Some(u64::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

pub(super) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    let end = offset.saturating_add(value.len());
    if let Some(target) = bytes.get_mut(offset..end) {
        target.copy_from_slice(value);
    }
}

pub(super) fn name_of(entry: &[u8]) -> String {
    let units = entry
        .get(NAME)
        .unwrap_or_default()
        .chunks_exact(2)
        .filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)))
        .take_while(|unit| *unit != 0);
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

fn header_crc(header: &[u8], size: usize) -> Option<u32> {
    let mut copy = header.get(..size)?.to_vec();
    put(&mut copy, HEADER_CRC, &[0; 4]);
    Some(crc32fast::hash(&copy))
}

impl Copy {
    pub(super) fn count(&self) -> usize {
        u32_at(&self.header, ENTRY_COUNT)
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
    }

    /// The same table with other entries at another place.
    pub(super) fn moved(
        &self,
        entries: &[u8],
        my_lba: u64,
        alternate_lba: u64,
        entries_lba: u64,
    ) -> Self {
        let mut header = self.header.clone();
        put(&mut header, MY_LBA, &my_lba.to_le_bytes());
        put(&mut header, ALTERNATE_LBA, &alternate_lba.to_le_bytes());
        put(&mut header, ENTRIES_LBA, &entries_lba.to_le_bytes());
        let used = entries
            .get(..self.count().saturating_mul(ENTRY_BYTES))
            .unwrap_or(entries);
        put(
            &mut header,
            ENTRIES_CRC,
            &crc32fast::hash(used).to_le_bytes(),
        );
        let size = u32_at(&header, HEADER_SIZE)
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(header.len());
        if let Some(crc) = header_crc(&header, size) {
            put(&mut header, HEADER_CRC, &crc.to_le_bytes());
        }
        Self {
            header,
            entries: entries.to_vec(),
        }
    }
}

pub(super) fn read_copy(
    device: &mut dyn BlockDevice,
    sector: u64,
    sectors: u64,
    place: Place,
) -> Result<Result<Copy, Damage>, GptError> {
    let lba = match place {
        Place::Primary => 1,
        Place::Backup => sectors - 1,
    };
    let read = |device: &mut dyn BlockDevice, lba: u64, sector_count: u64| {
        let bytes =
            usize::try_from(sector_count * sector).map_err(|_| GptError::DiskSize(sector))?;
        let mut buffer = vec![0; bytes];
        device
            .read_at(lba * sector, &mut buffer)
            .map_err(|source| GptError::Io {
                operation: "read",
                source,
            })?;
        Ok(buffer)
    };
    let header = read(device, lba, 1)?;
    let span = match check_header(&header, sector, sectors, lba) {
        Ok(span) => span,
        Err(damage) => return Ok(Err(damage)),
    };
    let entries = read(device, span.lba, span.sectors)?;
    Ok(check_entries(&header, &entries).map(|()| Copy { header, entries }))
}

struct Span {
    lba: u64,
    sectors: u64,
}

fn check_header(header: &[u8], sector: u64, sectors: u64, lba: u64) -> Result<Span, Damage> {
    let short = || Damage::Signature;
    if header.get(..8) != Some(SIGNATURE) {
        return Err(Damage::Signature);
    }
    let size = u32_at(header, HEADER_SIZE).ok_or_else(short)?;
    if u32_at(header, 8) != Some(REVISION) || size < MIN_HEADER_BYTES || u64::from(size) > sector {
        return Err(Damage::Revision);
    }
    let size = usize::try_from(size).map_err(|_| Damage::Revision)?;
    if header_crc(header, size) != u32_at(header, HEADER_CRC) {
        return Err(Damage::HeaderCrc);
    }
    let alternate = if lba == 1 { sectors - 1 } else { 1 };
    if u64_at(header, MY_LBA) != Some(lba) || u64_at(header, ALTERNATE_LBA) != Some(alternate) {
        return Err(Damage::Place);
    }
    let count = u32_at(header, ENTRY_COUNT).ok_or_else(short)?;
    if u32_at(header, ENTRY_SIZE) != Some(128) || count == 0 || count > MAX_ENTRIES {
        return Err(Damage::EntryBounds);
    }
    let span = Span {
        lba: u64_at(header, ENTRIES_LBA).ok_or_else(short)?,
        sectors: (u64::from(count) * 128).div_ceil(sector),
    };
    let first_usable = u64_at(header, FIRST_USABLE_LBA).ok_or_else(short)?;
    let last_usable = u64_at(header, LAST_USABLE_LBA).ok_or_else(short)?;
    let end = span.lba.checked_add(span.sectors);
    let fits = first_usable <= last_usable
        && last_usable < sectors - 1
        && end.is_some_and(|end| {
            if lba == 1 {
                span.lba >= 2 && end <= first_usable
            } else {
                // The primary copy, where it must be written again, needs its room too.
                span.lba > last_usable && end < sectors && first_usable >= 2 + span.sectors
            }
        });
    if fits {
        Ok(span)
    } else {
        Err(Damage::BlockBounds)
    }
}

fn check_entries(header: &[u8], entries: &[u8]) -> Result<(), Damage> {
    let count = u32_at(header, ENTRY_COUNT)
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(Damage::EntryBounds)?;
    let used = entries
        .get(..count.saturating_mul(ENTRY_BYTES))
        .ok_or(Damage::EntryBounds)?;
    if Some(crc32fast::hash(used)) != u32_at(header, ENTRIES_CRC) {
        return Err(Damage::EntriesCrc);
    }
    let first_usable = u64_at(header, FIRST_USABLE_LBA).ok_or(Damage::Partitions)?;
    let last_usable = u64_at(header, LAST_USABLE_LBA).ok_or(Damage::Partitions)?;
    let mut spans: Vec<(u64, u64)> = used
        .chunks_exact(ENTRY_BYTES)
        .filter(|entry| {
            entry
                .get(TYPE_GUID)
                .is_some_and(|guid| guid.iter().any(|byte| *byte != 0))
        })
        .filter_map(|entry| Some((u64_at(entry, FIRST_LBA)?, u64_at(entry, LAST_LBA)?)))
        .collect();
    spans.sort_unstable();
    let mut next_free = first_usable;
    for (first, last) in spans {
        if first < next_free || last < first || last > last_usable {
            return Err(Damage::Partitions);
        }
        next_free = last.saturating_add(1);
    }
    Ok(())
}
