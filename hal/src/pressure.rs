//! How much programs wait for memory.

use std::path::Path;

use crate::{
    kernel_file::{KernelFile, KernelFileError},
    sim::{SimFault, SimReading},
};

/// Waiting for memory.
pub trait MemoryPressure: Send {
    /// Waiting in the last seconds; `None` where the kernel does not count it.
    ///
    /// # Errors
    /// [`MemoryPressureError`] when it counts but cannot be read.
    fn read(&mut self) -> Result<Option<Pressure>, MemoryPressureError>;
}

/// Share of the last 10 seconds in which programs waited for memory, in percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// At least one program waited.
    pub some_percent: f32,
    /// All programs that had something to do waited.
    pub full_percent: f32,
}

/// Why memory pressure is not known.
#[derive(Debug, thiserror::Error)]
pub enum MemoryPressureError {
    /// The kernel's file.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// Pressure stall information in `/proc/pressure/memory` (Documentation/accounting/psi.rst). Kernels built without it
/// have no such file, those that start with `psi=0` refuse to open it.
#[derive(Debug)]
pub struct PsiMemory(KernelFile);

impl PsiMemory {
    /// The machine below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self(KernelFile::new(root, "proc/pressure/memory"))
    }
}

impl MemoryPressure for PsiMemory {
    fn read(&mut self) -> Result<Option<Pressure>, MemoryPressureError> {
        match self.0.parse("\"some\" and \"full\" with avg10", parse_psi) {
            Ok(pressure) => Ok(Some(pressure)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads `some avg10=0.12 avg60=0.05 avg300=0.01 total=12345` and the same for `full`.
fn parse_psi(text: &str) -> Option<Pressure> {
    let average = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let average = line.split_ascii_whitespace().next()?;
        let percent: f32 = average.strip_prefix("avg10=")?.parse().ok()?;
        (0.0..=100.0).contains(&percent).then_some(percent)
    };
    Some(Pressure {
        some_percent: average("some ")?,
        full_percent: average("full ")?,
    })
}

/// Pressure that somebody sets.
#[derive(Debug, Clone)]
pub struct SimMemoryPressure(pub SimReading<Option<Pressure>>);

impl MemoryPressure for SimMemoryPressure {
    fn read(&mut self) -> Result<Option<Pressure>, MemoryPressureError> {
        Ok(self.0.read()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_lines_and_refuses_what_is_no_share() {
        let text = "some avg10=1.53 avg60=0.87 avg300=0.21 total=2154\n\
                    full avg10=0.40 avg60=0.10 avg300=0.00 total=999\n";
        let expected = Pressure {
            some_percent: 1.53,
            full_percent: 0.4,
        };
        assert_eq!(parse_psi(text), Some(expected));
        for broken in [
            "",
            "some avg10=1.0\n",
            "some avg10=101.0\nfull avg10=0.0\n",
            "some avg10=NaN\nfull avg10=0.0\n",
            "some avg60=1.0\nfull avg60=0.0\n",
        ] {
            assert_eq!(parse_psi(broken), None, "{broken:?}");
        }
    }
}
