//! Energy counters of x86 processors: what the development machine spends.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{PowerError, PowerReading, PowerSensor};
use crate::kernel_file::{KernelFile, parse_number};

/// Shortest time between two looks at the counter that gives a power: it moves about once in a millisecond.
const SHORTEST: Duration = Duration::from_millis(10);

/// The mean power between two looks at `/sys/class/powercap/{zone}/energy_uj`, which counts up to
/// `max_energy_range_uj` and starts again (Documentation/power/powercap/powercap.rst). Since 2020 only root may
/// read it.
#[derive(Debug)]
pub struct RaplPower {
    energy: KernelFile,
    range: KernelFile,
    range_uj: Option<u64>,
    previous: Option<(Instant, u64)>,
}

impl RaplPower {
    /// The zone named `zone`, such as `intel-rapl:0`.
    #[must_use]
    pub fn new(root: &Path, zone: &str) -> Self {
        let file = |name: &str| KernelFile::new(root, &format!("sys/class/powercap/{zone}/{name}"));
        Self {
            energy: file("energy_uj"),
            range: file("max_energy_range_uj"),
            range_uj: None,
            previous: None,
        }
    }

    /// The mean power since the previous look, which took place before `now`; none at the first look and when less
    /// than 10 ms passed.
    ///
    /// # Errors
    /// [`PowerError::Kernel`] when a counter cannot be read.
    pub fn read_at(&mut self, now: Instant) -> Result<PowerReading, PowerError> {
        let wanted = "whole number of microjoules";
        let range_uj = match self.range_uj {
            Some(range_uj) => range_uj,
            None => *self
                .range_uj
                .insert(self.range.parse(wanted, parse_number)?),
        };
        let energy_uj = self.energy.parse(wanted, parse_number)?;
        let Some((then, before_uj)) = self.previous else {
            self.previous = Some((now, energy_uj));
            return Ok(PowerReading::default());
        };
        let passed = now.saturating_duration_since(then);
        if passed < SHORTEST {
            return Ok(PowerReading::default());
        }
        self.previous = Some((now, energy_uj));
        Ok(PowerReading {
            milliwatts: mean_milliwatts(before_uj, energy_uj, range_uj, passed),
            ..PowerReading::default()
        })
    }
}

impl PowerSensor for RaplPower {
    fn read(&mut self) -> Result<PowerReading, PowerError> {
        self.read_at(Instant::now())
    }
}

/// Microjoules in microseconds are watts. The counter takes the values 0 to `range_uj`, so past the end it has
/// counted one more than the difference says.
fn mean_milliwatts(before_uj: u64, now_uj: u64, range_uj: u64, passed: Duration) -> Option<i64> {
    let spent_uj = match now_uj.checked_sub(before_uj) {
        Some(spent_uj) => spent_uj,
        None => range_uj
            .checked_sub(before_uj)?
            .checked_add(now_uj)?
            .checked_add(1)?,
    };
    let milliwatts = u128::from(spent_uj)
        .checked_mul(1_000)?
        .checked_div(passed.as_micros())?;
    i64::try_from(milliwatts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_is_energy_by_time_also_past_the_counters_end() {
        let second = Duration::from_secs(1);
        for (before, now, range, passed, expected) in [
            (0, 15_000_000, 262_143_328_850, second, Some(15_000)),
            (5, 5, 100, second, Some(0)),
            (
                262_143_328_850,
                9_999_999,
                262_143_328_850,
                second,
                Some(10_000),
            ),
            (90, 9, 99, Duration::from_micros(20), Some(950)),
            // Beyond its own range: the driver was loaded again, or lies.
            (1_000, 5, 99, second, None),
            (0, u64::MAX, u64::MAX, Duration::from_nanos(1), None),
        ] {
            assert_eq!(mean_milliwatts(before, now, range, passed), expected);
        }
    }
}
