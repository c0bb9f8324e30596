//! A board's readings: from a tree of files in the kernel's formats, from this machine, and from simulated parts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use edge_hal::{
    Board, Readings, Sensors,
    clock::{ClockTrust, SimClock},
    cpu::{ClusterClock, SimCpuClock, SimCpuLoad},
    gpu::{GpuReading, SimGpu},
    memory::{MemoryBytes, SimMemory},
    network::{Link, SimNetwork},
    power::{PowerReading, SimPower, SupplyStatus},
    pressure::{Pressure, SimMemoryPressure},
    sensors::Parts,
    sim::SimReading,
    storage::{SimStorage, StorageBytes},
    storage_health::{Reserve, SimStorageHealth, Wear},
    thermal::SimZone,
};

use support::Machine;

fn sample(sensors: &mut Sensors) -> Readings {
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    readings
}

fn faults(readings: &Readings) -> Vec<String> {
    readings.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn reads_a_whole_board() {
    let machine = Machine::sm8250();
    let mut sensors = machine.sensors();
    // 60 busy and 40 idle ticks pass.
    machine.write("proc/stat", "cpu  140 0 70 890 0 0 0 0 0 0\n");
    let readings = sample(&mut sensors);
    assert_eq!(faults(&readings), Vec::<String>::new());
    assert_eq!(readings.kernel_release.as_deref(), Some("6.12.1-edge"));
    assert_eq!(sensors.kernel_release(), "6.12.1-edge");
    assert_eq!(readings.uptime_s, Some(3_600));
    assert_eq!(readings.cpu_load_percent, Some(60.0));
    assert_eq!(readings.memory_total_bytes, Some(7_890_123 * 1_024));
    assert_eq!(readings.memory_available_bytes, Some(5_000_000 * 1_024));
    assert!(readings.agent_resident_bytes.unwrap() >= 2_048 * 4_096);
    assert!(readings.storage_total_bytes.unwrap() >= readings.storage_available_bytes.unwrap());
    let expected = Pressure {
        some_percent: 1.5,
        full_percent: 0.25,
    };
    assert_eq!(readings.memory_pressure, Some(expected));
    let expected = GpuReading {
        khz: Some(587_000),
        load_percent: Some(37.0),
    };
    assert_eq!(readings.gpu, Some(expected));
    let expected = Wear {
        used_percent: Some(30),
        reserve: Some(Reserve::Normal),
        // Sectors of 512 bytes although the device's have 4,096.
        written_bytes: Some(9_735_928 * 512),
    };
    assert_eq!(readings.wear, Some(expected));
}

#[test]
fn reads_every_zone_by_its_type() {
    let machine = Machine::sm8250();
    let readings = sample(&mut machine.sensors());
    let board = Machine::board();
    let names: Vec<&str> = readings
        .temperatures
        .iter()
        .map(|(name, _)| &**name)
        .collect();
    let expected: Vec<&str> = board
        .thermal_zones
        .iter()
        .map(|z| z.name.as_str())
        .collect();
    assert_eq!(names, expected);
    let of = |wanted: &str| {
        let mut zones = readings.temperatures.iter();
        zones.find(|(name, _)| **name == *wanted).unwrap().1
    };
    assert_eq!(of("cpu0"), 38_000);
    assert_eq!(of("gpu-bottom"), 45_464);
    assert_eq!(of("case"), -5_250);
}

#[test]
fn a_cluster_that_the_kernel_holds_back_shows() {
    let machine = Machine::sm8250();
    let readings = sample(&mut machine.sensors());
    let [(silver, slow), (gold, held_back), (prime, _)] = readings.cpu_clocks.as_slice() else {
        panic!("{:?}", readings.cpu_clocks);
    };
    assert_eq!([&**silver, &**gold, &**prime], ["silver", "gold", "prime"]);
    assert!(!slow.is_limited());
    let expected = ClusterClock {
        khz: 1_056_000,
        limit_khz: 1_766_400,
        max_khz: 2_419_200,
    };
    assert_eq!(*held_back, expected);
    assert!(held_back.is_limited());
}

#[test]
fn power_comes_in_thousandths_whatever_the_drivers_unit() {
    let machine = Machine::sm8250();
    let readings = sample(&mut machine.sensors());
    let expected = [
        // The chip's own power counts, not the product.
        (
            "input",
            PowerReading {
                milliwatts: Some(6_125),
                millivolts: Some(12_010),
                milliamperes: Some(510),
                ..PowerReading::default()
            },
        ),
        // An averaging chip.
        (
            "total",
            PowerReading {
                milliwatts: Some(7_999),
                ..PowerReading::default()
            },
        ),
        (
            "usb",
            PowerReading {
                milliwatts: Some(6_308),
                millivolts: Some(9_012),
                milliamperes: Some(700),
                is_online: Some(true),
                status: None,
            },
        ),
        (
            "battery",
            PowerReading {
                milliwatts: Some(4_700),
                millivolts: Some(3_850),
                milliamperes: Some(-1_200),
                is_online: None,
                status: Some(SupplyStatus::Discharging),
            },
        ),
    ];
    let power: Vec<(&str, PowerReading)> = readings
        .power
        .iter()
        .map(|(name, p)| (&**name, *p))
        .collect();
    assert_eq!(power, expected);
}

#[test]
fn links_carry_only_what_they_state() {
    let machine = Machine::sm8250();
    let readings = sample(&mut machine.sensors());
    let links: Vec<(&str, bool, Option<u32>)> = readings
        .links
        .iter()
        .map(|link| (&*link.name, link.is_up, link.speed_mbit))
        .collect();
    let expected = [
        ("eth0", true, Some(1_000)),
        ("tun0", true, Some(10)),
        ("usb0", false, None),
        ("wlan0", true, None),
    ];
    assert_eq!(links, expected);
    let eth0 = &readings.links[0];
    assert_eq!(
        (
            eth0.received_bytes,
            eth0.sent_bytes,
            eth0.receive_errors,
            eth0.send_errors
        ),
        (123_456_789, 98_765_432, 3, 1)
    );
}

#[test]
fn no_tick_gives_no_load_and_no_fault() {
    let machine = Machine::sm8250();
    let readings = sample(&mut machine.sensors());
    assert_eq!(readings.cpu_load_percent, None);
    assert_eq!(faults(&readings), Vec::<String>::new());
}

#[test]
fn this_machine_as_host_sim_reads_without_a_fault() {
    let data = tempfile::tempdir().unwrap();
    let board = Board::resolve("host-sim").unwrap();
    let mut sensors = Sensors::new(&board, Path::new("/"), data.path());
    let readings = sample(&mut sensors);
    assert_eq!(faults(&readings), Vec::<String>::new());
    let names: Vec<&str> = readings
        .temperatures
        .iter()
        .map(|(name, _)| &**name)
        .collect();
    assert_eq!(names, ["cpu", "gpu"]);
    assert!(readings.memory_total_bytes.unwrap() > readings.agent_resident_bytes.unwrap());
    assert!(readings.storage_total_bytes.unwrap() > 0);
    assert_ne!(sensors.kernel_release(), "unknown");
}

#[test]
fn simulated_parts_say_and_fail_what_they_are_told() {
    let load = SimReading::new(50.0);
    let celsius = SimReading::new(40_000);
    let clock = SimReading::new(ClusterClock {
        khz: 1,
        limit_khz: 2,
        max_khz: 3,
    });
    let gpu = SimReading::new(GpuReading::default());
    let power = SimReading::new(PowerReading::default());
    let memory = SimReading::new(MemoryBytes {
        total: 8,
        available: 4,
    });
    let resident = SimReading::new(1);
    let pressure = SimReading::new(None);
    let storage = SimReading::new(StorageBytes {
        total: 100,
        available: 10,
    });
    let wear = SimReading::new(Wear::default());
    let links = SimReading::new(vec![Link {
        name: "sim0".into(),
        is_up: true,
        speed_mbit: None,
        received_bytes: 1,
        sent_bytes: 2,
        receive_errors: 0,
        send_errors: 0,
    }]);
    let trust = SimReading::new(ClockTrust {
        is_synchronised: true,
        max_error_us: 5,
    });
    let parts = Parts {
        cpu: Box::new(SimCpuLoad(load.clone())),
        cpu_clocks: vec![("all".into(), Box::new(SimCpuClock(clock.clone())))],
        zones: vec![("cpu".into(), Box::new(SimZone(celsius.clone())))],
        gpu: Some(Box::new(SimGpu(gpu.clone()))),
        power: vec![("rail".into(), Box::new(SimPower(power.clone())))],
        memory: Box::new(SimMemory {
            machine: memory.clone(),
            resident_bytes: resident.clone(),
        }),
        pressure: Box::new(SimMemoryPressure(pressure.clone())),
        storage: Box::new(SimStorage(storage.clone())),
        storage_health: Some(Box::new(SimStorageHealth(wear.clone()))),
        network: Box::new(SimNetwork(links.clone())),
        clock: Some(Box::new(SimClock(trust.clone()))),
    };
    let mut sensors = Sensors::from_parts(parts, Path::new("/"));
    let mut readings = Readings {
        fan_rpm: Some(900),
        ..Readings::default()
    };
    sensors.sample(&mut readings);
    assert_eq!(readings.faults, []);
    assert_eq!(readings.cpu_load_percent, Some(50.0));
    assert_eq!(readings.temperatures, [("cpu".into(), 40_000)]);
    assert!(readings.clock_trust.unwrap().is_synchronised);
    assert_eq!(readings.links.len(), 1);
    assert_eq!(readings.fan_rpm, Some(900), "the fan's owner sets it");
    let healthy = readings.clone();

    load.fail("a");
    celsius.fail("unplugged");
    clock.fail("b");
    gpu.fail("c");
    power.fail("d");
    memory.fail("e");
    resident.fail("f");
    pressure.fail("g");
    storage.fail("h");
    wear.fail("i");
    links.fail("j");
    trust.fail("k");
    sensors.sample(&mut readings);
    let named: Vec<&str> = readings.faults.iter().map(|f| f.sensor.as_str()).collect();
    assert_eq!(
        named,
        [
            "cpu load",
            "memory",
            "agent memory",
            "memory pressure",
            "storage",
            "storage health",
            "gpu",
            "clock",
            "cpu clock all",
            "temperature cpu",
            "power rail",
            "network"
        ]
    );
    assert_eq!(
        readings.faults[9].to_string(),
        "temperature cpu: simulated fault: unplugged"
    );
    let nothing = Readings {
        kernel_release: healthy.kernel_release.clone(),
        uptime_s: readings.uptime_s,
        fan_rpm: Some(900),
        faults: readings.faults.clone(),
        ..Readings::default()
    };
    assert_eq!(
        readings, nothing,
        "a fault leaves no reading of the last look behind"
    );

    load.recover();
    celsius.recover();
    clock.recover();
    gpu.recover();
    power.recover();
    memory.recover();
    resident.recover();
    pressure.recover();
    storage.recover();
    wear.recover();
    links.recover();
    trust.recover();
    sensors.sample(&mut readings);
    assert_eq!(
        Readings {
            uptime_s: healthy.uptime_s,
            ..readings
        },
        healthy
    );
}
