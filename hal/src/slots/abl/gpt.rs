//! A disk's GPT, read with all its checks and written so that one valid copy exists at every moment. Only attributes
//! of entries change here; it must not know what they mean.
//!
//! Layout and checks: UEFI specification 2.10, section 5.3. Bounds are ABL's (`ParseGptHeader`), which are narrower:
//! entries of 128 bytes, 128 of them at most.

use crate::slots::block::BlockDevice;

/// "EFI PART".
const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const MIN_HEADER_BYTES: u32 = 92;
const ENTRY_BYTES: usize = 128;
const MAX_ENTRIES: u32 = 128;

// Offsets in a header.
const HEADER_SIZE: usize = 12;
const HEADER_CRC: usize = 16;
const MY_LBA: usize = 24;
const ALTERNATE_LBA: usize = 32;
const FIRST_USABLE_LBA: usize = 40;
const LAST_USABLE_LBA: usize = 48;
const ENTRIES_LBA: usize = 72;
const ENTRY_COUNT: usize = 80;
const ENTRY_SIZE: usize = 84;
const ENTRIES_CRC: usize = 88;

// Offsets in an entry.
const TYPE_GUID: std::ops::Range<usize> = 0..16;
const FIRST_LBA: usize = 32;
const LAST_LBA: usize = 40;
const ATTRIBUTES: usize = 48;
const NAME: std::ops::Range<usize> = 56..128;

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// Sectors of a size that GPT disks here do not have.
    #[error("sectors of {0} bytes are not supported; 512 and 4096 are")]
    SectorSize(u32),
    /// Too small for a table, or no whole number of sectors.
    #[error("the disk has {0} bytes, which cannot hold a partition table")]
    DiskSize(u64),
    /// No copy is valid.
    #[error(
        "both copies of the partition table are damaged (primary: {primary}; backup: {backup}); write the partition table again with the flashing tool"
    )]
    BothDamaged {
        /// What is wrong with the first.
        primary: Damage,
        /// What is wrong with the second.
        backup: Damage,
    },
    /// Two partitions have one name.
    #[error("two partitions are named {0}")]
    DuplicateName(String),
    /// A partition that must be there is not.
    #[error("no partition is named {0}")]
    NoPartition(String),
    /// The disk does not answer.
    #[error("cannot {operation} the partition table")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The disk returns something else than was written.
    #[error(
        "the partition table reads back differently than it was written; the disk may be failing"
    )]
    ReadBack,
}

/// What is wrong with a copy of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// No header.
    #[error("no signature")]
    Signature,
    /// A header of another kind.
    #[error("unknown revision or header size")]
    Revision,
    /// The header's checksum.
    #[error("header checksum")]
    HeaderCrc,
    /// It says to lie elsewhere.
    #[error("wrong place")]
    Place,
    /// Size or number of entries.
    #[error("size or number of entries")]
    EntryBounds,
    /// Entries or usable blocks outside the disk or over one another.
    #[error("blocks out of bounds")]
    BlockBounds,
    /// The entries' checksum.
    #[error("entries checksum")]
    EntriesCrc,
    /// A partition outside the usable blocks, or over another.
    #[error("partitions out of bounds or overlapping")]
    Partitions,
}

/// One copy: a header's sector and the sectors of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Copy {
    header: Vec<u8>,
    /// Whole sectors; what is behind the last entry is kept as it is.
    entries: Vec<u8>,
}

/// Place of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Primary,
    Backup,
}

/// A disk's table, as a boot loader takes it: the primary copy, or the backup where the primary is damaged.
#[derive(Debug, Clone)]
pub struct Gpt {
    sector: u64,
    sectors: u64,
    primary: Option<Copy>,
    backup: Option<Copy>,
    /// The copy that counts, as it is on the disk.
    read: Copy,
    read_from: Place,
    /// The entries with the changes.
    entries: Vec<u8>,
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    Some(u64::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    let end = offset.saturating_add(value.len());
    if let Some(target) = bytes.get_mut(offset..end) {
        target.copy_from_slice(value);
    }
}

fn name_of(entry: &[u8]) -> String {
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
    fn count(&self) -> usize {
        u32_at(&self.header, ENTRY_COUNT)
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
    }

    /// The same table with other entries at another place.
    fn moved(&self, entries: &[u8], my_lba: u64, alternate_lba: u64, entries_lba: u64) -> Self {
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

/// Sectors of a table's entries: at least the 16 KiB that the specification reserves.
fn entry_sectors(sector: u64) -> u64 {
    (u64::from(MAX_ENTRIES) * 128).div_ceil(sector)
}

impl Gpt {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`GptError`] when the disk does not answer or no copy is valid.
    pub fn read(device: &mut dyn BlockDevice) -> Result<Self, GptError> {
        let sector_bytes = device.sector_bytes();
        if sector_bytes != 512 && sector_bytes != 4096 {
            return Err(GptError::SectorSize(sector_bytes));
        }
        let sector = u64::from(sector_bytes);
        let size = device.size_bytes();
        let sectors = size / sector;
        if !size.is_multiple_of(sector) || sectors < 2 * entry_sectors(sector) + 4 {
            return Err(GptError::DiskSize(size));
        }
        let primary = read_copy(device, sector, sectors, Place::Primary)?;
        let backup = read_copy(device, sector, sectors, Place::Backup)?;
        let (read, read_from) = match (&primary, &backup) {
            (Ok(primary), _) => (primary.clone(), Place::Primary),
            (Err(_), Ok(backup)) => (backup.clone(), Place::Backup),
            (Err(primary), Err(backup)) => {
                return Err(GptError::BothDamaged {
                    primary: *primary,
                    backup: *backup,
                });
            }
        };
        Ok(Self {
            sector,
            sectors,
            primary: primary.ok(),
            backup: backup.ok(),
            entries: read.entries.clone(),
            read,
            read_from,
        })
    }

    /// Whether both copies are valid and say the same.
    #[must_use]
    pub fn copies_agree(&self) -> bool {
        match (&self.primary, &self.backup) {
            (Some(primary), Some(backup)) => {
                let used = self.read.count().saturating_mul(ENTRY_BYTES);
                primary.count() == backup.count()
                    && primary.entries.get(..used) == backup.entries.get(..used)
            }
            _ => false,
        }
    }

    /// The index of the partition with this name; none where there is none.
    ///
    /// # Errors
    /// [`GptError::DuplicateName`].
    pub fn find(&self, name: &str) -> Result<Option<usize>, GptError> {
        let mut found = self
            .entries
            .chunks_exact(ENTRY_BYTES)
            .take(self.read.count())
            .enumerate()
            .filter(|(_, entry)| {
                entry
                    .get(TYPE_GUID)
                    .is_some_and(|guid| guid.iter().any(|byte| *byte != 0))
                    && name_of(entry) == name
            })
            .map(|(index, _)| index);
        let first = found.next();
        if found.next().is_some() {
            return Err(GptError::DuplicateName(name.to_owned()));
        }
        Ok(first)
    }

    fn entry(&self, index: usize) -> &[u8] {
        self.entries
            .chunks_exact(ENTRY_BYTES)
            .nth(index)
            .unwrap_or_default()
    }

    /// The attributes of a partition.
    #[must_use]
    pub fn attributes(&self, index: usize) -> u64 {
        u64_at(self.entry(index), ATTRIBUTES).unwrap_or(0)
    }

    /// The type of a partition, as its bytes.
    #[must_use]
    pub fn type_guid(&self, index: usize) -> &[u8] {
        self.entry(index).get(TYPE_GUID).unwrap_or_default()
    }

    /// Where a partition lies on the disk, in bytes.
    #[must_use]
    pub fn bytes(&self, index: usize) -> std::ops::Range<u64> {
        let entry = self.entry(index);
        let lba = |offset| u64_at(entry, offset).unwrap_or(0);
        // Checked when the table was read: both lie on the disk, whose size in bytes fits.
        let (first, last) = (lba(FIRST_LBA), lba(LAST_LBA));
        first.saturating_mul(self.sector)..last.saturating_add(1).saturating_mul(self.sector)
    }

    /// Changes the attributes of a partition, in memory.
    pub fn set_attributes(&mut self, index: usize, attributes: u64) {
        if let Some(entry) = self.entries.chunks_exact_mut(ENTRY_BYTES).nth(index) {
            put(entry, ATTRIBUTES, &attributes.to_le_bytes());
        }
    }

    /// Whether the disk does not yet hold, in both copies, what is in memory.
    #[must_use]
    pub fn needs_write(&self) -> bool {
        self.entries != self.read.entries || !self.copies_agree()
    }

    /// Writes both copies and reads them back.
    ///
    /// One copy is valid at every moment: a primary that is damaged is first restored from the backup, since the
    /// backup, which is written first, would otherwise be the only one. Each step is on the medium before the next.
    ///
    /// # Errors
    /// [`GptError::Io`] and [`GptError::ReadBack`]; the table is then the old or the new one, and
    /// [`Gpt::read`] tells.
    pub fn write(&mut self, device: &mut dyn BlockDevice) -> Result<(), GptError> {
        if self.primary.is_none() {
            let old = self.primary_of(&self.read.entries);
            self.put_copy(device, &old, Place::Primary)?;
        }
        let primary = self.primary_of(&self.entries);
        let backup = self.backup_of(&self.entries);
        self.put_copy(device, &backup, Place::Backup)?;
        self.put_copy(device, &primary, Place::Primary)?;
        let again = Self::read(device)?;
        if again.primary.as_ref() != Some(&primary) || again.backup.as_ref() != Some(&backup) {
            return Err(GptError::ReadBack);
        }
        *self = again;
        Ok(())
    }

    fn primary_of(&self, entries: &[u8]) -> Copy {
        let entries_lba = match self.read_from {
            Place::Primary => u64_at(&self.read.header, ENTRIES_LBA).unwrap_or(2),
            Place::Backup => 2,
        };
        self.read.moved(entries, 1, self.backup_lba(), entries_lba)
    }

    fn backup_of(&self, entries: &[u8]) -> Copy {
        let lba = self.backup_lba();
        let sectors = u64::try_from(entries.len())
            .unwrap_or(u64::MAX)
            .div_ceil(self.sector);
        let entries_lba = self
            .backup
            .as_ref()
            .and_then(|copy| u64_at(&copy.header, ENTRIES_LBA))
            .unwrap_or_else(|| lba.saturating_sub(sectors));
        self.read.moved(entries, lba, 1, entries_lba)
    }

    /// ABL looks for the backup in the last blocks of the disk and nowhere else.
    fn backup_lba(&self) -> u64 {
        self.sectors - 1
    }

    fn put_copy(
        &self,
        device: &mut dyn BlockDevice,
        copy: &Copy,
        place: Place,
    ) -> Result<(), GptError> {
        let lba = match place {
            Place::Primary => 1,
            Place::Backup => self.backup_lba(),
        };
        let operation = match place {
            Place::Primary => "write the primary copy of",
            Place::Backup => "write the backup copy of",
        };
        let failed = |source| GptError::Io { operation, source };
        let entries_lba = u64_at(&copy.header, ENTRIES_LBA).unwrap_or(2);
        device
            .write_at(entries_lba * self.sector, &copy.entries)
            .map_err(failed)?;
        device
            .write_at(lba * self.sector, &copy.header)
            .map_err(failed)?;
        // Without this the two copies could be torn together.
        device.flush().map_err(failed)
    }
}

fn read_copy(
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
                span.lba > last_usable && end < sectors
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
