//! How ABL chooses a slot, written from its public source: QcomModulePkg/Library/BootLib/PartitionTableUpdate.c of
//! Qualcomm's abl/tianocore/edk2. Function names below are its. It shares no code with what it judges, and builds the
//! images too.

use edge_hal::slots::Slot;

use super::slots_power::crc;

pub(crate) const PRIORITY: u64 = 3 << 48;
pub(crate) const ACTIVE: u64 = 1 << 50;
pub(crate) const RETRY: u64 = 7 << 51;
pub(crate) const SUCCESSFUL: u64 = 1 << 54;
pub(crate) const UNBOOTABLE: u64 = 1 << 55;

/// A partition of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) kind: [u8; 16],
    pub(crate) name: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) attributes: u64,
}

fn entry_blocks(sector: usize) -> usize {
    16384 / sector
}

/// An image with both copies of a table.
pub(crate) fn image(sector: usize, sectors: usize, parts: &[Part]) -> Vec<u8> {
    let mut disk = vec![0; sector * sectors];
    disk[450] = 0xEE;
    disk[454..458].copy_from_slice(&1_u32.to_le_bytes());
    let covered = u32::try_from(sectors - 1).unwrap();
    disk[458..462].copy_from_slice(&covered.to_le_bytes());
    disk[510] = 0x55;
    disk[511] = 0xAA;
    let mut entries = vec![0; 16384];
    for (entry, part) in entries.chunks_mut(128).zip(parts) {
        entry[..16].copy_from_slice(&part.kind);
        entry[16..32].copy_from_slice(&[part.first as u8; 16]);
        entry[32..40].copy_from_slice(&part.first.to_le_bytes());
        entry[40..48].copy_from_slice(&part.last.to_le_bytes());
        entry[48..56].copy_from_slice(&part.attributes.to_le_bytes());
        for (at, unit) in part.name.encode_utf16().enumerate() {
            entry[56 + 2 * at..58 + 2 * at].copy_from_slice(&unit.to_le_bytes());
        }
    }
    let blocks = entry_blocks(sector);
    let last = sectors - 1;
    for (lba, other, at) in [(1, last, 2), (last, 1, last - blocks)] {
        let mut header = vec![0; sector];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x1_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&(lba as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(other as u64).to_le_bytes());
        header[40..48].copy_from_slice(&(2 + blocks as u64).to_le_bytes());
        header[48..56].copy_from_slice(&((last - blocks - 1) as u64).to_le_bytes());
        header[56..72].copy_from_slice(&[7; 16]);
        header[72..80].copy_from_slice(&(at as u64).to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc(&entries).to_le_bytes());
        let sum = crc(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        disk[lba * sector..(lba + 1) * sector].copy_from_slice(&header);
        disk[at * sector..at * sector + 16384].copy_from_slice(&entries);
    }
    disk
}

/// Places of both copies: header, entries.
fn places(sector: usize, disk: &[u8]) -> [(usize, usize); 2] {
    let last = disk.len() / sector - 1;
    [
        (sector, 2 * sector),
        (last * sector, (last - entry_blocks(sector)) * sector),
    ]
}

fn parts_at(disk: &[u8], entries: usize) -> Vec<Part> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    disk[entries..entries + 16384]
        .chunks(128)
        .filter(|entry| entry[..16] != [0; 16])
        .map(|entry| Part {
            kind: entry[..16].try_into().unwrap(),
            name: char::decode_utf16(
                entry[56..]
                    .chunks(2)
                    .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
                    .take_while(|unit| *unit != 0),
            )
            .map(Result::unwrap)
            .collect(),
            first: number(&entry[32..40]),
            last: number(&entry[40..48]),
            attributes: number(&entry[48..56]),
        })
        .collect()
}

/// The partitions that each copy states; none for a damaged one.
pub(crate) fn copies(sector: usize, disk: &[u8]) -> [Option<Vec<Part>>; 2] {
    places(sector, disk).map(|(header_at, entries_at)| {
        let header = &disk[header_at..header_at + sector];
        let mut summed = header[..92].to_vec();
        summed[16..20].fill(0);
        let valid = header[..8] == *b"EFI PART"
            && header[16..20] == crc(&summed).to_le_bytes()
            && header[24..32] == ((header_at / sector) as u64).to_le_bytes()
            && header[72..80] == ((entries_at / sector) as u64).to_le_bytes()
            && header[88..92] == crc(&disk[entries_at..entries_at + 16384]).to_le_bytes();
        valid.then(|| parts_at(disk, entries_at))
    })
}

/// The boot loader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abl {
    /// bBootLunEn; none where the storage is not UFS.
    pub(crate) boot_lun: Option<u8>,
    /// Whether this build has `ValidateSlotGuids`; builds without it were seen on UFS boards.
    pub(crate) validates: bool,
}

struct Loaded<'a> {
    sector: usize,
    disks: &'a mut [Vec<u8>],
    /// `PtnEntries`, by disk.
    parts: Vec<Vec<Part>>,
    backup: Vec<Vec<Part>>,
}

const SUFFIX: [&str; 2] = ["_a", "_b"];

impl Loaded<'_> {
    /// UEFI's partition driver: the primary copy, or the backup where the primary is damaged.
    fn new(sector: usize, disks: &mut [Vec<u8>]) -> Loaded<'_> {
        let parts: Vec<_> = disks
            .iter()
            .map(|disk| {
                let [primary, backup] = copies(sector, disk);
                primary.or(backup).unwrap_or_default()
            })
            .collect();
        Loaded {
            sector,
            disks,
            backup: parts.clone(),
            parts,
        }
    }

    /// `GetPartitionEntry`
    fn part(&mut self, name: &str) -> Option<&mut Part> {
        self.parts
            .iter_mut()
            .flatten()
            .find(|part| part.name == name)
    }

    fn boot(&mut self, slot: usize) -> Option<&mut Part> {
        self.part(&format!("boot{}", SUFFIX[slot]))
    }

    /// `UpdatePartitionAttributes`: both copies as they are on the disk, without a look at their checksums; an entry
    /// of another type is left, and the next partition is then compared with the same entry again.
    fn update(&mut self, types: bool) {
        if self.parts == self.backup {
            return;
        }
        for (disk, parts) in self.disks.iter_mut().zip(&self.parts) {
            for (header_at, entries_at) in places(self.sector, disk) {
                let mut changed = false;
                let mut at = entries_at;
                for part in parts {
                    let entry = &mut disk[at..at + 128];
                    if types {
                        if entry[..16] != part.kind {
                            entry[..16].copy_from_slice(&part.kind);
                            changed = true;
                        }
                    } else if entry[..4] == [0; 4] || entry[..16] == part.kind {
                        if entry[48..56] != part.attributes.to_le_bytes() {
                            entry[48..56].copy_from_slice(&part.attributes.to_le_bytes());
                            changed = true;
                        }
                    } else {
                        continue;
                    }
                    at += 128;
                }
                if changed {
                    let sum = crc(&disk[entries_at..entries_at + 16384]);
                    disk[header_at + 88..header_at + 92].copy_from_slice(&sum.to_le_bytes());
                    disk[header_at + 16..header_at + 20].fill(0);
                    let sum = crc(&disk[header_at..header_at + 92]);
                    disk[header_at + 16..header_at + 20].copy_from_slice(&sum.to_le_bytes());
                }
            }
        }
        self.backup = self.parts.clone();
    }

    /// `GetActiveSlot`
    fn active(&mut self) -> Option<usize> {
        let mut active = None;
        let mut priority = 0;
        for slot in 0..2 {
            let attributes = self.boot(slot)?.attributes;
            if attributes & ACTIVE != 0 && attributes & PRIORITY > priority {
                priority = attributes & PRIORITY;
                active = Some(slot);
            }
        }
        if active.is_none() {
            let first = self.boot(0)?;
            if first.attributes & (ACTIVE | SUCCESSFUL | UNBOOTABLE | PRIORITY) != 0 {
                return None;
            }
            first.attributes |= PRIORITY | ACTIVE | RETRY;
            self.update(false);
            return Some(0);
        }
        active
    }

    /// `MarkPtnActive`
    fn mark_active(&mut self, slot: usize) {
        for part in self.parts.iter_mut().flatten() {
            if part.name.ends_with(SUFFIX[slot]) {
                part.attributes |= ACTIVE;
            } else {
                part.attributes &= !ACTIVE;
            }
        }
        self.update(false);
    }

    /// `SetActiveSlot` with `SwitchPtnSlots`
    fn set_active(&mut self, slot: usize) -> Option<()> {
        let current = self.active()?;
        let new = self.boot(slot)?;
        new.attributes |= PRIORITY | ACTIVE | RETRY;
        new.attributes &= !UNBOOTABLE;
        let old = self.boot(1 - slot)?;
        old.attributes = old.attributes & !(PRIORITY | ACTIVE) | 2 << 48;
        self.update(false);
        if current != slot {
            let names: Vec<String> = self
                .parts
                .iter()
                .flatten()
                .filter_map(|part| part.name.strip_suffix("_a").map(str::to_owned))
                .collect();
            for name in names {
                let a = self.part(&format!("{name}_a"))?.kind;
                let Some(b) = self.part(&format!("{name}_b")) else {
                    continue;
                };
                let b = std::mem::replace(&mut b.kind, a);
                self.part(&format!("{name}_a"))?.kind = b;
            }
            self.update(true);
            self.mark_active(slot);
        }
        Some(())
    }
}

impl Abl {
    /// `FindBootableSlot`, until a slot starts or ABL stays in fastboot.
    pub(crate) fn start(&self, sector: u32, disks: &mut [Vec<u8>]) -> Option<Slot> {
        let mut boot_lun = self.boot_lun;
        for _reset in 0..4 {
            let mut loaded = Loaded::new(sector as usize, disks);
            let slot = loaded.active()?;
            let boot = loaded.boot(slot)?;
            let tries = (boot.attributes & RETRY) >> 51;
            if boot.attributes & UNBOOTABLE == 0 && boot.attributes & SUCCESSFUL != 0 {
            } else if boot.attributes & UNBOOTABLE == 0 && tries > 0 {
                boot.attributes = boot.attributes & !RETRY | (tries - 1) << 51;
                loaded.update(false);
            } else {
                // HandleActiveSlotUnbootable; it means to clear SUCCESSFUL too, and does not.
                boot.attributes |= UNBOOTABLE;
                loaded.update(false);
                let other = loaded.boot(1 - slot)?.attributes;
                if other & UNBOOTABLE != 0 || other & SUCCESSFUL == 0 {
                    return None;
                }
                loaded.set_active(1 - slot)?;
                boot_lun = boot_lun.map(|_| if slot == 0 { 2 } else { 1 });
                continue;
            }
            if self.validates {
                // ValidateSlotGuids
                let kind = loaded.boot(slot)?.kind;
                if loaded.part(&format!("abl{}", SUFFIX[slot]))?.kind == kind {
                    return None;
                }
                if boot_lun.is_some_and(|lun| usize::from(lun) != slot + 1) {
                    return None;
                }
            }
            loaded.mark_active(slot);
            return Some(Slot::BOTH[slot]);
        }
        None
    }
}
