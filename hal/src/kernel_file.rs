//! Small text files in which the kernel states a reading (proc, sysfs), below a root that tests replace.
//!
//! A file stays open and is read again from its start: proc and sysfs make their text anew at every read from
//! offset 0 (Documentation/filesystems/sysfs.rst), and a `pread` costs a fraction of open, read and close. Nothing is
//! allocated for a reading, also not for its error.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use nix::errno::Errno;

/// Bytes of a file that are read: sysfs shows no more than a page of 4,096 (Documentation/filesystems/sysfs.rst). Of
/// a longer file in proc only the whole lines that fit count.
const MAX_BYTES: usize = 4_096;

/// A file of the kernel, read whole each time. It is opened when it is first read.
#[derive(Debug)]
pub struct KernelFile {
    path: Arc<Path>,
    file: Option<File>,
}

/// Why a kernel file gave no reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: Arc<Path>,
        /// What the system says.
        #[source]
        source: Errno,
    },
    /// The file does not have the form that the kernel documents.
    #[error("{} has no {wanted}", path.display())]
    Format {
        /// The file.
        path: Arc<Path>,
        /// What was looked for.
        wanted: &'static str,
    },
}

impl KernelFileError {
    /// Whether there is no such file, or the kernel has no such reading to show: what an optional file says.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Read { source, .. } => matches!(
                source,
                Errno::ENOENT
                    | Errno::ENOTDIR
                    | Errno::ENODEV
                    | Errno::ENXIO
                    | Errno::ENODATA
                    | Errno::EINVAL
                    | Errno::EOPNOTSUPP
            ),
            Self::Format { .. } => false,
        }
    }

    /// Whether the device behind the file is gone, so that it may be back elsewhere.
    pub(crate) fn is_gone(&self) -> bool {
        let Self::Read { source, .. } = self else {
            return false;
        };
        matches!(
            source,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV | Errno::ENXIO
        )
    }
}

impl KernelFile {
    /// The file at `path` below `root`.
    #[must_use]
    pub fn new(root: &Path, path: &str) -> Self {
        Self {
            path: root.join(path.trim_start_matches('/')).into(),
            file: None,
        }
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text as a string of its own.
    ///
    /// # Errors
    /// [`KernelFileError::Read`] when it cannot be read, [`KernelFileError::Format`] when it is not UTF-8.
    pub fn read(&mut self) -> Result<String, KernelFileError> {
        self.parse("text", |text| Some(text.to_owned()))
    }

    /// What `parse` finds in the file's text. When the file cannot be read any more it is opened again once: its
    /// device may have come back.
    ///
    /// # Errors
    /// [`KernelFileError::Read`], or [`KernelFileError::Format`] naming `wanted` when `parse` finds nothing.
    pub fn parse<T>(
        &mut self,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, KernelFileError> {
        let mut buffer = [0; MAX_BYTES];
        let was_open = self.file.is_some();
        let mut length = self.fill(&mut buffer);
        if was_open && length.as_ref().map_or(true, |length| *length == 0) {
            self.file = None;
            length = self.fill(&mut buffer);
        }
        self.parse_filled(&buffer, length, wanted, parse)
    }

    /// As [`KernelFile::parse`], but a file that was once open is not opened again by its path, where another device
    /// may have taken its number.
    pub(crate) fn parse_same<T>(
        &mut self,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, KernelFileError> {
        let mut buffer = [0; MAX_BYTES];
        let length = match self.fill(&mut buffer) {
            // No file of the kernel's that states a reading is empty.
            Ok(0) => Err(Errno::ENODEV),
            length => length,
        };
        self.parse_filled(&buffer, length, wanted, parse)
    }

    /// Forgets the device behind the file: at the next reading it is opened again by its path.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path).map_err(|error| errno(&error))?),
        };
        loop {
            match file.read_at(buffer, 0) {
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(&error)),
            }
        }
    }

    fn parse_filled<T>(
        &self,
        buffer: &[u8],
        length: Result<usize, Errno>,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, KernelFileError> {
        let length = length.map_err(|source| KernelFileError::Read {
            path: Arc::clone(&self.path),
            source,
        })?;
        whole_lines(buffer, length)
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(parse)
            .ok_or_else(|| KernelFileError::Format {
                path: Arc::clone(&self.path),
                wanted,
            })
    }
}

/// What was read, without the line that a full buffer cuts.
fn whole_lines(buffer: &[u8], length: usize) -> Option<&[u8]> {
    let text = buffer.get(..length)?;
    if length < buffer.len() {
        return Some(text);
    }
    let last_newline = text.iter().rposition(|byte| *byte == b'\n')?;
    text.get(..=last_newline)
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Reads a whole number with or without an end of line.
pub(crate) fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_does_not_count() {
        assert_eq!(whole_lines(b"12\n3456", 7), Some(&b"12\n"[..]));
        assert_eq!(whole_lines(b"12\n3456", 6), Some(&b"12\n345"[..]));
        assert_eq!(whole_lines(b"1234567", 7), None);
        assert_eq!(whole_lines(b"", 0), None);
    }
}
