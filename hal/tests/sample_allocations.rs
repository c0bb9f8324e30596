//! A look at the board allocates nothing once its sensors are found, save that every 10 s it lists the links and what
//! is missing, which does not happen here. A test program of its own, because it replaces
//! the allocator by one that counts.

mod support;

use std::{path::Path, time::Duration};

use edge_hal::{Board, Readings, Sensors, sensors::Parts};

use support::Machine;

/// Sensors that look for what is missing only once.
fn sensors(board: &Board, root: &Path) -> Sensors {
    let parts = Parts::new(board, root, &std::env::temp_dir(), Duration::MAX);
    Sensors::from_parts(parts, root)
}

/// Allocations of the 100 looks after the first.
fn allocations(sensors: &mut Sensors, readings: &mut Readings) -> u64 {
    sensors.sample(readings);
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            sensors.sample(readings);
        }
    });
    counted.count_total
}

#[test]
fn a_healthy_board_is_sampled_without_allocating() {
    let machine = Machine::sm8250();
    let mut sensors = sensors(&Machine::board(), machine.root());
    let mut readings = Readings::default();
    assert_eq!(allocations(&mut sensors, &mut readings), 0);
    assert_eq!(readings.faults, []);
    assert_eq!(readings.temperatures.len(), 26);
    // The counter counts.
    assert!(allocation_counter::measure(|| drop(readings.clone())).count_total > 0);
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
    assert_eq!(allocations(&mut sensors, &mut readings), 0);
    assert_eq!(readings.faults.len(), 4);
}

#[test]
fn this_machine_is_sampled_without_allocating() {
    let board = Board::builtin("host-sim").expect("part of the program");
    let mut sensors = sensors(&board, Path::new("/"));
    assert_eq!(allocations(&mut sensors, &mut Readings::default()), 0);
}
