//! GPUs of mainline drivers.

use std::path::Path;

use super::{Gpu, GpuError, GpuReading};
use crate::kernel_file::{KernelFile, parse_number};

/// `/sys/class/devfreq/{device}`: `cur_freq` in hertz (Documentation/ABI/testing/sysfs-class-devfreq).
///
/// The load is `None` with mainline's msm driver: it hands its busy time to the governor only
/// (`drivers/gpu/drm/msm/msm_gpu_devfreq.c`, `msm_devfreq_get_dev_status`) and shows it per client, in the
/// `drm-engine-gpu` line of each client's own fdinfo (Documentation/gpu/drm-usage-stats.rst), which needs every
/// process's file descriptors. Some vendors' kernels have a file `load` that reads `23@200000000Hz`; it is used where
/// it exists.
#[derive(Debug)]
pub struct DevfreqGpu {
    frequency: KernelFile,
    load: KernelFile,
}

impl DevfreqGpu {
    /// The GPU whose devfreq device is named `device`, such as `3d00000.gpu`.
    #[must_use]
    pub fn new(root: &Path, device: &str) -> Self {
        let file =
            |name: &str| KernelFile::new(root, &format!("sys/class/devfreq/{device}/{name}"));
        Self {
            frequency: file("cur_freq"),
            load: file("load"),
        }
    }
}

impl Gpu for DevfreqGpu {
    fn read(&mut self) -> Result<GpuReading, GpuError> {
        let khz = self.frequency.parse("whole number of hertz", parse_khz)?;
        let load_percent = match self.load.parse("load in percent before \"@\"", parse_load) {
            Ok(percent) => Some(percent),
            Err(error) if error.is_absent() => None,
            Err(error) => return Err(error.into()),
        };
        Ok(GpuReading {
            khz: Some(khz),
            load_percent,
        })
    }
}

/// Reads hertz; those of a GPU do not fit into 32 bits for ever.
pub(super) fn parse_khz(text: &str) -> Option<u32> {
    u32::try_from(parse_number::<u64>(text)? / 1_000).ok()
}

fn parse_load(text: &str) -> Option<f32> {
    let (percent, _) = text.split_once('@')?;
    let percent: u8 = parse_number(percent)?;
    (percent <= 100).then(|| percent.into())
}
