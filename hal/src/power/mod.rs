//! Power: what rails and supplies give, and what the processor's own counters say.

mod hwmon;
mod rapl;
mod supply;

use crate::{
    class_folder::ClassFileError,
    kernel_file::KernelFileError,
    sim::{SimFault, SimReading},
};

pub use self::{hwmon::HwmonPower, rapl::RaplPower, supply::PowerSupply};

/// A rail or supply.
pub trait PowerSensor: Send {
    /// What it gives now.
    ///
    /// # Errors
    /// [`PowerError`] when nothing of it can be known.
    fn read(&mut self) -> Result<PowerReading, PowerError>;
}

/// What a rail or supply gives; what its driver does not show is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PowerReading {
    /// Power, in thousandths of a watt; of voltage and current where the driver states only these.
    pub milliwatts: Option<i64>,
    /// Voltage, in thousandths of a volt.
    pub millivolts: Option<i64>,
    /// Current, in thousandths of an ampere. Its sign is the driver's: most say minus when a battery empties.
    pub milliamperes: Option<i64>,
    /// Whether the supply feeds the box; `None` for a rail.
    pub is_online: Option<bool>,
    /// What a battery does; `None` for a rail.
    pub status: Option<SupplyStatus>,
}

impl PowerReading {
    /// With the power that voltage and current make, where the driver does not state it.
    pub(crate) fn with_product(mut self) -> Self {
        if let (None, Some(millivolts), Some(milliamperes)) =
            (self.milliwatts, self.millivolts, self.milliamperes)
        {
            self.milliwatts = millivolts
                .checked_mul(milliamperes)
                .map(|microwatts| microwatts / 1_000);
        }
        self
    }
}

/// What a battery does (`status`, Documentation/ABI/testing/sysfs-class-power).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupplyStatus {
    /// The driver does not know.
    Unknown,
    /// It fills.
    Charging,
    /// It empties.
    Discharging,
    /// It is fed but does not fill.
    NotCharging,
    /// It is full.
    Full,
}

/// Why power is not known.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// No chip of the name that the board file states, or its file cannot be read.
    #[error(transparent)]
    Chip(#[from] ClassFileError),
    /// The kernel's file.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// Power that somebody sets.
#[derive(Debug, Clone)]
pub struct SimPower(pub SimReading<PowerReading>);

impl PowerSensor for SimPower {
    fn read(&mut self) -> Result<PowerReading, PowerError> {
        Ok(self.0.read()?)
    }
}
