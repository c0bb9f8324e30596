//! Parts one by one, where they read what not every kernel has, and what comes, goes or counts over.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use edge_hal::{
    board::StorageTechnology,
    gpu::{DevfreqGpu, Gpu, GpuReading, KgslGpu},
    network::{MAX_LINKS, Network, SysfsNetwork},
    power::{PowerReading, PowerSensor, PowerSupply, RaplPower},
    storage_health::{BlockHealth, Reserve, StorageHealth, Wear},
};

use support::Machine;

const AT_ONCE: Duration = Duration::ZERO;
const NEVER: Duration = Duration::MAX;

#[test]
fn devfreq_has_a_load_only_where_the_kernel_shows_one() {
    let machine = Machine::sm8250();
    let mut gpu = DevfreqGpu::new(machine.root(), "3d00000.gpu");
    let mut expected = GpuReading {
        khz: Some(441_600),
        load_percent: None,
    };
    assert_eq!(gpu.read().unwrap(), expected);
    machine.write("sys/class/devfreq/3d00000.gpu/load", "23@441600000Hz\n");
    expected.load_percent = Some(23.0);
    assert_eq!(gpu.read().unwrap(), expected);
    machine.write("sys/class/devfreq/3d00000.gpu/load", "230@441600000Hz\n");
    assert!(gpu.read().is_err());
}

#[test]
fn kgsl_reads_what_older_and_newer_kernels_have() {
    let machine = Machine::sm8250();
    let mut gpu = KgslGpu::new(machine.root(), "kgsl-3d0");
    machine.unplug("sys/class/kgsl/kgsl-3d0/gpu_busy_percentage");
    machine.unplug("sys/class/kgsl/kgsl-3d0/gpuclk");
    machine.write("sys/class/kgsl/kgsl-3d0/gpubusy", " 250000 1000000\n");
    let expected = GpuReading {
        khz: Some(587_000),
        load_percent: Some(25.0),
    };
    assert_eq!(gpu.read().unwrap(), expected);
    machine.unplug("sys/class/kgsl/kgsl-3d0/gpubusy");
    assert_eq!(gpu.read().unwrap().load_percent, None);
    machine.unplug("sys/class/kgsl/kgsl-3d0/clock_mhz");
    assert!(gpu.read().unwrap_err().to_string().ends_with("gpuclk"));
}

#[test]
fn an_energy_counter_is_a_power_between_two_looks() {
    let machine = Machine::sm8250();
    let start = Instant::now();
    let mut rapl = RaplPower::new(machine.root(), "intel-rapl:0");
    assert_eq!(rapl.read_at(start).unwrap(), PowerReading::default());
    // 50 µJ to the counter's end and over it.
    machine.write("sys/class/powercap/intel-rapl:0/energy_uj", "29999949\n");
    let two_seconds = start + Duration::from_secs(2);
    assert_eq!(rapl.read_at(two_seconds).unwrap().milliwatts, Some(15_000));
    // Too soon: the counter may not have moved.
    machine.write("sys/class/powercap/intel-rapl:0/energy_uj", "30999949\n");
    let soon = two_seconds + Duration::from_millis(9);
    assert_eq!(rapl.read_at(soon).unwrap().milliwatts, None);
    let later = two_seconds + Duration::from_secs(1);
    assert_eq!(rapl.read_at(later).unwrap().milliwatts, Some(1_000));
}

#[test]
fn a_supply_fails_only_when_it_shows_nothing() {
    let machine = Machine::sm8250();
    let mut usb = PowerSupply::new(machine.root(), "usb");
    machine.unplug("sys/class/power_supply/usb/current_now");
    let reading = usb.read().unwrap();
    assert_eq!(
        (reading.millivolts, reading.milliwatts),
        (Some(9_012), None)
    );
    machine.unplug("sys/class/power_supply/usb");
    assert!(
        usb.read()
            .unwrap_err()
            .to_string()
            .contains("usb/voltage_now")
    );
    machine.write("sys/class/power_supply/usb/online", "0\n");
    assert_eq!(usb.read().unwrap().is_online, Some(false));
}

#[test]
fn emmc_and_disks_state_their_own_wear() {
    let machine = Machine::sm8250();
    let health = |technology| BlockHealth::new(machine.root(), "mmcblk0", technology, AT_ONCE);
    let mut expected = Wear {
        used_percent: Some(110),
        reserve: Some(Reserve::Urgent),
        written_bytes: Some(16 * 512),
    };
    assert_eq!(health(StorageTechnology::Emmc).read().unwrap(), expected);
    expected.used_percent = None;
    expected.reserve = None;
    assert_eq!(health(StorageTechnology::Disk).read().unwrap(), expected);
    // The board file calls it UFS: that shows.
    let error = health(StorageTechnology::Ufs).read().unwrap_err();
    assert!(error.to_string().contains("health_descriptor"), "{error}");
}

#[test]
fn storage_is_asked_for_its_wear_once_in_a_while() {
    let machine = Machine::sm8250();
    let life = "sys/devices/platform/soc@0/1d84000.ufshc/health_descriptor/life_time_estimation_a";
    for (every, expected) in [(NEVER, Some(30)), (AT_ONCE, Some(90))] {
        let mut health = BlockHealth::new(machine.root(), "sda", StorageTechnology::Ufs, every);
        assert_eq!(health.read().unwrap().used_percent, Some(30));
        machine.write(life, "0x09\n");
        assert_eq!(health.read().unwrap().used_percent, expected);
        machine.write(life, "0x01\n");
    }
}

#[test]
fn links_come_and_go_and_are_bounded() {
    let machine = Machine::sm8250();
    let mut links = Vec::new();
    let mut network = SysfsNetwork::new(machine.root(), AT_ONCE);
    network.read(&mut links).unwrap();
    assert_eq!(links.len(), 4);
    machine.unplug("sys/class/net/eth0");
    network.read(&mut links).unwrap();
    assert!(links.iter().all(|link| &*link.name != "eth0"));
    for number in 0..40 {
        for (file, text) in [
            ("operstate", "up\n"),
            ("statistics/rx_bytes", "1\n"),
            ("statistics/tx_bytes", "1\n"),
            ("statistics/rx_errors", "1\n"),
            ("statistics/tx_errors", "1\n"),
        ] {
            machine.write(&format!("sys/class/net/veth{number:02}/{file}"), text);
        }
    }
    network.read(&mut links).unwrap();
    assert_eq!(links.len(), MAX_LINKS);
    assert_eq!(&*links[0].name, "tun0");

    let mut seldom = SysfsNetwork::new(machine.root(), NEVER);
    seldom.read(&mut links).unwrap();
    machine.unplug("sys/class/net/tun0");
    seldom.read(&mut links).unwrap();
    assert_eq!(
        links.len(),
        MAX_LINKS - 1,
        "gone at once, replaced at the next look"
    );
}
