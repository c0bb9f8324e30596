//! Storage below file systems: sectors that are read, written and flushed. Tests put a device here that loses power.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// A block device. What was written lasts, and lasts before later writes, only once [`BlockDevice::flush`] returned;
/// until then any subset of the sectors may be lost.
pub trait BlockDevice {
    /// Bytes of a sector, the unit that the medium writes whole.
    fn sector_bytes(&self) -> u32;

    /// Its size.
    fn size_bytes(&self) -> u64;

    /// Fills `buffer` from `offset` bytes on.
    ///
    /// # Errors
    /// What the system says; also when the device ends before the buffer.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` from `offset` on.
    ///
    /// # Errors
    /// What the system says; a part may be written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Waits until everything written is on the medium, and forgets what it remembers of it, so that the next read
    /// asks the medium.
    ///
    /// # Errors
    /// What the system says; nothing may be assumed of what was written since the last one.
    fn flush(&mut self) -> io::Result<()>;
}

/// A device node, or a file that stands for one.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    sector_bytes: u32,
    size_bytes: u64,
}

impl FileDevice {
    /// Opens `path` to read and write it. It stays open: closing a disk that was written makes udev read its
    /// partitions again, under the feet of whoever looks for the next one by its label.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, sector_bytes: u32) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let size_bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self::beginning_of(file, sector_bytes, size_bytes))
    }

    /// The first `size_bytes` of an open disk or file, as if there were no more.
    pub(crate) fn beginning_of(file: File, sector_bytes: u32, size_bytes: u64) -> Self {
        Self {
            file,
            sector_bytes,
            size_bytes,
        }
    }
}

impl BlockDevice for FileDevice {
    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(())
    }
}
