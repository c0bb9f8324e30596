//! Whether the time of day can be trusted.

mod adjtimex;

use std::io;

pub use self::adjtimex::AdjtimexClock;
use crate::sim::{SimFault, SimReading};

/// The clock of the machine.
pub trait Clock: Send {
    /// What the kernel knows of the clock's error.
    ///
    /// # Errors
    /// [`ClockError`] when it cannot be known.
    fn read(&mut self) -> Result<ClockTrust, ClockError>;
}

/// How far the clock can be trusted (adjtimex(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockTrust {
    /// Whether a time service holds the clock (no `STA_UNSYNC`, no `TIME_ERROR`).
    pub is_synchronised: bool,
    /// Largest error that the time service states, in microseconds.
    pub max_error_us: u64,
}

/// Why the clock's error is not known.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The kernel refuses.
    #[error("cannot ask the kernel whether the clock is synchronised")]
    Kernel(#[source] io::Error),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// A clock that somebody trusts or not.
#[derive(Debug, Clone)]
pub struct SimClock(pub SimReading<ClockTrust>);

impl Clock for SimClock {
    fn read(&mut self) -> Result<ClockTrust, ClockError> {
        Ok(self.0.read()?)
    }
}
