//! Slots on real files and devices: tables that sgdisk made and approves, and the whole way from a board's
//! configuration.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "images have known sizes")]

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use edge_hal::{
    board::{
        PartitionConfig, PartitionContent, SlotDisk, SlotsConfig, StorageConfig, StorageSource,
        StorageTechnology, UbootEnvCopy,
    },
    slots::{self, SimSlots, Slot, SlotControl, SlotError, Unfinished},
};
use tempfile::TempDir;

fn sgdisk(device: &Path, arguments: &[&str]) -> String {
    let output = Command::new("sgdisk")
        .args(arguments)
        .arg(device)
        .output()
        .unwrap_or_else(|error| panic!("sgdisk (Debian: gdisk): {error}"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// Two disks with partitions as sgdisk makes them.
fn make_disks(disks: [&Path; 2]) {
    sgdisk(
        disks[0],
        &[
            "-n=1:0:+256K",
            "-c=1:system_a",
            "-n=2:0:+256K",
            "-c=2:system_b",
            "-n=3:0:0",
            "-c=3:data",
        ],
    );
    sgdisk(
        disks[1],
        &[
            "-n=1:0:+64K",
            "-c=1:boot_a",
            "-n=2:0:+64K",
            "-c=2:boot_b",
            "-n=3:0:+64K",
            "-c=3:xbl_a",
        ],
    );
}

fn storage(sector_bytes: u32) -> StorageConfig {
    let partition = |name: &str, lun, content| PartitionConfig {
        name: name.to_owned(),
        lun,
        size_bytes: 65536,
        slotted: true,
        content,
        type_guid: None,
        grow: false,
    };
    StorageConfig {
        source: StorageSource::Linux,
        technology: StorageTechnology::Ufs,
        device: None,
        sector_bytes,
        partitions: vec![
            partition("boot", 4, PartitionContent::Kernel),
            partition("system", 0, PartitionContent::Root),
            partition("xbl", 4, PartitionContent::Bootloader),
        ],
    }
}

fn abl(disks: [&str; 2], checks_chain: bool) -> SlotsConfig {
    let disk = |device: &str, lun| SlotDisk {
        device: device.to_owned(),
        lun,
    };
    SlotsConfig::QualcommAbl {
        disks: vec![disk(disks[0], 0), disk(disks[1], 4)],
        tries: 5,
        checks_chain,
    }
}

fn assert_sound(disks: [&Path; 2]) {
    for disk in disks {
        let verdict = sgdisk(disk, &["--verify"]);
        assert!(verdict.contains("No problems found"), "{verdict}");
    }
}

fn attributes(disk: &Path, partition: u8) -> String {
    let info = sgdisk(disk, &[&format!("--info={partition}")]);
    let line = info
        .lines()
        .find(|line| line.starts_with("Attribute flags"));
    line.unwrap().split(' ').next_back().unwrap().to_owned()
}

fn switch(root: &Path, disks: [&Path; 2], names: [&str; 2], sector_bytes: u32) {
    make_disks(disks);
    assert_sound(disks);
    let state = TempDir::new().unwrap();
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::write(root.join("proc/cmdline"), "ro androidboot.slot_suffix=_a\n").unwrap();
    let open = || {
        slots::open(
            &abl(names, true),
            &storage(sector_bytes),
            root,
            state.path(),
        )
    };
    let mut control = open().unwrap();
    assert_eq!(control.status().unwrap().next, Some(Slot::A));
    control.mark_good(Slot::A).unwrap();
    assert_sound(disks);
    control.arm(Slot::B).unwrap();
    assert_sound(disks);
    assert_eq!(attributes(disks[1], 1), "006A000000000000");
    assert_eq!(attributes(disks[1], 2), "002F000000000000");
    assert_eq!(attributes(disks[1], 3), "0000000000000000", "xbl_a");
    assert_eq!(attributes(disks[0], 1), "0000000000000000");
    assert_eq!(attributes(disks[0], 2), "0004000000000000");
    assert_eq!(open().unwrap().status().unwrap().next, Some(Slot::B));
    assert!(!state.path().join("slots.journal").exists());
    control.mark_dead(Slot::B).unwrap();
    assert_sound(disks);
}

#[test]
fn sgdisk_approves_of_every_table_we_write() {
    let root = TempDir::new().unwrap();
    let dev = root.path().join("dev");
    fs::create_dir(&dev).unwrap();
    let disks = [dev.join("sda"), dev.join("sde")];
    for disk in &disks {
        fs::File::create(disk)
            .unwrap()
            .set_len(2 * 1024 * 1024)
            .unwrap();
    }
    let disks = [disks[0].as_path(), disks[1].as_path()];
    switch(root.path(), disks, ["/dev/sda", "/dev/sde"], 512);

    // What a cut left is found and repaired, to sgdisk's liking too.
    let mut image = fs::read(disks[1]).unwrap();
    image[1024 + 3] ^= 1;
    fs::write(disks[1], image).unwrap();
    let state = TempDir::new().unwrap();
    let config = abl(["/dev/sda", "/dev/sde"], true);
    let mut control = slots::open(&config, &storage(512), root.path(), state.path()).unwrap();
    assert_eq!(
        control.status().unwrap().unfinished,
        Some(Unfinished::CopiesDiffer)
    );
    control.repair().unwrap();
    assert_eq!(control.status().unwrap().unfinished, None);
    assert_sound(disks);
}

#[test]
#[ignore = "needs root and loop devices: sgdisk takes the sector size from a device, never from a file"]
fn sgdisk_approves_of_tables_with_4096_byte_sectors() {
    let folder = TempDir::new().unwrap();
    let losetup = |arguments: &[&str]| {
        let output = Command::new("losetup").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let loops = ["a", "b"].map(|name| {
        let file = folder.path().join(name);
        fs::File::create(&file)
            .unwrap()
            .set_len(4 * 1024 * 1024)
            .unwrap();
        let file = file.to_str().unwrap();
        losetup(&["--find", "--show", "--sector-size", "4096", file])
    });
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    symlink("/dev", root.join("dev")).unwrap();
    symlink("/sys", root.join("sys")).unwrap();
    let result = std::panic::catch_unwind(|| {
        let disks = [Path::new(&loops[0]), Path::new(&loops[1])];
        switch(&root, disks, [&loops[0], &loops[1]], 4096);
        let config = abl([&loops[0], &loops[1]], true);
        let wrong = slots::open(&config, &storage(512), &root, folder.path());
        assert!(matches!(
            wrong.err(),
            Some(SlotError::SectorBytes { found: 4096, .. })
        ));
    });
    for device in &loops {
        losetup(&["--detach", device]);
    }
    result.unwrap();
}

#[test]
fn the_boot_lun_of_ufs_is_read_and_never_left() {
    let root = TempDir::new().unwrap();
    let dev = root.path().join("dev");
    let host = root.path().join("sys/devices/platform/soc@0/1d84000.ufshc");
    let disk = host.join("host0/target0:0:0/0:0:0:0");
    fs::create_dir_all(disk.join("block/sda/queue")).unwrap();
    fs::create_dir_all(host.join("attributes")).unwrap();
    fs::create_dir_all(root.path().join("sys/class/block")).unwrap();
    fs::create_dir_all(root.path().join("proc")).unwrap();
    fs::create_dir(&dev).unwrap();
    fs::write(host.join("attributes/boot_lun_enabled"), "0x00000001\n").unwrap();
    fs::write(disk.join("block/sda/queue/logical_block_size"), "512\n").unwrap();
    fs::write(root.path().join("proc/cmdline"), "edge.slot=a\n").unwrap();
    symlink(&disk, disk.join("block/sda/device")).unwrap();
    symlink(
        disk.join("block/sda"),
        root.path().join("sys/class/block/sda"),
    )
    .unwrap();
    let disks = [dev.join("sda"), dev.join("sde")];
    for disk in &disks {
        fs::File::create(disk)
            .unwrap()
            .set_len(2 * 1024 * 1024)
            .unwrap();
    }
    make_disks([&disks[0], &disks[1]]);
    for (checks_chain, armed) in [(true, false), (false, true)] {
        let config = abl(["/dev/sda", "/dev/sde"], checks_chain);
        let mut control = slots::open(&config, &storage(512), root.path(), root.path()).unwrap();
        control.mark_good(Slot::A).unwrap();
        let result = control.arm(Slot::B);
        assert_eq!(result.is_ok(), armed, "{result:?}");
        if !armed {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("boot LUN") && message.contains("chain-load U-Boot"));
        }
    }
    assert_eq!(
        fs::read_to_string(host.join("attributes/boot_lun_enabled")).unwrap(),
        "0x00000001\n"
    );
}

#[test]
fn every_mechanism_opens_from_a_boards_configuration() {
    let root = TempDir::new().unwrap();
    let boot = root.path().join("boot");
    fs::create_dir_all(&boot).unwrap();
    fs::create_dir_all(root.path().join("proc")).unwrap();
    fs::write(root.path().join("proc/cmdline"), "edge.slot=a\n").unwrap();
    let storage = storage(512);

    let text = SlotsConfig::UbootText {
        file: "/boot/slots.env".to_owned(),
        tries: 3,
    };
    let mut control = slots::open(&text, &storage, root.path(), root.path()).unwrap();
    control.mark_good(Slot::A).unwrap();
    control.arm(Slot::B).unwrap();
    assert_eq!(control.status().unwrap().next, Some(Slot::B));
    assert_eq!(fs::read(boot.join("slots.env.0")).unwrap().len(), 107);

    let copy = |offset_bytes| UbootEnvCopy {
        device: "/dev/mmcblk0boot0".to_owned(),
        offset_bytes,
    };
    let binary = SlotsConfig::UbootBinary {
        copies: [copy(0), copy(8192)],
        size_bytes: 8192,
        tries: 3,
    };
    let missing = slots::open(&binary, &storage, root.path(), root.path());
    let message = missing.err().unwrap().to_string();
    assert!(message.contains("mmcblk0boot0"), "{message}");

    let tries = SlotsConfig::UbootText {
        file: "slots.env".to_owned(),
        tries: 12,
    };
    let refused = slots::open(&tries, &storage, root.path(), root.path());
    assert!(matches!(
        refused.err(),
        Some(SlotError::Tries { tries: 12, max: 9 })
    ));

    let simulated = SlotsConfig::Simulated { tries: 3 };
    let mut control = slots::open(&simulated, &storage, root.path(), root.path()).unwrap();
    assert_eq!(control.status().unwrap().running, Some(Slot::A));
}

#[test]
fn simulated_slots_count_start_and_fail() {
    let mut slots = SimSlots::new(2);
    let watched = slots.clone();
    slots.arm(Slot::B).unwrap();
    assert_eq!(watched.start().unwrap(), Some(Slot::B));
    assert_eq!(watched.start().unwrap(), Some(Slot::B));
    assert_eq!(watched.start().unwrap(), Some(Slot::A));
    assert!(slots.status().unwrap().table.b.is_dead());
    assert_eq!(watched.state.read().unwrap().changes, 1);
    watched.state.fail("no flash");
    for result in [slots.arm(Slot::B), slots.repair(), slots.mark_good(Slot::A)] {
        assert_eq!(result.unwrap_err().to_string(), "simulated fault: no flash");
    }
    watched.state.recover();
    slots.mark_dead(Slot::B).unwrap();
    assert_eq!(
        watched.state.read().unwrap().changes,
        1,
        "it is dead already"
    );
}
