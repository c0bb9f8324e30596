//! How fast a cluster of cores runs, and how fast it may.

use std::path::Path;

use crate::{
    kernel_file::{KernelFile, KernelFileError, parse_number},
    sim::{SimFault, SimReading},
};

/// The clock of a cluster of cores.
pub trait CpuClock: Send {
    /// Present frequency and its limits.
    ///
    /// # Errors
    /// [`CpuClockError`] when they cannot be known.
    fn read(&mut self) -> Result<ClusterClock, CpuClockError>;
}

/// Frequencies of a cluster, in thousands of cycles a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterClock {
    /// The present one.
    pub khz: u32,
    /// The highest that the kernel allows now. Below [`ClusterClock::max_khz`] the kernel holds the cluster back:
    /// because it is hot, or because somebody asked for it. What the hardware holds back by itself it does not show.
    pub limit_khz: u32,
    /// The highest that the hardware has.
    pub max_khz: u32,
}

impl ClusterClock {
    /// Whether the kernel holds the cluster back.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.limit_khz < self.max_khz
    }
}

/// Why a clock is not known.
#[derive(Debug, thiserror::Error)]
pub enum CpuClockError {
    /// The kernel's files.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// The clock as `/sys/devices/system/cpu/cpu{n}/cpufreq` of the cluster's first core states it: `scaling_cur_freq`,
/// `scaling_max_freq`, which thermal cooling lowers, and `cpuinfo_max_freq` (Documentation/admin-guide/pm/cpufreq.rst).
#[derive(Debug)]
pub struct CpufreqClock {
    current: KernelFile,
    limit: KernelFile,
    max: KernelFile,
    max_khz: Option<u32>,
}

impl CpufreqClock {
    /// The clock of the cluster whose first core is `core`.
    #[must_use]
    pub fn new(root: &Path, core: u16) -> Self {
        let file = |name: &str| {
            let path = format!("sys/devices/system/cpu/cpu{core}/cpufreq/{name}");
            KernelFile::new(root, &path)
        };
        Self {
            current: file("scaling_cur_freq"),
            limit: file("scaling_max_freq"),
            max: file("cpuinfo_max_freq"),
            max_khz: None,
        }
    }
}

impl CpuClock for CpufreqClock {
    fn read(&mut self) -> Result<ClusterClock, CpuClockError> {
        let khz = read_khz(&mut self.current)?;
        let limit_khz = read_khz(&mut self.limit)?;
        // The hardware's own limit does not change.
        let max_khz = match self.max_khz {
            Some(max_khz) => max_khz,
            None => *self.max_khz.insert(read_khz(&mut self.max)?),
        };
        Ok(ClusterClock {
            khz,
            limit_khz,
            max_khz,
        })
    }
}

fn read_khz(file: &mut KernelFile) -> Result<u32, KernelFileError> {
    file.parse("whole number of kilohertz", parse_number)
}

/// A clock that somebody sets.
#[derive(Debug, Clone)]
pub struct SimCpuClock(pub SimReading<ClusterClock>);

impl CpuClock for SimCpuClock {
    fn read(&mut self) -> Result<ClusterClock, CpuClockError> {
        Ok(self.0.read()?)
    }
}
