//! Which disks are refused and which are listed, on machines made of files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use edgectl::flash::{
    blocks::{Blocks, DeviceNumber},
    guard, plan,
};
use tempfile::TempDir;

/// A machine: its system on `sda` (root in LVM in LUKS, EFI), swap on `sdb2`, and a card `sdc` with two partitions.
struct Machine(TempDir);

impl Machine {
    fn new(mounts: &str) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.disk("sda", "8:0", 1000, &[("sda1", "8:1"), ("sda2", "8:2")]);
        this.disk("sdb", "8:16", 1000, &[("sdb1", "8:17"), ("sdb2", "8:18")]);
        this.disk(
            "sdc",
            "8:32",
            62_333_952,
            &[("sdc1", "8:33"), ("sdc2", "8:34")],
        );
        this.disk("dm-0", "253:0", 900, &[]);
        this.disk("dm-1", "253:1", 800, &[]);
        this.disk("zram0", "252:0", 100, &[]);
        this.disk("sdd", "8:48", 0, &[]);
        this.disk("loop0", "7:0", 2048, &[]);
        this.write("sys/block/loop0/loop/backing_file", "/images/a.img\n");
        this.write("sys/block/sdc/device/vendor", "SanDisk \n");
        this.write("sys/block/sdc/device/model", "Ultra\n");
        this.write("sys/block/sdc/removable", "1\n");
        this.write("sys/block/sda/sda2/holders/dm-0", "");
        this.write("sys/block/dm-0/holders/dm-1", "");
        this.write("sys/class/block/dm-0/dev", "253:0\n");
        this.write("sys/class/block/dm-0/size", "900\n");
        this.write("sys/class/block/dm-0/dm/name", "luks\n");
        this.write("sys/class/block/dm-0/holders/dm-1", "");
        this.write("sys/class/block/dm-1/dev", "253:1\n");
        this.write("sys/class/block/dm-1/size", "800\n");
        this.write("sys/class/block/dm-1/dm/name", "vg-root\n");
        let system = "22 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw\n\
                      23 22 8:1 / /boot/efi rw - vfat /dev/sda1 rw\n\
                      24 22 0:5 / /proc rw - proc proc rw\n";
        this.write("proc/self/mountinfo", &format!("{system}{mounts}"));
        this.write(
            "proc/swaps",
            "Filename Type Size Used Priority\n/dev/sdb2 partition 1 0 -2\n",
        );
        this
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.0.path().join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn disk(&self, name: &str, number: &str, sectors: u64, partitions: &[(&str, &str)]) {
        let folder = format!("sys/block/{name}");
        self.write(&format!("{folder}/dev"), number);
        self.write(&format!("{folder}/size"), &sectors.to_string());
        self.write(&format!("{folder}/ro"), "0");
        self.write(&format!("{folder}/removable"), "0");
        for (part, number) in partitions {
            self.write(&format!("{folder}/{part}/partition"), "1");
            self.write(&format!("{folder}/{part}/dev"), number);
            self.write(&format!("{folder}/{part}/size"), "100");
        }
    }

    fn blocks(&self) -> Blocks {
        Blocks::read(self.0.path()).unwrap()
    }

    /// What the guard says of a device; empty where it may be written.
    fn refusal(&self, number: DeviceNumber) -> String {
        let checked = guard::check_device(&self.blocks(), number, "/dev/X");
        checked.map_or_else(|refusal| refusal.to_string(), |()| String::new())
    }
}

#[test]
fn a_free_disk_and_its_partitions_may_be_written() {
    let machine = Machine::new("");
    for number in [(8, 32), (8, 33), (8, 34)] {
        assert_eq!(machine.refusal(number), "");
    }
}

#[test]
fn the_disks_that_the_system_runs_from_are_refused_whole_and_in_part() {
    let machine = Machine::new("");
    for number in [(8, 0), (8, 1), (8, 2)] {
        let words = machine.refusal(number);
        assert!(
            words.starts_with("/dev/X is the disk that this system runs from ("),
            "{words}"
        );
    }
    // Also a partition that nobody uses, beside one that is swapped to.
    let words = machine.refusal((8, 17));
    assert!(words.contains("it swaps to sdb2"), "{words}");
    // Root lies in LVM in LUKS.
    let words = machine.refusal((253, 0));
    assert!(!words.is_empty());
    let alone = Machine::new("");
    alone.write(
        "proc/self/mountinfo",
        "22 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw\n",
    );
    let words = alone.refusal((8, 0));
    assert!(words.contains("/ is on sda2 (luks) (vg-root)"), "{words}");
}

#[test]
fn a_mounted_card_is_refused_and_the_words_say_what_to_do() {
    let machine = Machine::new("30 22 8:34 / /media/my\\040card rw - ext4 /dev/sdc2 rw\n");
    let expected = "/dev/X is in use: sdc2 is mounted on /media/my card; unmount it (`umount \"/media/my card\"`) and \
                    repeat the command";
    assert_eq!(machine.refusal((8, 32)), expected);
    assert_eq!(machine.refusal((8, 34)), expected);
    assert_eq!(
        machine.refusal((8, 33)),
        "",
        "another partition of the same card is free"
    );
}

#[test]
fn a_file_system_without_a_number_of_its_own_is_known_by_its_source() {
    // Btrfs.
    let machine = Machine::new("30 22 0:41 /@ /media/card rw - btrfs /dev/sdc1 rw\n");
    let words = machine.refusal((8, 32));
    assert!(words.contains("sdc1 is mounted on /media/card"), "{words}");
}

#[test]
fn a_part_of_a_raid_is_refused() {
    let machine = Machine::new("");
    machine.write("sys/block/sdc/sdc1/holders/md0", "");
    machine.write("sys/class/block/md0/dev", "9:0");
    machine.write("sys/class/block/md0/size", "100");
    let words = machine.refusal((8, 32));
    assert_eq!(
        words,
        "/dev/X is in use: sdc1 is part of md0; take md0 down and repeat the command"
    );
}

#[test]
fn a_circle_of_holders_ends() {
    let machine = Machine::new("");
    machine.write("sys/block/sdc/sdc1/holders/dm-7", "");
    machine.write("sys/class/block/dm-7/dev", "253:7");
    machine.write("sys/class/block/dm-7/size", "100");
    machine.write("sys/class/block/dm-7/holders/dm-7", "");
    assert!(machine.refusal((8, 32)).contains("dm-7"));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let machine = Machine::new("");
    machine.write("sys/block/sdc/ro", "1");
    assert!(machine.refusal((8, 32)).contains("write-protected"));
    assert_eq!(machine.refusal((8, 48)), "there is no medium in /dev/X");
    assert!(
        machine
            .refusal((99, 0))
            .contains("is none of this system's block devices")
    );
}

#[test]
fn a_file_that_plays_a_disk_is_refused() {
    let machine = Machine::new("");
    let words = guard::check_file(&machine.blocks(), Path::new("/images/a.img"))
        .unwrap_err()
        .to_string();
    assert!(
        words.starts_with("/images/a.img is the file behind /dev/loop0; detach it"),
        "{words}"
    );
    guard::check_file(&machine.blocks(), Path::new("/images/b.img")).unwrap();
}

#[test]
fn the_list_has_what_may_be_written() {
    let machine = Machine::new("30 22 8:34 / /media/card rw - ext4 /dev/sdc2 rw\n");
    insta::assert_snapshot!(plan::disks_table(&plan::list(&machine.blocks())), @r"
    disk                  size  removable model                       in use
    /dev/loop0        1.00 MiB  no        plays /images/a.img         -
    /dev/sdc         29.72 GiB  yes       SanDisk Ultra               sdc2 on /media/card
    ");
    machine.write("sys/block/sdc/size", "0");
    machine.write("sys/block/loop0/size", "0");
    machine.write("sys/block/dm-0/size", "0");
    machine.write("sys/block/dm-1/size", "0");
    insta::assert_snapshot!(plan::disks_table(&plan::list(&machine.blocks())), @"no disks but those that this system runs from");
}
