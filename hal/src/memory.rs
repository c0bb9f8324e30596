//! Main memory: how much there is, how much is free, how much of it this process holds.

use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use crate::{
    kernel_file::{KernelFile, KernelFileError},
    sim::{SimFault, SimReading},
};

/// Main memory.
pub trait Memory: Send {
    /// The machine's memory.
    ///
    /// # Errors
    /// [`MemoryError`] when it cannot be known.
    fn read(&mut self) -> Result<MemoryBytes, MemoryError>;

    /// Bytes of memory that this process holds (resident set).
    ///
    /// # Errors
    /// [`MemoryError`] when it cannot be known.
    fn read_resident_bytes(&mut self) -> Result<u64, MemoryError>;
}

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBytes {
    /// Memory that the kernel manages (`MemTotal`).
    pub total: u64,
    /// What programs can still take without swapping, as the kernel estimates it (`MemAvailable`).
    pub available: u64,
}

/// Why memory is not known.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The kernel's files.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The page size, by which the kernel counts resident memory, is not known.
    #[error("cannot learn the page size from the system")]
    PageSize,
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// Memory from `/proc/meminfo` and `/proc/self/statm` (proc(5)).
#[derive(Debug)]
pub struct ProcMemory {
    meminfo: KernelFile,
    statm: KernelFile,
    page_bytes: Option<u64>,
}

impl ProcMemory {
    /// Memory of the machine below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            meminfo: KernelFile::new(root, "proc/meminfo"),
            statm: KernelFile::new(root, "proc/self/statm"),
            // 4 KiB on most kernels, 16 or 64 KiB on some for aarch64.
            page_bytes: sysconf(SysconfVar::PAGE_SIZE)
                .ok()
                .flatten()
                .and_then(|bytes| u64::try_from(bytes).ok()),
        }
    }
}

impl Memory for ProcMemory {
    fn read(&mut self) -> Result<MemoryBytes, MemoryError> {
        let memory = self
            .meminfo
            .parse("MemTotal and MemAvailable in kB", parse_meminfo)?;
        Ok(memory)
    }

    fn read_resident_bytes(&mut self) -> Result<u64, MemoryError> {
        let pages = self.statm.parse("second number", parse_resident_pages)?;
        let page_bytes = self.page_bytes.ok_or(MemoryError::PageSize)?;
        Ok(pages.saturating_mul(page_bytes))
    }
}

/// Reads lines such as `MemTotal:       24683656 kB`; the kernel's kB is 1,024 bytes.
fn parse_meminfo(meminfo: &str) -> Option<MemoryBytes> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let number = line.strip_prefix(':')?.trim().strip_suffix(" kB")?;
        number.trim().parse::<u64>().ok()?.checked_mul(1_024)
    };
    Some(MemoryBytes {
        total: field("MemTotal")?,
        available: field("MemAvailable")?,
    })
}

/// Reads `size resident shared text lib data dt`, in pages.
fn parse_resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Memory that somebody sets.
#[derive(Debug, Clone)]
pub struct SimMemory {
    /// The machine's memory.
    pub machine: SimReading<MemoryBytes>,
    /// This process's memory, in bytes.
    pub resident_bytes: SimReading<u64>,
}

impl Memory for SimMemory {
    fn read(&mut self) -> Result<MemoryBytes, MemoryError> {
        Ok(self.machine.read()?)
    }

    fn read_resident_bytes(&mut self) -> Result<u64, MemoryError> {
        Ok(self.resident_bytes.read()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_meminfo() {
        let meminfo = "MemTotal:        7890123 kB\nMemFree:          123456 kB\n\
                       MemAvailable:    5000000 kB\nHugePages_Total:       0\n";
        let expected = MemoryBytes {
            total: 7_890_123 * 1_024,
            available: 5_000_000 * 1_024,
        };
        assert_eq!(parse_meminfo(meminfo), Some(expected));
    }

    #[test]
    fn refuses_what_is_not_meminfo() {
        for broken in [
            "",
            "MemTotal: 5 kB\n",
            "MemTotal: 5\nMemAvailable: 4\n",
            "MemTotal: x kB\nMemAvailable: 4 kB\n",
            "MemTotal: 18446744073709551615 kB\nMemAvailable: 4 kB\n",
        ] {
            assert_eq!(parse_meminfo(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn reads_the_second_number_of_statm() {
        assert_eq!(parse_resident_pages("765 427 399 5 0 123 0\n"), Some(427));
        assert_eq!(parse_resident_pages("765\n"), None);
    }
}
