//! How much of its life the storage has left.

mod block;

use crate::{
    kernel_file::KernelFileError,
    sim::{SimFault, SimReading},
};

pub use self::block::BlockHealth;

/// The storage's own account of its wear.
pub trait StorageHealth: Send {
    /// Wear and traffic.
    ///
    /// # Errors
    /// [`StorageHealthError`] when they cannot be known.
    fn read(&mut self) -> Result<Wear, StorageHealthError>;
}

/// Wear of storage; what the device does not state is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wear {
    /// Upper bound of the life that is used up, in percent, in steps of 10; over 100 past the stated life
    /// (UFS: `life_time_estimation_a`/`_b`; eMMC: `life_time`; the worse of the two).
    pub used_percent: Option<u8>,
    /// State of the reserved blocks.
    pub reserve: Option<Reserve>,
    /// Bytes written since the kernel started (`stat` of the block device).
    pub written_bytes: Option<u64>,
}

/// State of the blocks that replace worn ones (UFS and eMMC: `pre_eol_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// Most are left.
    Normal,
    /// 80 % are used.
    Warning,
    /// 90 % are used: the storage ends soon.
    Urgent,
}

/// Why wear is not known.
#[derive(Debug, thiserror::Error)]
pub enum StorageHealthError {
    /// The kernel's file.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// Storage whose wear somebody sets.
#[derive(Debug, Clone)]
pub struct SimStorageHealth(pub SimReading<Wear>);

impl StorageHealth for SimStorageHealth {
    fn read(&mut self) -> Result<Wear, StorageHealthError> {
        Ok(self.0.read()?)
    }
}
