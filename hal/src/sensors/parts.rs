//! The parts whose readings are taken, and which of them a board has.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    Board,
    board::{GpuSource, PowerConfig, PowerSource, StorageConfig, StorageSource, ZoneSource},
    clock::Clock,
    cpu::{CpuClock, CpuLoad, CpufreqClock, ProcStatLoad},
    gpu::{DevfreqGpu, Gpu, GpuReading, KgslGpu, SimGpu},
    memory::{Memory, ProcMemory},
    network::{Network, SysfsNetwork},
    power::{HwmonPower, PowerReading, PowerSensor, PowerSupply, RaplPower, SimPower},
    pressure::{MemoryPressure, PsiMemory},
    sim::SimReading,
    storage::{SimStorage, StatvfsStorage, Storage, StorageBytes},
    storage_health::{BlockHealth, StorageHealth},
    thermal::{HwmonZone, SimZone, SysfsZone, ThermalZone},
};

/// Storage is asked for its wear, which changes in months, this much more seldom than missing sensors are looked for.
const WEAR_TIMES_SELDOMER: u32 = 60;

/// A part with its name in the board file.
pub type Named<T> = (Arc<str>, Box<T>);

/// What [`super::Sensors`] reads; a simulated board and tests put simulated parts in.
pub struct Parts {
    /// The processor's load.
    pub cpu: Box<dyn CpuLoad>,
    /// Clocks of the clusters.
    pub cpu_clocks: Vec<Named<dyn CpuClock>>,
    /// Thermal zones.
    pub zones: Vec<Named<dyn ThermalZone>>,
    /// The GPU.
    pub gpu: Option<Box<dyn Gpu>>,
    /// Rails and supplies.
    pub power: Vec<Named<dyn PowerSensor>>,
    /// Main memory.
    pub memory: Box<dyn Memory>,
    /// Waiting for memory.
    pub pressure: Box<dyn MemoryPressure>,
    /// Storage of the data folder.
    pub storage: Box<dyn Storage>,
    /// Wear of the storage.
    pub storage_health: Option<Box<dyn StorageHealth>>,
    /// Links to networks.
    pub network: Box<dyn Network>,
    /// The clock; none where nobody asks how far it can be trusted.
    pub clock: Option<Box<dyn Clock>>,
}

impl Parts {
    /// The parts that `board` has, without a clock. Kernel files are read below `root`; `data_dir` is the folder
    /// whose storage counts; what is missing is looked for again every `look_every`.
    #[must_use]
    pub fn new(board: &Board, root: &Path, data_dir: &Path, look_every: Duration) -> Self {
        Self {
            cpu: Box::new(ProcStatLoad::new(root)),
            cpu_clocks: cpu_clocks(board, root),
            zones: board
                .thermal_zones
                .iter()
                .map(|z| (z.name.as_str().into(), zone(&z.source, root, look_every)))
                .collect(),
            gpu: board.gpu.as_ref().map(|g| gpu(&g.source, root)),
            power: board
                .power
                .iter()
                .map(|p| (p.name.as_str().into(), power(p, root, look_every)))
                .collect(),
            memory: Box::new(ProcMemory::new(root)),
            pressure: Box::new(PsiMemory::new(root)),
            storage: storage(&board.storage, data_dir),
            storage_health: storage_health(
                &board.storage,
                root,
                look_every.saturating_mul(WEAR_TIMES_SELDOMER),
            ),
            network: Box::new(SysfsNetwork::new(root, look_every)),
            clock: None,
        }
    }
}

/// The clock of each cluster whose kernel shows a frequency.
fn cpu_clocks(board: &Board, root: &Path) -> Vec<Named<dyn CpuClock>> {
    board
        .cpu_clusters
        .iter()
        .filter(|cluster| cluster.max_khz.is_some())
        .filter_map(|cluster| {
            let clock: Box<dyn CpuClock> =
                Box::new(CpufreqClock::new(root, *cluster.cores.first()?));
            Some((cluster.name.as_str().into(), clock))
        })
        .collect()
}

fn zone(source: &ZoneSource, root: &Path, look_every: Duration) -> Box<dyn ThermalZone> {
    match source {
        ZoneSource::Thermal { zone_type } => Box::new(SysfsZone::new(root, zone_type, look_every)),
        ZoneSource::Hwmon { chip, input } => {
            Box::new(HwmonZone::new(root, chip, input, look_every))
        }
        ZoneSource::Simulated { .. } => simulated::zone(),
    }
}

fn gpu(source: &GpuSource, root: &Path) -> Box<dyn Gpu> {
    match source {
        GpuSource::Devfreq { device } => Box::new(DevfreqGpu::new(root, device)),
        GpuSource::Kgsl { device } => Box::new(KgslGpu::new(root, device)),
        GpuSource::Simulated => simulated::gpu(),
    }
}

fn power(config: &PowerConfig, root: &Path, look_every: Duration) -> Box<dyn PowerSensor> {
    match &config.source {
        PowerSource::Hwmon {
            chip,
            power,
            voltage,
            current,
        } => Box::new(HwmonPower::new(
            root,
            chip,
            power.as_deref(),
            voltage.as_deref(),
            current.as_deref(),
            look_every,
        )),
        PowerSource::PowerSupply { device } => Box::new(PowerSupply::new(root, device)),
        PowerSource::Rapl { zone } => Box::new(RaplPower::new(root, zone)),
        PowerSource::Simulated => simulated::power(),
    }
}

fn storage(config: &StorageConfig, data_dir: &Path) -> Box<dyn Storage> {
    match config.source {
        StorageSource::Linux => Box::new(StatvfsStorage::new(data_dir)),
        StorageSource::Simulated {
            total_bytes: total,
            available_bytes: available,
        } => Box::new(SimStorage(SimReading::new(StorageBytes {
            total,
            available,
        }))),
    }
}

fn storage_health(
    config: &StorageConfig,
    root: &Path,
    look_every: Duration,
) -> Option<Box<dyn StorageHealth>> {
    let device = config.device.as_deref()?;
    Some(Box::new(BlockHealth::new(
        root,
        device,
        config.technology,
        look_every,
    )))
}

/// The parts that a board file calls simulated, when nobody put the simulated board's own into [`Parts`]: constants.
/// This is the one place where the simulated board's parts come in.
mod simulated {
    use super::{
        Gpu, GpuReading, PowerReading, PowerSensor, SimGpu, SimPower, SimReading, SimZone,
        ThermalZone,
    };

    /// Of a box that does nothing in a cool room.
    const IDLE_MILLICELSIUS: i32 = 25_000;

    pub(super) fn zone() -> Box<dyn ThermalZone> {
        Box::new(SimZone(SimReading::new(IDLE_MILLICELSIUS)))
    }

    pub(super) fn gpu() -> Box<dyn Gpu> {
        Box::new(SimGpu(SimReading::new(GpuReading::default())))
    }

    pub(super) fn power() -> Box<dyn PowerSensor> {
        Box::new(SimPower(SimReading::new(PowerReading::default())))
    }
}
