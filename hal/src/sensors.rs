//! All readings of one board together. A sensor that cannot be read costs its own reading and nothing else.

use std::{error::Error, path::Path};

use crate::{
    Board,
    board::{StorageSource, ZoneSource},
    cpu::{CpuLoad, ProcStatLoad},
    memory::{Memory, ProcMemory},
    sim::SimReading,
    storage::{SimStorage, StatvfsStorage, Storage, StorageBytes},
    system::Kernel,
    thermal::{HwmonZone, SimZone, SysfsZone, ThermalZone},
};

/// One look at the board. What could not be read is `None` or absent, and [`Readings::faults`] says why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    /// Whole seconds since boot.
    pub uptime_s: Option<u64>,
    /// Share of time that the cores were busy since the previous look, 0 to 100. `None` without a fault when the
    /// previous look was less than a tick of the kernel (10 ms) ago.
    pub cpu_load_percent: Option<f32>,
    /// Thermal zones by their names in the board file, in its order, in thousandths of a degree Celsius.
    pub temperatures: Vec<(String, i32)>,
    /// The machine's memory.
    pub memory_total_bytes: Option<u64>,
    /// What programs can still take without swapping.
    pub memory_available_bytes: Option<u64>,
    /// Resident memory of this process.
    pub agent_resident_bytes: Option<u64>,
    /// Size of the file system that holds the data folder.
    pub storage_total_bytes: Option<u64>,
    /// What can still be written to it without privileges.
    pub storage_available_bytes: Option<u64>,
    /// One line for each sensor that could not be read: `sensor: why`.
    pub faults: Vec<String>,
}

/// The sensors of a board.
pub struct Sensors {
    parts: Parts,
    kernel: Kernel,
    load_percent: SimReading<f32>,
}

/// What [`Sensors`] reads; tests put simulated parts in.
pub struct Parts {
    /// The processor.
    pub cpu: Box<dyn CpuLoad>,
    /// Main memory.
    pub memory: Box<dyn Memory>,
    /// Storage of the data folder.
    pub storage: Box<dyn Storage>,
    /// Thermal zones with their names.
    pub zones: Vec<(String, Box<dyn ThermalZone>)>,
}

impl Sensors {
    /// The sensors that `board` has. Kernel files are read below `root` (`/` on a machine); `data_dir` is the folder
    /// whose storage counts. Nothing is opened that must exist: what is missing shows in the readings' faults.
    #[must_use]
    pub fn new(board: &Board, root: &Path, data_dir: &Path) -> Self {
        let load_percent = SimReading::new(0.0);
        let storage: Box<dyn Storage> = match board.storage {
            StorageSource::Linux => Box::new(StatvfsStorage::new(data_dir)),
            StorageSource::Simulated {
                total_bytes: total,
                available_bytes: available,
            } => Box::new(SimStorage(SimReading::new(StorageBytes {
                total,
                available,
            }))),
        };
        let zone = |source: &ZoneSource| -> Box<dyn ThermalZone> {
            match source {
                ZoneSource::Linux { zone_type } => Box::new(SysfsZone::new(root, zone_type)),
                ZoneSource::Hwmon { chip, input } => Box::new(HwmonZone::new(root, chip, input)),
                ZoneSource::Simulated {
                    base_millicelsius,
                    per_load_millicelsius,
                } => Box::new(SimZone {
                    base_millicelsius: *base_millicelsius,
                    per_load_millicelsius: *per_load_millicelsius,
                    load_percent: load_percent.clone(),
                    ambient_millicelsius: SimReading::new(0),
                }),
            }
        };
        let zones = board
            .thermal_zones
            .iter()
            .map(|z| (z.name.clone(), zone(&z.source)))
            .collect();
        let parts = Parts {
            cpu: Box::new(ProcStatLoad::new(root)),
            memory: Box::new(ProcMemory::new(root)),
            storage,
            zones,
        };
        Self {
            load_percent,
            ..Self::from_parts(parts, root)
        }
    }

    /// Sensors put together by hand; the kernel's own files are read below `root`.
    #[must_use]
    pub fn from_parts(parts: Parts, root: &Path) -> Self {
        Self {
            parts,
            kernel: Kernel::new(root),
            load_percent: SimReading::new(0.0),
        }
    }

    /// Reads everything once. This touches files and may take milliseconds on a slow bus, so it does not belong on
    /// a thread that must answer.
    pub fn read(&mut self) -> Readings {
        let mut faults = Faults::default();
        let parts = &mut self.parts;
        let cpu_load_percent = faults
            .keep("cpu load", parts.cpu.read_percent())
            .flatten()
            .inspect(|load| self.load_percent.set(*load));
        let memory = faults.keep("memory", parts.memory.read());
        let storage = faults.keep("storage", parts.storage.read());
        let mut temperatures = Vec::with_capacity(parts.zones.len());
        for (name, zone) in &mut parts.zones {
            let reading = faults.keep(format_args!("temperature {name}"), zone.read_millicelsius());
            temperatures.extend(reading.map(|millicelsius| (name.clone(), millicelsius)));
        }
        Readings {
            uptime_s: faults.keep("uptime", self.kernel.read_uptime_s()),
            cpu_load_percent,
            temperatures,
            memory_total_bytes: memory.map(|m| m.total),
            memory_available_bytes: memory.map(|m| m.available),
            agent_resident_bytes: faults.keep("agent memory", parts.memory.read_resident_bytes()),
            storage_total_bytes: storage.map(|s| s.total),
            storage_available_bytes: storage.map(|s| s.available),
            faults: faults.0,
        }
    }

    /// The kernel's release, as `uname -r` prints it; `unknown` where it cannot be read.
    #[must_use]
    pub fn kernel_release(&self) -> String {
        self.kernel
            .read_release()
            .unwrap_or_else(|_| "unknown".to_owned())
    }
}

impl std::fmt::Debug for Sensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zones: Vec<_> = self.parts.zones.iter().map(|(name, _)| name).collect();
        f.debug_struct("Sensors").field("zones", &zones).finish()
    }
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    /// The reading, or a fault of `sensor` with the whole chain of causes.
    fn keep<T, E: Error>(
        &mut self,
        sensor: impl std::fmt::Display,
        reading: Result<T, E>,
    ) -> Option<T> {
        reading
            .inspect_err(|error| {
                let mut fault = format!("{sensor}: {error}");
                let mut cause = error.source();
                while let Some(error) = cause {
                    fault.push_str(": ");
                    fault.push_str(&error.to_string());
                    cause = error.source();
                }
                self.0.push(fault);
            })
            .ok()
    }
}
