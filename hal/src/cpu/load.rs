//! How busy the processor is.

use std::path::Path;

use crate::{
    kernel_file::{KernelFile, KernelFileError},
    sim::{SimFault, SimReading},
};

/// Load of all cores together.
pub trait CpuLoad: Send {
    /// Share of time that the cores were not idle since the previous call (or since creation), in percent, 0 to 100.
    /// `None` when so little time has passed that the kernel's counters (10 ms) stood still.
    ///
    /// # Errors
    /// [`CpuLoadError`] when the load cannot be known.
    fn read_percent(&mut self) -> Result<Option<f32>, CpuLoadError>;
}

/// Why the load is not known.
#[derive(Debug, thiserror::Error)]
pub enum CpuLoadError {
    /// The kernel's counters.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// Load from the counters in `/proc/stat` (proc(5)).
#[derive(Debug)]
pub struct ProcStatLoad {
    file: KernelFile,
    previous: Option<Ticks>,
}

/// Counters since boot, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    idle: u64,
}

impl ProcStatLoad {
    /// Counts from now on. Where the counters cannot be read yet, the first readings fail or are `None`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let mut file = KernelFile::new(root, "proc/stat");
        let previous = read_ticks(&mut file).ok();
        Self { file, previous }
    }
}

impl CpuLoad for ProcStatLoad {
    fn read_percent(&mut self) -> Result<Option<f32>, CpuLoadError> {
        let now = read_ticks(&mut self.file)?;
        let Some(previous) = self.previous else {
            self.previous = Some(now);
            return Ok(None);
        };
        let load = percent_between(previous, now);
        if load.is_some() {
            self.previous = Some(now);
        }
        Ok(load)
    }
}

fn read_ticks(file: &mut KernelFile) -> Result<Ticks, KernelFileError> {
    file.parse("line \"cpu\" with at least 4 counters", parse_ticks)
}

/// Reads the line `cpu user nice system idle iowait irq softirq steal guest guest_nice`. Kernels before 2.6 end
/// earlier. Guest time is already part of user time, so it is not counted twice.
fn parse_ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut counters = line
        .split_ascii_whitespace()
        .map_while(|text| text.parse::<u64>().ok());
    let (user, nice) = (counters.next()?, counters.next()?);
    let (system, idle) = (counters.next()?, counters.next()?);
    let iowait = counters.next().unwrap_or(0);
    let sum = |counters: &[u64]| counters.iter().copied().fold(0, u64::saturating_add);
    let interrupts_and_steal = counters.take(3).fold(0, u64::saturating_add);
    Some(Ticks {
        busy: sum(&[user, nice, system, interrupts_and_steal]),
        idle: sum(&[idle, iowait]),
    })
}

/// `None` when no tick has passed. The kernel lets `iowait` run backwards at times; then it counts as standing still.
fn percent_between(previous: Ticks, now: Ticks) -> Option<f32> {
    let busy = now.busy.saturating_sub(previous.busy);
    let idle = now.idle.saturating_sub(previous.idle);
    let total = busy.saturating_add(idle);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a percentage needs no more than f32's 24 bits"
    )]
    (total > 0).then(|| (busy as f64 / total as f64 * 100.0) as f32)
}

/// A load that somebody sets, in percent.
#[derive(Debug, Clone)]
pub struct SimCpuLoad(pub SimReading<f32>);

impl CpuLoad for SimCpuLoad {
    fn read_percent(&mut self) -> Result<Option<f32>, CpuLoadError> {
        Ok(Some(self.0.read()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total_line_only() {
        let stat = "cpu  100 5 20 1000 30 1 2 3 40 4\ncpu0 9 9 9 9 9 9 9 9 9 9\nintr 5\n";
        let expected = Ticks {
            busy: 131,
            idle: 1030,
        };
        assert_eq!(parse_ticks(stat), Some(expected));
    }

    #[test]
    fn reads_old_and_refuses_broken_counters() {
        let expected = Ticks { busy: 6, idle: 4 };
        assert_eq!(parse_ticks("cpu  1 2 3 4\n"), Some(expected));
        for broken in [
            "",
            "cpu  1 2 3\n",
            "cpu0 1 2 3 4 5\n",
            "cpu  a b c d e\n",
            "cpu  1 2 -3 4\n",
        ] {
            assert_eq!(parse_ticks(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn load_is_the_busy_share_of_what_passed() {
        let at = |busy, idle| Ticks { busy, idle };
        for (previous, now, expected) in [
            (at(0, 0), at(0, 0), None),
            (at(10, 10), at(35, 85), Some(25.0)),
            (at(10, 10), at(20, 10), Some(100.0)),
            (at(10, 10), at(10, 20), Some(0.0)),
            // iowait ran backwards
            (at(10, 10), at(15, 8), Some(100.0)),
        ] {
            assert_eq!(percent_between(previous, now), expected);
        }
    }
}
