//! A board's readings, from trees of files in the kernel's formats, from this machine, and from simulated parts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use edge_hal::{
    Board, Readings, Sensors,
    cpu::SimCpuLoad,
    memory::{MemoryBytes, SimMemory},
    sensors::Parts,
    sim::SimReading,
    storage::{SimStorage, StorageBytes},
    thermal::SimZone,
};
use tempfile::TempDir;

const BOARD: &str = r#"
[board]
name = "fixture"
description = "a tree of files"

[storage]
kind = "linux"

[inference]
execution_providers = ["cpu"]

[[thermal_zone]]
name = "cpu"
kind = "linux"
type = "cpu0-thermal"

[[thermal_zone]]
name = "board"
kind = "hwmon"
chip = "tmp102"
input = "temp1"

[[thermal_zone]]
name = "gpu"
kind = "simulated"
base_millicelsius = 30_000
per_load_millicelsius = 20_000
"#;

/// A machine made of files.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (path, text) in [
            (
                "proc/stat",
                "cpu  100 0 50 850 0 0 0 0 0 0\ncpu0 100 0 50 850 0 0 0 0 0 0\n",
            ),
            (
                "proc/meminfo",
                "MemTotal:        7890123 kB\nMemFree: 1 kB\nMemAvailable:    5000000 kB\n",
            ),
            ("proc/self/statm", "9000 2048 700 5 0 123 0\n"),
            ("proc/uptime", "3600.25 7000.10\n"),
            ("proc/sys/kernel/osrelease", "6.12.1-edge\n"),
            ("sys/class/thermal/thermal_zone0/type", "aoss0-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "31000\n"),
            ("sys/class/thermal/thermal_zone12/type", "cpu0-thermal\n"),
            ("sys/class/thermal/thermal_zone12/temp", "45678\n"),
            ("sys/class/thermal/cooling_device0/type", "cpu0-thermal\n"),
            ("sys/class/hwmon/hwmon0/name", "nvme\n"),
            ("sys/class/hwmon/hwmon1/name", "tmp102\n"),
            ("sys/class/hwmon/hwmon1/temp1_input", "-5250\n"),
        ] {
            machine.write(path, text);
        }
        machine
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sensors(&self) -> Sensors {
        let board = Board::parse(BOARD, "fixture.toml").unwrap();
        Sensors::new(&board, self.root(), self.root())
    }
}

fn zones(readings: &Readings) -> Vec<(&str, i32)> {
    readings
        .temperatures
        .iter()
        .map(|(name, millicelsius)| (name.as_str(), *millicelsius))
        .collect()
}

#[test]
fn reads_a_whole_board() {
    let machine = Machine::new();
    let mut sensors = machine.sensors();
    // 60 busy and 40 idle ticks pass.
    machine.write("proc/stat", "cpu  140 0 70 890 0 0 0 0 0 0\n");
    let readings = sensors.read();
    assert_eq!(readings.faults, Vec::<String>::new());
    assert_eq!(readings.uptime_s, Some(3_600));
    assert_eq!(readings.cpu_load_percent, Some(60.0));
    assert_eq!(
        zones(&readings),
        [("cpu", 45_678), ("board", -5_250), ("gpu", 42_000)]
    );
    assert_eq!(readings.memory_total_bytes, Some(7_890_123 * 1_024));
    assert_eq!(readings.memory_available_bytes, Some(5_000_000 * 1_024));
    assert!(readings.agent_resident_bytes.unwrap() >= 2_048 * 4_096);
    assert!(readings.storage_total_bytes.unwrap() >= readings.storage_available_bytes.unwrap());
    assert_eq!(sensors.kernel_release(), "6.12.1-edge");
}

#[test]
fn no_tick_gives_no_load_and_no_fault() {
    let machine = Machine::new();
    let readings = machine.sensors().read();
    assert_eq!(readings.cpu_load_percent, None);
    assert_eq!(readings.faults, Vec::<String>::new());
}

#[test]
fn what_is_gone_costs_its_own_reading_and_comes_back() {
    let machine = Machine::new();
    let mut sensors = machine.sensors();
    assert_eq!(sensors.read().temperatures.len(), 3);

    fs::remove_dir_all(machine.path("sys/class/thermal/thermal_zone12")).unwrap();
    fs::remove_file(machine.path("proc/meminfo")).unwrap();
    machine.write("sys/class/hwmon/hwmon1/temp1_input", "hot\n");
    let readings = sensors.read();
    assert_eq!(zones(&readings), [("gpu", 30_000)]);
    assert_eq!(readings.memory_total_bytes, None);
    assert_eq!(readings.uptime_s, Some(3_600));
    let [memory, cpu, board] = readings.faults.as_slice() else {
        panic!("{:?}", readings.faults);
    };
    assert!(memory.starts_with("memory: cannot read ") && memory.contains("No such file"));
    assert!(cpu.starts_with("temperature cpu: no thermal_zone* with type \"cpu0-thermal\""));
    assert!(board.starts_with("temperature board: ") && board.contains("whole number"));

    // The driver is loaded again and gets another number.
    machine.write("sys/class/thermal/thermal_zone3/type", "cpu0-thermal\n");
    machine.write("sys/class/thermal/thermal_zone3/temp", "50000\n");
    machine.write("sys/class/hwmon/hwmon1/temp1_input", "20000\n");
    assert_eq!(
        zones(&sensors.read()),
        [("cpu", 50_000), ("board", 20_000), ("gpu", 30_000)]
    );
}

#[test]
fn an_empty_machine_has_only_faults() {
    let empty = tempfile::tempdir().unwrap();
    let board = Board::parse(BOARD, "fixture.toml").unwrap();
    let nowhere = empty.path().join("no-such-folder");
    let mut sensors = Sensors::new(&board, empty.path(), &nowhere);
    let readings = sensors.read();
    let sensors_named: Vec<&str> = readings
        .faults
        .iter()
        .map(|fault| fault.split_once(':').unwrap().0)
        .collect();
    assert_eq!(
        sensors_named,
        [
            "cpu load",
            "memory",
            "storage",
            "temperature cpu",
            "temperature board",
            "uptime",
            "agent memory"
        ]
    );
    assert_eq!(sensors.kernel_release(), "unknown");
}

#[test]
fn this_machine_as_host_sim_reads_without_a_fault() {
    let data = tempfile::tempdir().unwrap();
    let board = Board::resolve("host-sim").unwrap();
    let mut sensors = Sensors::new(&board, Path::new("/"), data.path());
    let readings = sensors.read();
    assert_eq!(readings.faults, Vec::<String>::new());
    let names: Vec<&str> = zones(&readings).iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["cpu", "gpu"]);
    assert!(readings.memory_total_bytes.unwrap() > readings.agent_resident_bytes.unwrap());
    assert!(readings.storage_total_bytes.unwrap() > 0);
    assert_ne!(sensors.kernel_release(), "unknown");
}

#[test]
fn simulated_parts_say_and_fail_what_they_are_told() {
    let load = SimReading::new(50.0);
    let ambient = SimReading::new(0);
    let machine_memory = SimReading::new(MemoryBytes {
        total: 8,
        available: 4,
    });
    let storage = SimReading::new(StorageBytes {
        total: 100,
        available: 10,
    });
    let zone = SimZone {
        base_millicelsius: 40_000,
        per_load_millicelsius: 30_000,
        load_percent: load.clone(),
        ambient_millicelsius: ambient.clone(),
    };
    let parts = Parts {
        cpu: Box::new(SimCpuLoad(load.clone())),
        memory: Box::new(SimMemory {
            machine: machine_memory.clone(),
            resident_bytes: SimReading::new(1),
        }),
        storage: Box::new(SimStorage(storage.clone())),
        zones: vec![("cpu".to_owned(), Box::new(zone))],
    };
    let mut sensors = Sensors::from_parts(parts, Path::new("/"));
    assert_eq!(zones(&sensors.read()), [("cpu", 55_000)]);

    load.set(100.0);
    ambient.set(5_000);
    storage.set(StorageBytes {
        total: 100,
        available: 0,
    });
    let readings = sensors.read();
    assert_eq!(zones(&readings), [("cpu", 75_000)]);
    assert_eq!(readings.storage_available_bytes, Some(0));

    ambient.fail("sensor unplugged");
    machine_memory.fail("bus error");
    let readings = sensors.read();
    assert_eq!(readings.temperatures, []);
    assert_eq!(
        readings.faults,
        [
            "memory: simulated fault: bus error",
            "temperature cpu: simulated fault: sensor unplugged"
        ]
    );

    ambient.recover();
    machine_memory.recover();
    assert_eq!(sensors.read().faults, Vec::<String>::new());
}
