//! Temperatures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    kernel_file::{KernelFile, KernelFileError},
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
    /// No zone or sensor of the name that the board file states.
    #[error("no {wanted} below {}; correct the board file or load the driver", below.display())]
    Missing {
        /// What was looked for.
        wanted: String,
        /// Where.
        below: PathBuf,
    },
    /// The kernel's file.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// A zone of the kernel's thermal framework: the `/sys/class/thermal/thermal_zone*` whose `type` is the one wanted
/// (Documentation/driver-api/thermal/sysfs-api.rst). Zones are numbered in the order their drivers load, so only
/// the type names one for good.
#[derive(Debug)]
pub struct SysfsZone(NamedNode);

impl SysfsZone {
    /// The zone of this type; it is looked up when it is first read.
    #[must_use]
    pub fn new(root: &Path, zone_type: &str) -> Self {
        Self(NamedNode {
            class: root.join("sys/class/thermal"),
            prefix: "thermal_zone",
            key: "type",
            value: zone_type.to_owned(),
            file: "temp".to_owned(),
            found: None,
        })
    }
}

impl ThermalZone for SysfsZone {
    fn read_millicelsius(&mut self) -> Result<i32, ThermalError> {
        self.0.read()
    }
}

/// A temperature input of a hardware monitoring chip: `/sys/class/hwmon/hwmon*/{input}_input` of the chip whose
/// `name` is the one wanted (Documentation/hwmon/sysfs-interface.rst).
#[derive(Debug)]
pub struct HwmonZone(NamedNode);

impl HwmonZone {
    /// Input `input` (such as `temp1`) of the chip named `chip`; it is looked up when it is first read.
    #[must_use]
    pub fn new(root: &Path, chip: &str, input: &str) -> Self {
        Self(NamedNode {
            class: root.join("sys/class/hwmon"),
            prefix: "hwmon",
            key: "name",
            value: chip.to_owned(),
            file: format!("{input}_input"),
            found: None,
        })
    }
}

impl ThermalZone for HwmonZone {
    fn read_millicelsius(&mut self) -> Result<i32, ThermalError> {
        self.0.read()
    }
}

/// The file of a numbered class folder that is known by what another file in it says.
#[derive(Debug)]
struct NamedNode {
    class: PathBuf,
    prefix: &'static str,
    key: &'static str,
    value: String,
    file: String,
    /// The file as last found; kept only while it can be read, because numbers change when a driver is reloaded.
    found: Option<KernelFile>,
}

impl NamedNode {
    fn read(&mut self) -> Result<i32, ThermalError> {
        if let Some(file) = self.found.take()
            && let Ok(millicelsius) = read_millicelsius(&file)
        {
            self.found = Some(file);
            return Ok(millicelsius);
        }
        let folder =
            find_folder(&self.class, self.prefix, self.key, &self.value).ok_or_else(|| {
                ThermalError::Missing {
                    wanted: format!("{}* with {} {:?}", self.prefix, self.key, self.value),
                    below: self.class.clone(),
                }
            })?;
        let file = KernelFile::new(&folder, &self.file);
        let millicelsius = read_millicelsius(&file)?;
        self.found = Some(file);
        Ok(millicelsius)
    }
}

fn read_millicelsius(file: &KernelFile) -> Result<i32, KernelFileError> {
    file.parse("whole number of thousandths of a degree", |text| {
        text.trim().parse().ok()
    })
}

/// The first folder `{class}/{prefix}*`, by number, whose file `key` reads `value`.
fn find_folder(class: &Path, prefix: &str, key: &str, value: &str) -> Option<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = fs::read_dir(class)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    folders.sort_unstable();
    folders
        .into_iter()
        .map(|(_, folder)| folder)
        .find(|folder| fs::read_to_string(folder.join(key)).is_ok_and(|text| text.trim() == value))
}

/// A zone whose temperature rises in proportion to a load.
#[derive(Debug, Clone)]
pub struct SimZone {
    /// Temperature without load, in thousandths of a degree Celsius.
    pub base_millicelsius: i32,
    /// What full load adds.
    pub per_load_millicelsius: i32,
    /// The load that heats it, in percent.
    pub load_percent: SimReading<f32>,
    /// What else heats it (a hot day), in thousandths of a degree; told to fail, the zone fails.
    pub ambient_millicelsius: SimReading<i32>,
}

impl ThermalZone for SimZone {
    fn read_millicelsius(&mut self) -> Result<i32, ThermalError> {
        let ambient = self.ambient_millicelsius.read()?;
        let load = f64::from(self.load_percent.read()?.clamp(0.0, 100.0)) / 100.0;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a share of an i32 fits an i32"
        )]
        let rise = (f64::from(self.per_load_millicelsius) * load).round() as i32;
        Ok(self
            .base_millicelsius
            .saturating_add(rise)
            .saturating_add(ambient))
    }
}
