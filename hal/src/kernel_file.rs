//! Small text files in which the kernel states a reading (proc, sysfs), below a root that tests replace.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A file of the kernel, read whole each time.
#[derive(Debug, Clone)]
pub struct KernelFile {
    path: PathBuf,
}

/// Why a kernel file gave no reading.
#[derive(Debug, thiserror::Error)]
pub enum KernelFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file does not have the form that the kernel documents.
    #[error("{} has no {wanted}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
}

impl KernelFile {
    /// The file at `path` below `root`.
    #[must_use]
    pub fn new(root: &Path, path: &str) -> Self {
        Self {
            path: root.join(path.trim_start_matches('/')),
        }
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`KernelFileError::Read`] when it cannot be read or is not UTF-8.
    pub fn read(&self) -> Result<String, KernelFileError> {
        fs::read_to_string(&self.path).map_err(|source| KernelFileError::Read {
            path: self.path.clone(),
            source,
        })
    }

    /// What `parse` finds in the file's text.
    ///
    /// # Errors
    /// [`KernelFileError::Read`], or [`KernelFileError::Format`] naming `wanted` when `parse` finds nothing.
    pub fn parse<T>(
        &self,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, KernelFileError> {
        parse(&self.read()?).ok_or_else(|| KernelFileError::Format {
            path: self.path.clone(),
            wanted,
        })
    }
}
