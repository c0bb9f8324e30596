//! Where a named partition lies on a disk or in an image of one: what tools need that read or write a single partition.
//!
//! The table is read as a boot loader reads it: the primary copy, or the backup where that is damaged. A disk may be larger
//! than the image that was written to it: then the table ends where the image does.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt as _,
};

use crate::slots::{
    abl::gpt::{Gpt, GptError},
    block::FileDevice,
};

/// "EFI PART" (UEFI specification 2.10, table 5.5).
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Where a header says in which sector the other copy is, the last one of the image.
const ALTERNATE_LBA: u64 = 32;
/// Sizes of sectors that disks with such a table have.
const SECTOR_BYTES: [u32; 2] = [512, 4096];

/// A partition by its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Where it lies, in bytes from the start of the disk; whole sectors.
    pub span: Range<u64>,
    /// Bytes of the disk's sectors: 512 or 4,096.
    pub sector_bytes: u32,
}

/// The partition called `name` of a disk or of its image. The size of the sectors is the one that a table is found
/// with.
///
/// # Errors
/// [`GptError::NoPartition`] and [`GptError::DuplicateName`]; others when there is no valid table.
pub fn partition(disk: &File, name: &str) -> Result<Partition, GptError> {
    let mut problem = None;
    for sector_bytes in SECTOR_BYTES {
        let mut device = image_on(disk, sector_bytes).map_err(|source| GptError::Io {
            operation: "read",
            source,
        })?;
        match Gpt::read(&mut device) {
            Ok(gpt) => {
                let index = gpt
                    .find(name)?
                    .ok_or_else(|| GptError::NoPartition(name.to_owned()))?;
                let span = gpt
                    .span(index)
                    .ok_or_else(|| GptError::NoPartition(name.to_owned()))?;
                return Ok(Partition { span, sector_bytes });
            }
            // A disk that does not answer has no other sectors either.
            Err(error @ GptError::Io { .. }) => return Err(error),
            Err(error) => {
                problem.get_or_insert(error);
            }
        }
    }
    Err(problem.unwrap_or(GptError::SectorSize(0)))
}

/// The part of a disk that holds the image it was written with.
fn image_on(mut disk: &File, sector_bytes: u32) -> io::Result<FileDevice> {
    let disk_bytes = disk.seek(SeekFrom::End(0))?;
    let image_bytes = image_bytes(disk, sector_bytes)?;
    let bytes = image_bytes.map_or(disk_bytes, |image| image.min(disk_bytes));
    Ok(FileDevice::beginning_of(
        disk.try_clone()?,
        sector_bytes,
        bytes,
    ))
}

/// The size of the image that a disk was written with, as its primary header says; none where there is no header.
fn image_bytes(file: &File, sector_bytes: u32) -> io::Result<Option<u64>> {
    let header = u64::from(sector_bytes);
    let read = |offset| {
        let mut bytes = [0; 8];
        match file.read_exact_at(&mut bytes, header + offset) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    };
    if read(0)?.as_ref() != Some(SIGNATURE) {
        return Ok(None);
    }
    let last = read(ALTERNATE_LBA)?.map(u64::from_le_bytes);
    Ok(last.and_then(|last| last.checked_add(1)?.checked_mul(header)))
}
