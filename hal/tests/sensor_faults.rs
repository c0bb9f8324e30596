//! Sensors whose files are missing, malformed, gone, or back with another number.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{sync::LazyLock, time::Duration};

use edge_hal::{
    Board, Readings, Sensors,
    thermal::{SysfsZone, ThermalZone},
};
use proptest::prelude::*;

use support::Machine;

const AT_ONCE: Duration = Duration::ZERO;
const NEVER: Duration = Duration::MAX;

fn named_faults(readings: &Readings) -> Vec<&str> {
    readings.faults.iter().map(|f| f.sensor.as_str()).collect()
}

fn zone(readings: &Readings, wanted: &str) -> Option<i32> {
    let mut zones = readings.temperatures.iter();
    zones.find(|(name, _)| **name == *wanted).map(|(_, t)| *t)
}

#[test]
fn what_is_gone_costs_its_own_reading_and_comes_back() {
    let machine = Machine::sm8250();
    let mut sensors = machine.sensors();
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    assert_eq!(readings.faults, []);
    let healthy = readings.clone();

    machine.unplug("sys/class/thermal/thermal_zone0");
    machine.unplug("proc/meminfo");
    machine.write("sys/class/hwmon/hwmon1/temp1_input", "hot\n");
    sensors.sample(&mut readings);
    assert_eq!(
        named_faults(&readings),
        ["memory", "temperature cpu0", "temperature case"]
    );
    let [memory, cpu, case] = readings.faults.as_slice() else {
        panic!("{:?}", readings.faults);
    };
    assert!(memory.error.starts_with("cannot read ") && memory.error.contains("ENOENT"));
    assert!(
        cpu.error
            .starts_with("no thermal_zone* with type \"cpu0-thermal\" below ")
    );
    assert!(
        cpu.error
            .ends_with("correct the board file or load the driver")
    );
    assert!(
        case.error
            .ends_with("temp1_input has no whole number of thousandths of a degree")
    );
    assert_eq!(readings.temperatures.len(), healthy.temperatures.len() - 2);
    assert_eq!(readings.memory_total_bytes, None);
    assert_eq!(readings.power, healthy.power);

    // The driver is loaded again and gets another number; another zone has the old one.
    machine.write("sys/class/thermal/thermal_zone0/type", "modem-thermal\n");
    machine.write("sys/class/thermal/thermal_zone0/temp", "99000\n");
    machine.write("sys/class/thermal/thermal_zone40/type", "cpu0-thermal\n");
    machine.write("sys/class/thermal/thermal_zone40/temp", "50000\n");
    machine.write("sys/class/hwmon/hwmon1/temp1_input", "20000\n");
    machine.write("proc/meminfo", "MemTotal: 8 kB\nMemAvailable: 4 kB\n");
    sensors.sample(&mut readings);
    assert_eq!(readings.faults, []);
    assert_eq!(zone(&readings, "cpu0"), Some(50_000));
    assert_eq!(zone(&readings, "case"), Some(20_000));
    assert_eq!(readings.memory_available_bytes, Some(4_096));
}

#[test]
fn zones_that_swap_numbers_are_told_apart() {
    let machine = Machine::sm8250();
    let mut zone = SysfsZone::new(machine.root(), "cpu0-thermal", AT_ONCE);
    assert_eq!(zone.read_millicelsius().unwrap(), 38_000);
    machine.unplug("sys/class/thermal/thermal_zone0");
    machine.unplug("sys/class/thermal/thermal_zone1");
    machine.write("sys/class/thermal/thermal_zone0/type", "cpu1-thermal\n");
    machine.write("sys/class/thermal/thermal_zone0/temp", "11000\n");
    machine.write("sys/class/thermal/thermal_zone1/type", "cpu0-thermal\n");
    machine.write("sys/class/thermal/thermal_zone1/temp", "22000\n");
    assert_eq!(zone.read_millicelsius().unwrap(), 22_000);
}

#[test]
fn a_missing_zone_is_not_looked_for_at_every_look() {
    let machine = Machine::sm8250();
    let mut zone = SysfsZone::new(machine.root(), "late-thermal", NEVER);
    let missing = zone.read_millicelsius().unwrap_err().to_string();
    machine.write("sys/class/thermal/thermal_zone50/type", "late-thermal\n");
    machine.write("sys/class/thermal/thermal_zone50/temp", "1\n");
    assert_eq!(zone.read_millicelsius().unwrap_err().to_string(), missing);
    let mut zone = SysfsZone::new(machine.root(), "late-thermal", AT_ONCE);
    assert_eq!(zone.read_millicelsius().unwrap(), 1);

    // A zone without its file says so until it is looked up again.
    machine.unplug("sys/class/thermal/thermal_zone50/temp");
    let mut zone = SysfsZone::new(machine.root(), "late-thermal", NEVER);
    for _ in 0..2 {
        let error = zone.read_millicelsius().unwrap_err().to_string();
        assert!(error.ends_with("thermal_zone50/temp"), "{error}");
    }
}

#[test]
fn an_empty_machine_has_only_faults() {
    let empty = tempfile::tempdir().unwrap();
    let nowhere = empty.path().join("no-such-folder");
    let mut sensors = Sensors::new(&Machine::board(), empty.path(), &nowhere);
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    let named = named_faults(&readings);
    assert_eq!(
        named[..10],
        [
            "kernel",
            "uptime",
            "cpu load",
            "memory",
            "agent memory",
            "storage",
            "storage health",
            "gpu",
            "cpu clock silver",
            "cpu clock gold"
        ]
    );
    assert_eq!(named.len(), 10 + 1 + 26 + 4, "{named:?}");
    let faults = std::mem::take(&mut readings.faults);
    // The clock is asked by a system call: this machine's answers, whatever the tree lacks.
    assert!(readings.clock_trust.take().is_some());
    assert_eq!(readings, Readings::default(), "{faults:?}");
    assert_eq!(sensors.kernel_release(), "unknown");
}

#[test]
fn numbers_that_no_sensor_has_are_faults() {
    let machine = Machine::sm8250();
    let mut sensors = machine.sensors();
    let mut readings = Readings::default();
    for (path, text, sensor) in [
        (
            "sys/class/thermal/thermal_zone3/temp",
            "99999999999\n",
            "temperature cpu3",
        ),
        (
            "sys/class/thermal/thermal_zone3/temp",
            "-99999999999\n",
            "temperature cpu3",
        ),
        (
            "sys/class/thermal/thermal_zone3/temp",
            "38.5\n",
            "temperature cpu3",
        ),
        (
            "sys/class/thermal/thermal_zone3/temp",
            "\n",
            "temperature cpu3",
        ),
        (
            "sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq",
            "<unknown>\n",
            "cpu clock gold",
        ),
        (
            "sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq",
            "-1\n",
            "cpu clock gold",
        ),
        (
            "sys/class/hwmon/hwmon2/power1_input",
            "1e6\n",
            "power input",
        ),
        (
            "sys/class/power_supply/battery/status",
            "Exploding\n",
            "power battery",
        ),
        ("sys/class/power_supply/usb/online", "3\n", "power usb"),
        (
            "sys/class/kgsl/kgsl-3d0/gpu_busy_percentage",
            "-3 %\n",
            "gpu",
        ),
        (
            "sys/class/kgsl/kgsl-3d0/gpuclk",
            "99999999999999999\n",
            "gpu",
        ),
        (
            "sys/class/block/sda/stat",
            "1 2 3 4 5 6\n",
            "storage health",
        ),
        ("sys/class/net/eth0/statistics/rx_bytes", "-1\n", "network"),
        ("sys/class/net/eth0/operstate", "sideways\n", "network"),
        ("proc/pressure/memory", "some\n", "memory pressure"),
        ("proc/stat", "cpu  1 2\n", "cpu load"),
        ("proc/uptime", "soon\n", "uptime"),
        ("proc/self/statm", "1\n", "agent memory"),
        (
            "proc/meminfo",
            "MemTotal: 99999999999999999999 kB\n",
            "memory",
        ),
    ] {
        let before = machine.read(path);
        machine.write(path, text);
        sensors.sample(&mut readings);
        assert_eq!(named_faults(&readings), [sensor], "{path}: {text:?}");
        machine.write(path, before);
        sensors.sample(&mut readings);
        assert_eq!(readings.faults, [], "{path}");
    }
    assert_eq!(readings.links.len(), 4);
}

#[test]
fn a_machine_that_does_not_count_waiting_has_no_pressure_and_no_fault() {
    let machine = Machine::sm8250();
    machine.unplug("proc/pressure/memory");
    let mut readings = Readings::default();
    machine.sensors().sample(&mut readings);
    assert_eq!(readings.memory_pressure, None);
    assert_eq!(readings.faults, []);
}

static BROKEN: LazyLock<Machine> = LazyLock::new(Machine::sm8250);

proptest! {
    /// Whatever a file holds, nothing panics, and at most one sensor is lost.
    #[test]
    fn a_broken_file_costs_at_most_one_sensor(
        which in any::<prop::sample::Index>(),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(any::<u8>(), 4_000..9_000),
            "[-+ 0-9.%@:x\n]{0,60}".prop_map(String::into_bytes),
            "(cpu |some |full |MemTotal: |MemAvailable: )?[-0-9 ]{0,80}( kB)?\n?".prop_map(String::into_bytes),
        ],
        is_broken_from_the_start in any::<bool>(),
    ) {
        let machine = &*BROKEN;
        let path = *which.get(&machine.files);
        let good = machine.read(path);
        let mut readings = Readings::default();
        if is_broken_from_the_start {
            machine.write(path, &bytes);
        }
        let mut sensors = machine.sensors();
        sensors.sample(&mut readings);
        machine.write(path, &bytes);
        sensors.sample(&mut readings);
        let faults = readings.faults.clone();
        machine.write(path, good);
        prop_assert!(faults.len() <= 1, "{}: {:?}", path, faults);
        sensors.sample(&mut readings);
        prop_assert_eq!(&readings.faults, &[], "{} again good", path);
    }
}

#[test]
fn a_board_without_sensors_reads_what_every_machine_has() {
    let machine = Machine::sm8250();
    let board = Board::parse(
        "name = \"bare\"\ndescription = \"no sensors\"\ncompatible = []\n\
         [storage]\nsource = { kind = \"simulated\", total_bytes = 10, available_bytes = 5 }\ntechnology = \"disk\"\n\
         [accelerators]\nexecution_providers = [\"cpu\"]\n",
        "bare.toml",
    )
    .unwrap();
    let mut readings = Readings::default();
    machine.sensors_of(&board).sample(&mut readings);
    assert_eq!(readings.faults, []);
    assert_eq!(readings.storage_available_bytes, Some(5));
    assert_eq!((readings.gpu, readings.wear), (None, None));
    assert_eq!(readings.temperatures, []);
}
