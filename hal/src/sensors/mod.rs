//! All readings of one board together. A sensor that cannot be read costs its own reading and nothing else.

mod parts;
mod readings;
mod simulated;

use std::{path::Path, sync::Arc, time::Duration};

pub use self::{
    parts::{Named, Parts},
    readings::{Fault, Readings},
    simulated::SimFollower,
};
use crate::{
    Board, clock::AdjtimexClock, cpu::CpuClock, power::PowerSensor, sim::SimBoard, system::Kernel,
    thermal::ThermalZone,
};

/// How often what is missing is looked for again, and new links are looked for.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The sensors of a board.
pub struct Sensors {
    parts: Parts,
    kernel: Kernel,
    kernel_release: Option<Arc<str>>,
    simulated: Option<SimFollower>,
}

impl Sensors {
    /// The sensors that `board` has. Kernel files are read below `root` (`/` on a machine); `data_dir` is the folder
    /// whose storage counts. Nothing is opened that must exist: what is missing shows in the readings' faults.
    #[must_use]
    pub fn new(board: &Board, root: &Path, data_dir: &Path) -> Self {
        let mut parts = Parts::new(board, root, data_dir, LOOK_EVERY);
        // A machine that can be detected has a clock of its own, whatever else of it is simulated.
        if !board.compatible.is_empty() {
            parts.clock = Some(Box::new(AdjtimexClock));
        }
        let simulated = SimBoard::is_for(board).then(|| SimBoard::new(board));
        if let Some(sim) = &simulated {
            parts.simulate(board, sim);
        }
        Self {
            simulated: simulated.map(SimFollower::new),
            ..Self::from_parts(parts, root)
        }
    }

    /// The simulated board, where the board file has simulated parts: for the one who drives its fan or plays a
    /// script on it. It lives in the time between looks.
    #[must_use]
    pub fn simulated(&self) -> Option<&SimBoard> {
        self.simulated.as_ref().map(SimFollower::board)
    }

    /// Sensors put together by hand; the kernel's own files are read below `root`.
    #[must_use]
    pub fn from_parts(parts: Parts, root: &Path) -> Self {
        let mut kernel = Kernel::new(root);
        let kernel_release = kernel.read_release().ok().map(Into::into);
        Self {
            parts,
            kernel,
            kernel_release,
            simulated: None,
        }
    }

    /// Reads everything once into `readings`, which keeps its memory: from the second look on nothing is allocated
    /// while the same sensors answer. This touches files and may take milliseconds on a slow bus, so it does not
    /// belong on a thread that must answer. [`Readings::fan_rpm`] is left to the one who drives the fan.
    pub fn sample(&mut self, readings: &mut Readings) {
        let parts = &mut self.parts;
        let mut faults = readings.begin();
        if self.kernel_release.is_none() {
            let release = faults.keep("kernel", None, self.kernel.read_release());
            self.kernel_release = release.map(Into::into);
        }
        let uptime_s = faults.keep("uptime", None, self.kernel.read_uptime_s());
        let cpu_load = faults.keep("cpu load", None, parts.cpu.read_percent());
        if let Some(simulated) = &mut self.simulated {
            simulated.look(cpu_load.flatten());
        }
        let memory = faults.keep("memory", None, parts.memory.read());
        let resident = faults.keep("agent memory", None, parts.memory.read_resident_bytes());
        let pressure = faults.keep("memory pressure", None, parts.pressure.read());
        let storage = faults.keep("storage", None, parts.storage.read());
        let wear = parts
            .storage_health
            .as_mut()
            .and_then(|health| faults.keep("storage health", None, health.read()));
        let gpu = parts
            .gpu
            .as_mut()
            .and_then(|gpu| faults.keep("gpu", None, gpu.read()));
        let clock_trust = parts
            .clock
            .as_mut()
            .and_then(|clock| faults.keep("clock", None, clock.read()));
        faults.keep_all(
            "cpu clock",
            &mut parts.cpu_clocks,
            <dyn CpuClock>::read,
            |to| &mut to.cpu_clocks,
        );
        faults.keep_all(
            "temperature",
            &mut parts.zones,
            <dyn ThermalZone>::read_millicelsius,
            |to| &mut to.temperatures,
        );
        faults.keep_all("power", &mut parts.power, <dyn PowerSensor>::read, |to| {
            &mut to.power
        });
        faults.keep_links(parts.network.as_mut());
        let readings = faults.end();
        readings.kernel_release.clone_from(&self.kernel_release);
        readings.uptime_s = uptime_s;
        readings.cpu_load_percent = cpu_load.flatten();
        readings.memory_total_bytes = memory.map(|m| m.total);
        readings.memory_available_bytes = memory.map(|m| m.available);
        readings.agent_resident_bytes = resident;
        readings.memory_pressure = pressure.flatten();
        readings.storage_total_bytes = storage.map(|s| s.total);
        readings.storage_available_bytes = storage.map(|s| s.available);
        readings.wear = wear;
        readings.gpu = gpu;
        readings.clock_trust = clock_trust;
    }

    /// The kernel's release, as `uname -r` prints it; `unknown` while it cannot be read.
    #[must_use]
    pub fn kernel_release(&self) -> &str {
        self.kernel_release.as_deref().unwrap_or("unknown")
    }
}

impl std::fmt::Debug for Sensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zones: Vec<_> = self.parts.zones.iter().map(|(name, _)| name).collect();
        f.debug_struct("Sensors").field("zones", &zones).finish()
    }
}
