//! GPUs of Qualcomm's own driver.

use std::path::Path;

use super::{Gpu, GpuError, GpuReading, devfreq::parse_khz};
use crate::kernel_file::{KernelFile, KernelFileError, parse_number};

/// `/sys/class/kgsl/{device}` of Qualcomm's public kernels (`drivers/gpu/msm/kgsl_pwrctrl.c`, `_gpu_busy_show`,
/// `gpubusy_show`, `gpuclk_show`, `_clock_mhz_show`): `gpu_busy_percentage` reads `12 %`, the older `gpubusy` reads
/// busy and total microseconds of the driver's last window of a second; `gpuclk` is in hertz, the newer `clock_mhz`
/// in megahertz. A GPU that is switched off has zeros in `gpubusy`: it is not busy.
#[derive(Debug)]
pub struct KgslGpu {
    busy_percentage: KernelFile,
    busy: KernelFile,
    hertz: KernelFile,
    megahertz: KernelFile,
}

impl KgslGpu {
    /// The GPU named `device`, such as `kgsl-3d0`.
    #[must_use]
    pub fn new(root: &Path, device: &str) -> Self {
        let file = |name: &str| KernelFile::new(root, &format!("sys/class/kgsl/{device}/{name}"));
        Self {
            busy_percentage: file("gpu_busy_percentage"),
            busy: file("gpubusy"),
            hertz: file("gpuclk"),
            megahertz: file("clock_mhz"),
        }
    }
}

impl Gpu for KgslGpu {
    fn read(&mut self) -> Result<GpuReading, GpuError> {
        let load = first(
            self.busy_percentage
                .parse("percentage from 0 to 100", parse_percentage),
            || self.busy.parse("busy and total time", parse_busy),
        );
        let khz = first(self.hertz.parse("whole number of hertz", parse_khz), || {
            let parse = |text: &str| parse_number::<u32>(text)?.checked_mul(1_000);
            self.megahertz.parse("whole number of megahertz", parse)
        });
        match (khz, load) {
            (Err(error), Err(no_load)) if error.is_absent() && no_load.is_absent() => {
                Err(error.into())
            }
            (khz, load) => Ok(GpuReading {
                khz: shown(khz)?,
                load_percent: shown(load)?,
            }),
        }
    }
}

/// The reading, or where its file does not exist the one of `other`; where neither does, the first error.
fn first<T>(
    reading: Result<T, KernelFileError>,
    other: impl FnOnce() -> Result<T, KernelFileError>,
) -> Result<T, KernelFileError> {
    match reading {
        Err(error) if error.is_absent() => match other() {
            Err(absent) if absent.is_absent() => Err(error),
            reading => reading,
        },
        reading => reading,
    }
}

fn shown<T>(reading: Result<T, KernelFileError>) -> Result<Option<T>, KernelFileError> {
    match reading {
        Ok(reading) => Ok(Some(reading)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads `12 %`.
fn parse_percentage(text: &str) -> Option<f32> {
    let percent: u8 = parse_number(text.trim().strip_suffix('%')?)?;
    (percent <= 100).then(|| percent.into())
}

/// Reads `  51234  1000321`.
fn parse_busy(text: &str) -> Option<f32> {
    let mut times = text.split_ascii_whitespace().map(parse_number::<u32>);
    let (busy, total) = (times.next()??, times.next()??);
    if total == 0 {
        return Some(0.0);
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a percentage needs no more than f32's 24 bits"
    )]
    let percent = (f64::from(busy) / f64::from(total) * 100.0) as f32;
    Some(percent.min(100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_of_load() {
        assert_eq!(parse_percentage("12 %\n"), Some(12.0));
        assert_eq!(parse_busy("  51234  1000000\n"), Some(5.1234));
        assert_eq!(parse_busy("      0       0\n"), Some(0.0));
        // The window closes between the two counters.
        assert_eq!(parse_busy("1000001 1000000\n"), Some(100.0));
        for broken in ["", "12\n", "-1 %\n", "101 %\n", "% %"] {
            assert_eq!(parse_percentage(broken), None, "{broken:?}");
        }
        for broken in ["", "5\n", "-5 10\n", "a b\n"] {
            assert_eq!(parse_busy(broken), None, "{broken:?}");
        }
    }
}
