//! Rails that a hardware monitoring chip watches.

use std::{path::Path, time::Duration};

use super::{PowerError, PowerReading, PowerSensor};
use crate::{
    class_folder::{ClassFile, ClassFileError, ClassFolder},
    kernel_file::parse_number,
};

/// Inputs of the `/sys/class/hwmon/hwmon*` whose `name` is the one wanted: `power*_input` or, on chips that only
/// average, `power*_average`, in microwatts; `in*_input` in millivolts; `curr*_input` in milliamperes
/// (Documentation/hwmon/sysfs-interface.rst).
#[derive(Debug)]
pub struct HwmonPower {
    power: Option<ClassFile>,
    voltage: Option<ClassFile>,
    current: Option<ClassFile>,
}

impl HwmonPower {
    /// Inputs of the chip named `chip`, such as `power1`, `in1` and `curr1`; looked up when first read and, while
    /// missing, every `look_every`.
    #[must_use]
    pub fn new(
        root: &Path,
        chip: &str,
        power: Option<&str>,
        voltage: Option<&str>,
        current: Option<&str>,
        look_every: Duration,
    ) -> Self {
        let file = |names| ClassFile::new(ClassFolder::hwmon(root, chip, look_every), names);
        Self {
            power: power.map(|p| file(vec![format!("{p}_input"), format!("{p}_average")])),
            voltage: voltage.map(|v| file(vec![format!("{v}_input")])),
            current: current.map(|c| file(vec![format!("{c}_input")])),
        }
    }
}

impl PowerSensor for HwmonPower {
    fn read(&mut self) -> Result<PowerReading, PowerError> {
        let microwatts = read(self.power.as_mut(), "whole number of microwatts")?;
        let reading = PowerReading {
            milliwatts: microwatts.map(|microwatts| microwatts / 1_000),
            millivolts: read(self.voltage.as_mut(), "whole number of millivolts")?,
            milliamperes: read(self.current.as_mut(), "whole number of milliamperes")?,
            ..PowerReading::default()
        };
        Ok(reading.with_product())
    }
}

fn read(file: Option<&mut ClassFile>, wanted: &'static str) -> Result<Option<i64>, ClassFileError> {
    file.map(|file| file.parse(wanted, parse_number))
        .transpose()
}
