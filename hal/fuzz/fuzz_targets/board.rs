//! Every decoder of bytes that a disk or a person gives: the first byte chooses which, so that one corpus serves all.
//! Checksums are set right where they would keep everything behind them from being reached.
//!
//! Run with `cargo xtask fuzz board`.
#![no_main]

use std::io;

use edge_hal::{
    Board,
    identity::{KeyAlgorithm, PublicKey},
    sim::Script,
    slots::{
        Slot, SlotControl,
        abl::{gpt::Gpt, journal::Journal},
        block::BlockDevice,
        uboot::{
            UbootBinarySlots,
            binary::{EnvCopy, Environment},
            text::TextState,
        },
    },
};
use libfuzzer_sys::fuzz_target;

/// Bytes of a copy of U-Boot's environment.
const COPY_BYTES: usize = 1_024;
/// Sectors of the disk with a partition table: both copies and a few blocks between them.
const SECTORS: usize = 80;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let text = std::str::from_utf8(data);
    match choice % 10 {
        0 => table(disk(data, 512), 512),
        1 => table(with_checksums(disk(data, 512), 512), 512),
        2 => table(with_checksums(disk(data, 4_096), 4_096), 4_096),
        3 => environment(data),
        4 => slots(data),
        5 => {
            if let Some(state) = TextState::decode(data) {
                assert_eq!(state.encode(), data);
            }
        }
        6 => {
            if let Ok(journal) = Journal::decode(data) {
                assert_eq!(Journal::decode(&journal.encode()), Ok(journal));
            }
        }
        7 => {
            if let Ok(text) = text {
                drop(Board::parse(text, "fuzz.toml").map_err(|error| error.to_string()));
            }
        }
        8 => {
            if let Ok(text) = text {
                drop(Script::parse(text, "fuzz.toml").map_err(|error| error.to_string()));
            }
        }
        _ => {
            for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::Es256] {
                if let Ok(key) = PublicKey::new(algorithm, data) {
                    assert!(!key.to_spki_der().is_empty());
                }
            }
        }
    }
});

/// A disk in memory.
struct Disk {
    bytes: Vec<u8>,
    sector_bytes: u32,
}

impl BlockDevice for Disk {
    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from.checked_add(buffer.len());
        let bytes = end.and_then(|end| self.bytes.get(from..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from.checked_add(bytes.len());
        let place = end.and_then(|end| self.bytes.get_mut(from..end));
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk whose second sector and those behind it are the data: the primary copy, header and entries. The backup is
/// made of the same.
fn disk(data: &[u8], sector: usize) -> Vec<u8> {
    let mut bytes = vec![0; SECTORS * sector];
    let (header, entries) = data.split_at(data.len().min(92));
    let entry_sectors = 16_384 / sector;
    let mut put = |sector_number: usize, data: &[u8]| {
        let at = sector_number * sector;
        let length = data.len().min(16_384);
        bytes[at..at + length].copy_from_slice(&data[..length]);
    };
    put(1, header);
    put(2, entries);
    put(SECTORS - 1, header);
    put(SECTORS - 1 - entry_sectors, entries);
    bytes
}

/// The same with what a header must say to be looked at further.
fn with_checksums(mut bytes: Vec<u8>, sector: usize) -> Vec<u8> {
    let last = (SECTORS - 1) as u64;
    let entry_sectors = (16_384 / sector) as u64;
    for (at, other, entries) in [(1, last, 2), (last, 1, last - entry_sectors)] {
        let count = bytes[sector + 80] % 129;
        let entries_at = entries as usize * sector;
        let used = entries_at..entries_at + usize::from(count) * 128;
        let entries_sum = crc32fast::hash(&bytes[used]);
        let header = &mut bytes[at as usize * sector..][..sector];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[20..24].fill(0);
        header[24..32].copy_from_slice(&at.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        // Too few blocks for the entries, or enough.
        let first_usable = 2 + u64::from(header[40]) % (2 * entry_sectors);
        header[40..48].copy_from_slice(&first_usable.to_le_bytes());
        header[48..56].copy_from_slice(&(last - entry_sectors - 1).to_le_bytes());
        header[72..80].copy_from_slice(&entries.to_le_bytes());
        header[80..84].copy_from_slice(&u32::from(count).to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&entries_sum.to_le_bytes());
        header[16..20].fill(0);
        let sum = crc32fast::hash(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// A table that is read can be changed and written, and reads the same again.
fn table(bytes: Vec<u8>, sector_bytes: u32) {
    let mut disk = Disk { bytes, sector_bytes };
    let Ok(mut table) = Gpt::read(&mut disk) else {
        return;
    };
    let Ok(found) = table.find("boot_a") else {
        return;
    };
    let index = found.unwrap_or(0);
    let attributes = table.attributes(index) ^ (1 << 50);
    table.set_attributes(index, attributes);
    table.write(&mut disk).expect("the disk takes writes");
    let again = Gpt::read(&mut disk).expect("what was written can be read");
    assert!(again.copies_agree() && !again.needs_write());
    assert_eq!(again.attributes(index), table.attributes(index));
}

/// A copy with a right checksum around these bytes.
fn copy(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; COPY_BYTES];
    let length = data.len().min(COPY_BYTES - 4);
    bytes[4..4 + length].copy_from_slice(&data[..length]);
    let sum = crc32fast::hash(&bytes[5..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// An environment that is read can be written, and reads the same again.
fn environment(data: &[u8]) {
    drop(Environment::decode(data));
    let environment = Environment::decode(&copy(data)).expect("its checksum is right");
    if let Some(bytes) = environment.encode(COPY_BYTES) {
        assert_eq!(Environment::decode(&bytes), Some(environment));
    }
}

/// Two copies as a box finds them: what can be understood can be changed.
fn slots(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let copies = [first, second].map(|data| EnvCopy {
        name: "copy".to_owned(),
        device: Disk {
            bytes: copy(data),
            sector_bytes: 512,
        },
        offset_bytes: 0,
    });
    let size = u32::try_from(COPY_BYTES).expect("a small number");
    let mut slots = UbootBinarySlots::new(copies, size, 3, Some(Slot::A)).expect("its size is right");
    if slots.status().is_ok() && slots.arm(Slot::B).is_ok() {
        let status = slots.status().expect("what was written can be read");
        assert_eq!(status.table.first, Some(Slot::B));
    }
}
