//! The provisioning partition of a disk or of its image, as a stream of its own bytes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use edge_hal::{gpt, slots::abl::gpt::GptError};
use edge_protocol::provisioning::{PARTITION, area::LABEL};

/// `O_EXCL` of open(2): on a block device it fails while anything on it is mounted.
const EXCLUSIVE: i32 = 0o200;

/// Why there is no provisioning partition to work on.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Not there, or no right to it.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file or device.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something on the disk is mounted.
    #[error("{} is in use: a partition of it is mounted; unmount it (as your file manager's eject does) and try again", path.display())]
    InUse {
        /// The device.
        path: PathBuf,
    },
    /// No image of a disk, or one without this partition, and not that partition either.
    #[error(
        "{} is no disk of a box: give its whole image, the whole disk such as /dev/sdX, or the provisioning partition",
        path.display()
    )]
    Table {
        /// The file or device.
        path: PathBuf,
        /// What is wrong with its partition table.
        #[source]
        source: GptError,
    },
}

/// What the caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look.
    Read,
    /// Look and write.
    Write,
}

/// The partition. Its `flush` waits until all is on the medium.
#[derive(Debug)]
pub struct Area {
    file: File,
    span: Range<u64>,
    position: u64,
    /// Bytes of the disk's sectors: 512 or 4,096.
    pub sector_bytes: u32,
}

impl Area {
    /// The provisioning partition of the disk or image at `path`.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(path: &Path, access: Access) -> Result<Self, DiskError> {
        let open_error = |source| DiskError::Open {
            path: path.to_owned(),
            source,
        };
        let is_device = std::fs::metadata(path)
            .map_err(open_error)?
            .file_type()
            .is_block_device();
        let is_writing = access == Access::Write;
        let file = OpenOptions::new()
            .read(true)
            .write(is_writing)
            .custom_flags(if is_device && is_writing {
                EXCLUSIVE
            } else {
                0
            })
            .open(path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::ResourceBusy => DiskError::InUse {
                    path: path.to_owned(),
                },
                _ => open_error(source),
            })?;
        let (span, sector_bytes) = match gpt::partition(&file, PARTITION) {
            Ok(partition) => (partition.span, partition.sector_bytes),
            Err(source) => volume(&file).map_err(open_error)?.ok_or_else(|| {
                let path = path.to_owned();
                DiskError::Table { path, source }
            })?,
        };
        Ok(Self {
            file,
            span,
            position: 0,
            sector_bytes,
        })
    }

    /// The place in the partition and how many of `wanted` bytes are left there.
    fn here(&self, wanted: usize) -> (u64, usize) {
        let left = (self.span.end - self.span.start).saturating_sub(self.position);
        let count = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        (self.span.start.saturating_add(self.position), count)
    }
}

/// The whole of a file or device that is a provisioning partition by itself, and its sectors' size: FAT12 or FAT16 with
/// our label (the fields of FAT's boot sector).
fn volume(file: &File) -> io::Result<Option<(Range<u64>, u32)>> {
    let mut boot = [0; 512];
    match file.read_exact_at(&mut boot, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let [.., 0x55, 0xaa] = boot else {
        return Ok(None);
    };
    let sector_bytes = u32::from(u16::from_le_bytes([boot[11], boot[12]]));
    let is_ours = boot.get(43..54) == Some(&LABEL) && [512, 4096].contains(&sector_bytes);
    let mut device = file;
    let bytes = device.seek(SeekFrom::End(0))?;
    Ok(is_ours.then_some((0..bytes, sector_bytes)))
}

impl Read for Area {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (place, count) = self.here(buffer.len());
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        let count = self.file.read_at(buffer, place)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Area {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (place, count) = self.here(bytes.len());
        let bytes = bytes.get(..count).unwrap_or_default();
        let count = self.file.write_at(bytes, place)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Seek for Area {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => (self.span.end - self.span.start).checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
