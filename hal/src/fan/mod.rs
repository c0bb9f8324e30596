//! The fan.

mod hwmon;

use std::path::PathBuf;

pub use self::hwmon::HwmonFan;
use crate::{
    kernel_file::KernelFileError,
    kernel_setting::KernelSettingError,
    sim::{SimFault, SimReading},
};

/// A fan whose speed the agent sets.
pub trait Fan: Send {
    /// Sets the speed, 0 to 100; more counts as 100.
    ///
    /// # Errors
    /// [`FanError`] when it cannot be set.
    fn set_percent(&mut self, percent: u8) -> Result<(), FanError>;

    /// Turns a minute; `None` without a tachometer.
    ///
    /// # Errors
    /// [`FanError`] when they cannot be known.
    fn read_rpm(&mut self) -> Result<Option<u32>, FanError>;
}

/// Why the fan does not obey.
#[derive(Debug, thiserror::Error)]
pub enum FanError {
    /// No chip of the name that the board file states.
    #[error("no hwmon* with name {chip:?} below {}; correct the board file or load the driver", below.display())]
    Missing {
        /// The name of the chip.
        chip: String,
        /// Where it was looked for.
        below: PathBuf,
    },
    /// The kernel's file that is read.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The kernel's file that is written.
    #[error(transparent)]
    Setting(#[from] KernelSettingError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// A fan that remembers what it was told. Stuck ([`SimFan::percent`] told to fail), it takes no order.
#[derive(Debug, Clone)]
pub struct SimFan {
    /// The speed it was set to.
    pub percent: SimReading<u8>,
    /// Turns a minute that its tachometer reads.
    pub rpm: SimReading<u32>,
}

impl Fan for SimFan {
    fn set_percent(&mut self, percent: u8) -> Result<(), FanError> {
        self.percent.read()?;
        self.percent.set(percent.min(100));
        Ok(())
    }

    fn read_rpm(&mut self) -> Result<Option<u32>, FanError> {
        Ok(Some(self.rpm.read()?))
    }
}
