//! A look at the board allocates nothing, also where it looks for what is missing and for new links: here each look
//! does so, which otherwise comes every 10 s. Only what changes costs memory, once. A test program of its own, because
//! it replaces the allocator by one that counts.

mod support;

use std::{path::Path, time::Duration};

use edge_hal::{Board, Readings, Sensors, sensors::Parts};

use support::Machine;

/// Sensors that look for what is missing, for links and for wear at each look.
fn sensors(board: &Board, root: &Path) -> Sensors {
    let parts = Parts::new(board, root, &std::env::temp_dir(), Duration::ZERO);
    Sensors::from_parts(parts, root)
}

/// Allocations of so many looks.
fn allocations(looks: usize, sensors: &mut Sensors, readings: &mut Readings) -> u64 {
    let counted = allocation_counter::measure(|| {
        for _ in 0..looks {
            sensors.sample(readings);
        }
    });
    counted.count_total
}

/// A link that carries.
fn plug(machine: &Machine, link: &str) {
    for (file, text) in [
        ("operstate", "up\n"),
        ("speed", "100\n"),
        ("statistics/rx_bytes", "1\n"),
        ("statistics/tx_bytes", "2\n"),
        ("statistics/rx_errors", "3\n"),
        ("statistics/tx_errors", "4\n"),
    ] {
        machine.write(&format!("sys/class/net/{link}/{file}"), text);
    }
}

#[test]
fn a_healthy_board_is_sampled_without_allocating() {
    let machine = Machine::sm8250();
    let mut sensors = sensors(&Machine::board(), machine.root());
    let mut readings = Readings::default();
    // The counter counts.
    assert!(allocations(1, &mut sensors, &mut readings) > 0);
    assert_eq!(allocations(1_000, &mut sensors, &mut readings), 0);
    assert_eq!(readings.faults, []);
    assert_eq!(readings.temperatures.len(), 26);
    assert_eq!(readings.links.len(), 4);
}

#[test]
fn a_link_that_comes_or_goes_costs_memory_once() {
    let machine = Machine::sm8250();
    let mut sensors = sensors(&Machine::board(), machine.root());
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    for _ in 0..3 {
        // Names that come first, in the middle and last.
        for link in ["ath0", "rmnet_data0", "wwan0"] {
            plug(&machine, link);
            assert!(allocations(1, &mut sensors, &mut readings) > 0);
            assert_eq!(readings.links.len(), 5);
            assert!(readings.links.is_sorted_by(|a, b| a.name < b.name));
            assert_eq!(allocations(100, &mut sensors, &mut readings), 0);
            machine.unplug(&format!("sys/class/net/{link}"));
            assert_eq!(allocations(100, &mut sensors, &mut readings), 0);
            assert_eq!(readings.links.len(), 4);
        }
    }
    // More links than are read, and files and folders that are no links.
    for number in 0..100 {
        plug(&machine, &format!("veth{number}"));
    }
    machine.write("sys/class/net/a-file", "");
    machine.write("sys/class/net/a-folder/other", "");
    machine.write("sys/class/net/a-name-that-is-too-long/operstate", "up\n");
    sensors.sample(&mut readings);
    assert_eq!(readings.links.len(), edge_hal::network::MAX_LINKS);
    assert_eq!(allocations(100, &mut sensors, &mut readings), 0);
    assert_eq!(readings.faults, []);
}

#[test]
fn faults_that_stay_cost_no_memory_either() {
    let machine = Machine::sm8250();
    machine.unplug("sys/class/thermal/thermal_zone0");
    machine.unplug("sys/class/hwmon/hwmon2");
    machine.unplug("proc/meminfo");
    machine.write("sys/class/kgsl/kgsl-3d0/gpuclk", "fast\n");
    let mut sensors = sensors(&Machine::board(), machine.root());
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    assert_eq!(readings.faults.len(), 4);
    assert_eq!(allocations(100, &mut sensors, &mut readings), 0);
    // A zone whose folder stands, without the file, and one that goes while it is read.
    machine.unplug("sys/class/thermal/thermal_zone1/temp");
    machine.unplug("sys/class/thermal/thermal_zone2");
    sensors.sample(&mut readings);
    assert_eq!(readings.faults.len(), 6);
    assert_eq!(allocations(100, &mut sensors, &mut readings), 0);
}

#[test]
fn this_machine_is_sampled_without_allocating() {
    let board = Board::builtin("host-sim").expect("part of the program");
    let mut sensors = sensors(&board, Path::new("/"));
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    assert_eq!(allocations(100, &mut sensors, &mut readings), 0);
}
