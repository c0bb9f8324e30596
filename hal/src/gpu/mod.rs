//! The GPU's frequency and load.

mod devfreq;
mod kgsl;

use crate::{
    kernel_file::KernelFileError,
    sim::{SimFault, SimReading},
};

pub use self::{devfreq::DevfreqGpu, kgsl::KgslGpu};

/// A GPU.
pub trait Gpu: Send {
    /// Frequency and load.
    ///
    /// # Errors
    /// [`GpuError`] when neither can be known.
    fn read(&mut self) -> Result<GpuReading, GpuError>;
}

/// Frequency and load of a GPU; what its driver does not show is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GpuReading {
    /// Frequency, in thousands of cycles a second.
    pub khz: Option<u32>,
    /// Share of time that it was busy, in percent, 0 to 100, over the driver's own last window (about a second).
    pub load_percent: Option<f32>,
}

/// Why a GPU is not known.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The kernel's file.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// A GPU that somebody sets.
#[derive(Debug, Clone)]
pub struct SimGpu(pub SimReading<GpuReading>);

impl Gpu for SimGpu {
    fn read(&mut self) -> Result<GpuReading, GpuError> {
        Ok(self.0.read()?)
    }
}
