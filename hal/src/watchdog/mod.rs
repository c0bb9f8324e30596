//! The watchdog: hardware that resets the box when nobody feeds it.

mod ioctl;
mod linux;
mod sysfs;

use std::{io, path::PathBuf, time::Duration};

pub use self::{
    linux::{LinuxWatchdog, WatchdogDevice, WatchdogSupport},
    sysfs::{WatchdogNode, WatchdogStatus},
};
use crate::{
    kernel_file::KernelFileError,
    sim::{SimFault, SimReading},
};

/// A watchdog. It runs from when it is opened, and goes on running when it is dropped: a program that dies does not
/// disarm it.
pub trait Watchdog: Send {
    /// Time without food after which it resets the box, as the hardware granted it.
    fn timeout(&self) -> Duration;

    /// Feeds it.
    ///
    /// # Errors
    /// [`WatchdogError`] when the hardware does not take it.
    fn feed(&mut self) -> Result<(), WatchdogError>;

    /// Stops it, where the kernel allows that (`nowayout` is not set): for an orderly end of the agent.
    ///
    /// # Errors
    /// [`WatchdogError`] when it goes on running.
    fn disarm(&mut self) -> Result<(), WatchdogError>;

    /// Whether it was this watchdog that caused the last start of the box.
    ///
    /// # Errors
    /// [`WatchdogError`] when it does not tell.
    fn caused_last_reset(&mut self) -> Result<bool, WatchdogError>;
}

/// Why a watchdog does not obey.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// There is none of the identity that the board file states.
    #[error("no watchdog with identity {identity:?} below {}; correct the board file or load the driver", below.display())]
    Missing {
        /// What was looked for.
        identity: String,
        /// Where.
        below: PathBuf,
    },
    /// The device refuses.
    #[error("cannot {operation} {}", device.display())]
    Device {
        /// What was attempted.
        operation: &'static str,
        /// The device file.
        device: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The device file is another watchdog than `/sys/class/watchdog` says.
    #[error("{} says that it is {found:?}, not {identity:?}; correct the board file", device.display())]
    OtherDevice {
        /// The device file.
        device: PathBuf,
        /// What was looked for.
        identity: String,
        /// What the device says.
        found: String,
    },
    /// The time-out that the hardware grants is no use.
    #[error(
        "{} grants a time-out of {granted_s} s where {wanted_s} s were asked for, and takes none between half and twice that; correct the board file",
        device.display()
    )]
    Timeout {
        /// The device file.
        device: PathBuf,
        /// Seconds that were asked for.
        wanted_s: u32,
        /// Seconds that it grants.
        granted_s: i32,
    },
    /// It cannot be stopped.
    #[error("{} goes on running: {why}; it resets the box if nobody opens and feeds it", device.display())]
    Unstoppable {
        /// The device file.
        device: PathBuf,
        /// Why it cannot be stopped.
        why: &'static str,
    },
    /// The kernel's file.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// A watchdog that counts its meals instead of resetting the box.
#[derive(Debug, Clone)]
pub struct SimWatchdog {
    /// Its time-out.
    pub timeout: Duration,
    /// How often it was fed; told to fail, it takes no food.
    pub meals: SimReading<u64>,
    /// Whether it runs.
    pub armed: SimReading<bool>,
    /// Whether it caused the last reset.
    pub caused_last_reset: SimReading<bool>,
}

impl Watchdog for SimWatchdog {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn feed(&mut self) -> Result<(), WatchdogError> {
        self.meals.set(self.meals.read()? + 1);
        Ok(())
    }

    fn disarm(&mut self) -> Result<(), WatchdogError> {
        self.armed.read()?;
        self.armed.set(false);
        Ok(())
    }

    fn caused_last_reset(&mut self) -> Result<bool, WatchdogError> {
        Ok(self.caused_last_reset.read()?)
    }
}
