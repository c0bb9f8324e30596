//! Room on the storage that holds the agent's data.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::sim::{SimFault, SimReading};

/// The storage behind one folder.
pub trait Storage: Send {
    /// Size and room.
    ///
    /// # Errors
    /// [`StorageError`] when they cannot be known.
    fn read(&mut self) -> Result<StorageBytes, StorageError>;
}

/// Size and room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageBytes {
    /// Size of the file system.
    pub total: u64,
    /// What a process without privileges can still write.
    pub available: u64,
}

/// Why storage is not known.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file system does not answer, or the folder does not exist.
    #[error("cannot ask the file system of {} for its room", folder.display())]
    Statvfs {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        #[source]
        source: nix::Error,
    },
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// The file system that holds a folder, by statvfs(3).
#[derive(Debug)]
pub struct StatvfsStorage {
    folder: PathBuf,
}

impl StatvfsStorage {
    /// The file system that holds `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }
}

impl Storage for StatvfsStorage {
    #[allow(
        clippy::useless_conversion,
        reason = "these types are narrower on 32-bit targets"
    )]
    fn read(&mut self) -> Result<StorageBytes, StorageError> {
        let stat = statvfs(&self.folder).map_err(|source| StorageError::Statvfs {
            folder: self.folder.clone(),
            source,
        })?;
        let fragment_bytes = u64::from(stat.fragment_size());
        let bytes = |fragments: u64| fragments.saturating_mul(fragment_bytes);
        Ok(StorageBytes {
            total: bytes(stat.blocks().into()),
            available: bytes(stat.blocks_available().into()),
        })
    }
}

/// Storage that somebody sets.
#[derive(Debug, Clone)]
pub struct SimStorage(pub SimReading<StorageBytes>);

impl Storage for SimStorage {
    fn read(&mut self) -> Result<StorageBytes, StorageError> {
        Ok(self.0.read()?)
    }
}
