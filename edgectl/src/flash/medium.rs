//! What an image is written to: a file or a block device. Tests put one here that fails, lies and loses power.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise},
};

/// Unit and alignment of reads that go past the page cache; every medium takes it.
const DIRECT_BYTES: usize = 4096;

/// A medium. What was written lasts only once [`Medium::sync`] returned; until then any part of it may be lost.
pub trait Medium: Sync {
    /// Its name in messages.
    fn name(&self) -> String;

    /// Its size; none where it grows.
    fn size_bytes(&self) -> Option<u64>;

    /// Whether it holds nothing, so that what is never written reads as zeros.
    fn is_blank(&self) -> bool;

    /// Reads from `offset` on until `buffer` is full or the medium ends.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says; a part may be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Waits until everything written is on the medium.
    ///
    /// # Errors
    /// What the system says; nothing may be assumed of what was written since the last one.
    fn sync(&self) -> io::Result<()>;

    /// As [`Medium::read_at`], but asks the medium and not what the system remembers of it, where that is possible.
    ///
    /// # Errors
    /// What the system says.
    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Makes a medium that grows exactly `bytes` long; does nothing to others.
    ///
    /// # Errors
    /// What the system says.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
}

/// Why a medium cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// Neither a file nor a block device.
    #[error("{} is neither a file nor a block device", path.display())]
    Kind {
        /// What it is.
        path: PathBuf,
    },
    /// Below `/dev`, and not there.
    #[error(
        "there is no {}; `edgectl flash --list` shows what is attached",
        path.display()
    )]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// It is the image.
    #[error("{} is the image itself", path.display())]
    IsImage {
        /// Which.
        path: PathBuf,
    },
    /// The kernel says that somebody uses it.
    #[error(
        "{} is in use by this system; unmount what is on it and repeat the command",
        path.display()
    )]
    Busy {
        /// Which.
        path: PathBuf,
    },
    /// The user may not write it.
    #[error("no permission to write {}; run the command as root (sudo)", path.display())]
    Permission {
        /// Which.
        path: PathBuf,
    },
    /// A lock, or a medium that cannot be written.
    #[error("{} is write-protected; look for a switch on the card or its adapter", path.display())]
    ReadOnly {
        /// Which.
        path: PathBuf,
    },
    /// A reader without a card.
    #[error("there is no medium in {}", path.display())]
    NoMedium {
        /// Which.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot open {} to write it", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A file or a block device.
#[derive(Debug)]
pub struct FileMedium {
    path: PathBuf,
    file: File,
    /// The same block device past the page cache, where it can be opened so.
    direct: Option<File>,
    /// Of a block device.
    size_bytes: Option<u64>,
    is_blank: bool,
}

impl FileMedium {
    /// Opens `path`, and makes it where it is a file that is not there. A block device is opened for this program
    /// alone, which the kernel refuses where it is mounted.
    ///
    /// # Errors
    /// [`MediumError`].
    pub fn open(path: &Path, image: &Path) -> Result<Self, MediumError> {
        let owned = || path.to_owned();
        let failed = |source: io::Error| explain(path, source);
        let is_block = match fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_block_device() => true,
            Ok(metadata) if metadata.is_file() => {
                let same = fs::metadata(image).is_ok_and(|image| {
                    (image.dev(), image.ino()) == (metadata.dev(), metadata.ino())
                });
                if same {
                    return Err(MediumError::IsImage { path: owned() });
                }
                false
            }
            Ok(_) => return Err(MediumError::Kind { path: owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.starts_with("/dev") {
                    return Err(MediumError::Missing { path: owned() });
                }
                false
            }
            Err(error) => return Err(failed(error)),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if is_block {
            options.custom_flags(OFlag::O_EXCL.bits());
        } else {
            options.create(true).truncate(false);
        }
        let mut file = options.open(path).map_err(failed)?;
        let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let direct = is_block.then(|| {
            let flags = OFlag::O_DIRECT.bits();
            OpenOptions::new().read(true).custom_flags(flags).open(path)
        });
        let medium = Self {
            path: owned(),
            file,
            direct: direct.and_then(Result::ok),
            size_bytes: is_block.then_some(length),
            is_blank: !is_block && length == 0,
        };
        // An earlier run that was cut short may have left what never reached the medium.
        medium.sync().map_err(failed)?;
        medium.forget(0, 0).map_err(failed)?;
        Ok(medium)
    }
}

impl FileMedium {
    /// Makes the system forget what it remembers of `length` bytes, or of all from `offset` on where that is 0.
    fn forget(&self, offset: u64, length: usize) -> io::Result<()> {
        // Both are far below the 2^63 of the largest file.
        let offset = offset.try_into().unwrap_or(0);
        let length = length.try_into().unwrap_or(0);
        Ok(posix_fadvise(
            &self.file,
            offset,
            length,
            PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )?)
    }

    /// A device that was pulled out gives all kinds of errors; that its node is gone tells.
    fn or_gone(&self, error: io::Error) -> io::Error {
        if self.size_bytes.is_some() && !self.path.exists() {
            return Errno::ENODEV.into();
        }
        error
    }
}

fn explain(path: &Path, source: io::Error) -> MediumError {
    let path = path.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => MediumError::Busy { path },
        Some(Errno::EACCES | Errno::EPERM) => MediumError::Permission { path },
        Some(Errno::EROFS) => MediumError::ReadOnly { path },
        Some(Errno::ENOMEDIUM) => MediumError::NoMedium { path },
        _ => MediumError::Open { path, source },
    }
}

impl Medium for FileMedium {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    fn is_blank(&self) -> bool {
        self.is_blank
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_at(&self.file, offset, buffer).map_err(|error| self.or_gone(error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| self.or_gone(error))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all().map_err(|error| self.or_gone(error))
    }

    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let aligned = offset.is_multiple_of(DIRECT_BYTES as u64)
            && buffer.len().is_multiple_of(DIRECT_BYTES)
            && buffer.as_ptr().align_offset(DIRECT_BYTES) == 0;
        let file = match &self.direct {
            Some(direct) if aligned => direct,
            _ => {
                self.forget(offset, buffer.len())?;
                &self.file
            }
        };
        read_at(file, offset, buffer).map_err(|error| self.or_gone(error))
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        match self.size_bytes {
            Some(_) => Ok(()),
            None => self.file.set_len(bytes),
        }
    }
}

/// Reads from `offset` on until `buffer` is full or the file ends.
pub(crate) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Memory that a read past the page cache takes: it begins at a multiple of [`DIRECT_BYTES`].
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// `length` zeros; rounded up to a multiple of [`DIRECT_BYTES`].
    #[must_use]
    pub fn new(length: usize) -> Self {
        let length = length.next_multiple_of(DIRECT_BYTES);
        let bytes = vec![0; length + DIRECT_BYTES];
        let start = bytes.as_ptr().align_offset(DIRECT_BYTES);
        Self {
            bytes,
            start,
            length,
        }
    }

    /// All of it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let range = self.start..self.start + self.length;
        self.bytes.get_mut(range).unwrap_or_default()
    }
}
