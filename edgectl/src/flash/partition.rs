//! Where a named partition lies in a disk image, or on a disk that an image was written to.
//!
//! A disk may be larger than its image, whose table then says where the image ends. Tables are read and checked by
//! `edge_hal`, as the box itself does.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use edge_hal::slots::{
    abl::gpt::{Gpt, GptError},
    block::BlockDevice,
};

/// Sizes of sectors that an image may be made for: of disks, and of UFS.
const SECTOR_BYTES: [u32; 2] = [512, 4096];
/// "EFI PART" (UEFI specification 2.10, table 5.5).
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Where a header says in which sector the other copy is, the last of the image.
const ALTERNATE_LBA: usize = 32;

/// Why a partition cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The file or disk.
    #[error("cannot read the partition table of {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No table.
    #[error("{} has no GPT partition table", path.display())]
    NoTable {
        /// Which.
        path: PathBuf,
    },
    /// A table that is damaged, or without that name.
    #[error("cannot use the partition table of {}", path.display())]
    Table {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: GptError,
    },
}

/// The bytes of the partition `name` in the uncompressed disk image or disk at `path`.
///
/// # Errors
/// [`PartitionError`].
pub fn partition_bytes(path: &Path, name: &str) -> Result<Range<u64>, PartitionError> {
    let failed = |source| PartitionError::Io {
        path: path.to_owned(),
        source,
    };
    let table = |source| PartitionError::Table {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let size_bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
    for sector_bytes in SECTOR_BYTES {
        let mut header = [0; 92];
        match file.read_exact_at(&mut header, sector_bytes.into()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(failed(error)),
        }
        if !header.starts_with(SIGNATURE) {
            continue;
        }
        let (words, _) = header.as_chunks::<8>();
        let alternate = words.get(ALTERNATE_LBA / 8).copied().unwrap_or_default();
        let sectors = u64::from_le_bytes(alternate).saturating_add(1);
        let image_bytes = sectors.saturating_mul(sector_bytes.into());
        let mut image = ImageOnDisk {
            file,
            sector_bytes,
            size_bytes: image_bytes.min(size_bytes),
        };
        let gpt = Gpt::read(&mut image).map_err(table)?;
        let index = gpt.find(name).map_err(table)?;
        let index = index.ok_or_else(|| table(GptError::NoPartition(name.to_owned())))?;
        return Ok(gpt.bytes(index));
    }
    Err(PartitionError::NoTable {
        path: path.to_owned(),
    })
}

/// The part of a disk that an image was written to; it is only read.
struct ImageOnDisk {
    file: File,
    sector_bytes: u32,
    size_bytes: u64,
}

impl BlockDevice for ImageOnDisk {
    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
