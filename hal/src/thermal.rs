//! Temperatures.

use std::{path::Path, time::Duration};

use crate::{
    class_folder::{ClassFile, ClassFileError, ClassFolder},
    kernel_file::parse_number,
    sim::{SimFault, SimReading},
};

/// One place of the board whose temperature is known.
pub trait ThermalZone: Send {
    /// Temperature in thousandths of a degree Celsius.
    ///
    /// # Errors
    /// [`ThermalError`] when it cannot be known.
    fn read_millicelsius(&mut self) -> Result<i32, ThermalError>;
}

/// Why a temperature is not known.
#[derive(Debug, thiserror::Error)]
pub enum ThermalError {
    /// No zone or sensor of the name that the board file states, or its file cannot be read.
    #[error(transparent)]
    Kernel(#[from] ClassFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// A zone of the kernel's thermal framework: the `/sys/class/thermal/thermal_zone*` whose `type` is the one wanted
/// (Documentation/driver-api/thermal/sysfs-api.rst).
#[derive(Debug)]
pub struct SysfsZone(ClassFile);

impl SysfsZone {
    /// The zone of this type; it is looked up when it is first read and, while it is missing, every `look_every`.
    #[must_use]
    pub fn new(root: &Path, zone_type: &str, look_every: Duration) -> Self {
        let folder = ClassFolder::thermal_zone(root, zone_type, look_every);
        Self(ClassFile::new(folder, vec!["temp".to_owned()]))
    }
}

impl ThermalZone for SysfsZone {
    fn read_millicelsius(&mut self) -> Result<i32, ThermalError> {
        read_millicelsius(&mut self.0)
    }
}

/// A temperature input of a hardware monitoring chip: `/sys/class/hwmon/hwmon*/{input}_input` of the chip whose
/// `name` is the one wanted (Documentation/hwmon/sysfs-interface.rst).
#[derive(Debug)]
pub struct HwmonZone(ClassFile);

impl HwmonZone {
    /// Input `input` (such as `temp1`) of the chip named `chip`; it is looked up when it is first read and, while it
    /// is missing, every `look_every`.
    #[must_use]
    pub fn new(root: &Path, chip: &str, input: &str, look_every: Duration) -> Self {
        let folder = ClassFolder::hwmon(root, chip, look_every);
        Self(ClassFile::new(folder, vec![format!("{input}_input")]))
    }
}

impl ThermalZone for HwmonZone {
    fn read_millicelsius(&mut self) -> Result<i32, ThermalError> {
        read_millicelsius(&mut self.0)
    }
}

fn read_millicelsius(file: &mut ClassFile) -> Result<i32, ThermalError> {
    Ok(file.parse("whole number of thousandths of a degree", parse_number)?)
}

/// A zone whose temperature somebody sets, in thousandths of a degree Celsius.
#[derive(Debug, Clone)]
pub struct SimZone(pub SimReading<i32>);

impl ThermalZone for SimZone {
    fn read_millicelsius(&mut self) -> Result<i32, ThermalError> {
        Ok(self.0.read()?)
    }
}
