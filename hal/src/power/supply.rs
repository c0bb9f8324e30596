//! Supplies and batteries.

use std::path::Path;

use super::{PowerError, PowerReading, PowerSensor, SupplyStatus};
use crate::kernel_file::{KernelFile, KernelFileError, parse_number};

/// `/sys/class/power_supply/{device}`: `voltage_now` in microvolts, `current_now` in microamperes, `power_now` in
/// microwatts, `online`, `status`; a driver has some of them (Documentation/ABI/testing/sysfs-class-power).
#[derive(Debug)]
pub struct PowerSupply {
    voltage: KernelFile,
    current: KernelFile,
    power: KernelFile,
    online: KernelFile,
    status: KernelFile,
}

impl PowerSupply {
    /// The supply named `device`.
    #[must_use]
    pub fn new(root: &Path, device: &str) -> Self {
        let file =
            |name: &str| KernelFile::new(root, &format!("sys/class/power_supply/{device}/{name}"));
        Self {
            voltage: file("voltage_now"),
            current: file("current_now"),
            power: file("power_now"),
            online: file("online"),
            status: file("status"),
        }
    }
}

impl PowerSensor for PowerSupply {
    fn read(&mut self) -> Result<PowerReading, PowerError> {
        let thousandths = |micro: i64| micro / 1_000;
        let number = "whole number of millionths";
        // Fails only when the folder has none of the files.
        let mut absent = None;
        let mut has_any = false;
        let mut keep = |error: Option<KernelFileError>| match error {
            Some(error) => absent = absent.take().or(Some(error)),
            None => has_any = true,
        };
        let voltage = optional(&mut self.voltage, number, parse_number, &mut keep)?;
        let current = optional(&mut self.current, number, parse_number, &mut keep)?;
        let power = optional(&mut self.power, number, parse_number, &mut keep)?;
        let is_online = optional(&mut self.online, "0, 1 or 2", parse_online, &mut keep)?;
        let status = optional(&mut self.status, "known status", parse_status, &mut keep)?;
        if let (false, Some(error)) = (has_any, absent) {
            return Err(error.into());
        }
        let reading = PowerReading {
            milliwatts: power.map(thousandths),
            millivolts: voltage.map(thousandths),
            milliamperes: current.map(thousandths),
            is_online,
            status,
        };
        Ok(reading.with_product())
    }
}

/// The file's reading, `None` where the driver has no such file; `keep` hears of both.
fn optional<T>(
    file: &mut KernelFile,
    wanted: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
    keep: &mut impl FnMut(Option<KernelFileError>),
) -> Result<Option<T>, KernelFileError> {
    match file.parse(wanted, parse) {
        Ok(reading) => {
            keep(None);
            Ok(Some(reading))
        }
        Err(error) if error.is_absent() => {
            keep(Some(error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads 0 (offline), 1 (one fixed voltage) or 2 (a programmable one).
fn parse_online(text: &str) -> Option<bool> {
    match text.trim() {
        "0" => Some(false),
        "1" | "2" => Some(true),
        _ => None,
    }
}

fn parse_status(text: &str) -> Option<SupplyStatus> {
    match text.trim() {
        "Unknown" => Some(SupplyStatus::Unknown),
        "Charging" => Some(SupplyStatus::Charging),
        "Discharging" => Some(SupplyStatus::Discharging),
        "Not charging" => Some(SupplyStatus::NotCharging),
        "Full" => Some(SupplyStatus::Full),
        _ => None,
    }
}
