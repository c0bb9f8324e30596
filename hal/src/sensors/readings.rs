//! What a look at the board gives. Its memory is used again at the next look.

use std::{
    error::Error,
    fmt::{self, Write as _},
    sync::Arc,
};

use super::parts::Named;
use crate::{
    clock::ClockTrust,
    cpu::ClusterClock,
    gpu::GpuReading,
    network::{Link, Network},
    power::PowerReading,
    pressure::Pressure,
    storage_health::Wear,
};

/// One look at the board. What could not be read is `None` or absent, and [`Readings::faults`] says why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    /// The kernel's release, as `uname -r` prints it.
    pub kernel_release: Option<Arc<str>>,
    /// Whole seconds since boot.
    pub uptime_s: Option<u64>,
    /// Share of time that the cores were busy since the previous look, 0 to 100. `None` without a fault when the
    /// previous look was less than a tick of the kernel (10 ms) ago.
    pub cpu_load_percent: Option<f32>,
    /// Clusters by their names in the board file, in its order, and their frequencies.
    pub cpu_clocks: Vec<(Arc<str>, ClusterClock)>,
    /// Thermal zones by their names in the board file, in its order, in thousandths of a degree Celsius.
    pub temperatures: Vec<(Arc<str>, i32)>,
    /// The GPU.
    pub gpu: Option<GpuReading>,
    /// Turns of the fan a minute. [`super::Sensors`] leaves it as it is: the one who drives the fan sets it.
    pub fan_rpm: Option<u32>,
    /// Rails and supplies by their names in the board file, in its order.
    pub power: Vec<(Arc<str>, PowerReading)>,
    /// The machine's memory.
    pub memory_total_bytes: Option<u64>,
    /// What programs can still take without swapping.
    pub memory_available_bytes: Option<u64>,
    /// How much programs wait for memory; `None` without a fault where the kernel does not count it.
    pub memory_pressure: Option<Pressure>,
    /// Resident memory of this process.
    pub agent_resident_bytes: Option<u64>,
    /// Size of the file system that holds the data folder.
    pub storage_total_bytes: Option<u64>,
    /// What can still be written to it without privileges.
    pub storage_available_bytes: Option<u64>,
    /// Wear of the storage.
    pub wear: Option<Wear>,
    /// Network links, at most [`crate::network::MAX_LINKS`].
    pub links: Vec<Link>,
    /// How far the clock can be trusted.
    pub clock_trust: Option<ClockTrust>,
    /// One for each sensor that could not be read.
    pub faults: Vec<Fault>,
}

/// Why a sensor could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// The sensor, such as `temperature cpu0`.
    pub sensor: String,
    /// The error with all its causes.
    pub error: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sensor, self.error)
    }
}

impl Readings {
    /// Begins a new look.
    pub(super) fn begin(&mut self) -> Filling<'_> {
        Filling {
            readings: self,
            faults: 0,
        }
    }
}

/// A look that is being taken. Faults are written over those of the previous look, so that one that stays costs no
/// memory.
pub(super) struct Filling<'a> {
    readings: &'a mut Readings,
    faults: usize,
}

impl<'a> Filling<'a> {
    /// The reading, or a fault of `sensor`.
    pub(super) fn keep<T, E: Error>(
        &mut self,
        sensor: &str,
        name: Option<&str>,
        reading: Result<T, E>,
    ) -> Option<T> {
        match reading {
            Ok(reading) => Some(reading),
            Err(error) => {
                self.put_fault(sensor, name, &error);
                None
            }
        }
    }

    /// Readings of all `parts` of a kind.
    pub(super) fn keep_all<P: ?Sized, T, E: Error>(
        &mut self,
        kind: &str,
        parts: &mut [Named<P>],
        mut read: impl FnMut(&mut P) -> Result<T, E>,
        to: impl Fn(&mut Readings) -> &mut Vec<(Arc<str>, T)>,
    ) {
        to(self.readings).clear();
        for (name, part) in parts {
            if let Some(reading) = self.keep(kind, Some(name), read(part)) {
                to(self.readings).push((Arc::clone(name), reading));
            }
        }
    }

    /// Readings of all links.
    pub(super) fn keep_links(&mut self, network: &mut dyn Network) {
        let result = network.read(&mut self.readings.links);
        self.keep("network", None, result);
    }

    /// Ends the look; the rest of the readings can be set.
    pub(super) fn end(self) -> &'a mut Readings {
        self.readings.faults.truncate(self.faults);
        self.readings
    }

    fn put_fault(&mut self, sensor: &str, name: Option<&str>, error: &dyn Error) {
        if self.faults == self.readings.faults.len() {
            self.readings.faults.push(Fault::default());
        }
        let Some(fault) = self.readings.faults.get_mut(self.faults) else {
            return;
        };
        self.faults += 1;
        fault.sensor.clear();
        fault.sensor.push_str(sensor);
        if let Some(name) = name {
            fault.sensor.push(' ');
            fault.sensor.push_str(name);
        }
        fault.error.clear();
        let mut cause = Some(error);
        while let Some(error) = cause {
            if !fault.error.is_empty() {
                fault.error.push_str(": ");
            }
            // Writing into a string fails only when an error's own words fail; then they are missing here.
            write!(fault.error, "{error}").ok();
            cause = error.source();
        }
    }
}
