//! Partitions of a board's disk: where each lies, and the GPT that says so. Knows board files, not what is put in.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::str::FromStr;

use edge_hal::Board;
use edge_hal::board::{PartitionConfig, PartitionContent};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types;
use uuid::Uuid;

use super::filesystem::identifier;
use super::{ImageError, io_error};

/// Partitions begin at multiples of this: erase blocks of flash are no larger.
const ALIGNMENT: u64 = 1 << 20;

/// GPT's attribute "legacy BIOS bootable" (UEFI 2.10, table 5.8), by which U-Boot finds its script.
const LEGACY_BOOT: u64 = 1 << 2;

/// A partition on its disk.
#[derive(Debug, Clone)]
pub struct Placed<'a> {
    /// Its name, with the slot's suffix.
    pub name: String,
    /// What the board file says of it.
    pub config: &'a PartitionConfig,
    /// Bytes from the disk's start.
    pub start: u64,
    /// Its number in the table, from 1.
    pub number: u32,
}

/// The partitions of one of the board's disks, in their order, and the size of the disk that holds just them.
#[must_use]
pub fn lay_out(board: &Board, lun: u8) -> (Vec<Placed<'_>>, u64) {
    let sector = u64::from(board.storage.sector_bytes);
    let mut placed = Vec::new();
    let mut start = ALIGNMENT;
    let of_disk = board.storage.partitions.iter();
    for config in of_disk.filter(|partition| partition.lun == lun) {
        let suffixes: &[&str] = if config.slotted { &["_a", "_b"] } else { &[""] };
        for suffix in suffixes {
            let name = format!("{}{suffix}", config.name);
            let number = u32::try_from(placed.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1);
            placed.push(Placed {
                name,
                config,
                start,
                number,
            });
            start += config.size_bytes.next_multiple_of(ALIGNMENT);
        }
    }
    // The backup table: 128 entries of 128 bytes, and its header.
    let backup = (128 * 128_u64).next_multiple_of(sector) + sector;
    (placed, start + backup.next_multiple_of(ALIGNMENT))
}

/// Makes `path` a disk of `bytes` bytes with nothing but a table.
///
/// # Errors
/// When it cannot be written.
pub fn write(
    board: &Board,
    lun: u8,
    placed: &[Placed<'_>],
    bytes: u64,
    path: &Path,
) -> Result<(), ImageError> {
    let failed = |source: gpt::GptError| ImageError::Table {
        path: path.to_path_buf(),
        source,
    };
    let _old = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|file| file.set_len(bytes).map(|()| file))
        .map_err(io_error("create", path))?;
    let sector = u64::from(board.storage.sector_bytes);
    let size = match board.storage.sector_bytes {
        4096 => LogicalBlockSize::Lb4096,
        _ => LogicalBlockSize::Lb512,
    };
    let sectors = u32::try_from(bytes / sector - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors)
        .overwrite_lba0(&mut file)
        .map_err(|source| failed(std::io::Error::other(source).into()))?;
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(size)
        .create_from_device(&mut file, Some(guid(board, &format!("disk-{lun}"))))
        .map_err(failed)?;
    let mut partitions = BTreeMap::new();
    for partition in placed {
        let kind = match &partition.config.type_guid {
            Some(text) => partition_types::Type::from(Uuid::from_str(text).unwrap_or_default()),
            None => partition_types::LINUX_FS,
        };
        let is_script = partition.config.content == PartitionContent::Bootloader;
        let first_lba = partition.start / sector;
        partitions.insert(
            partition.number,
            Partition {
                part_type_guid: kind,
                part_guid: guid(board, &partition.name),
                first_lba,
                last_lba: first_lba + partition.config.size_bytes / sector - 1,
                flags: if is_script { LEGACY_BOOT } else { 0 },
                name: partition.name.clone(),
            },
        );
    }
    table.update_partitions(partitions).map_err(failed)?;
    table.write().map_err(failed)?;
    Ok(())
}

fn guid(board: &Board, part: &str) -> Uuid {
    Uuid::from_str(&identifier(&board.name, part)).unwrap_or_default()
}
