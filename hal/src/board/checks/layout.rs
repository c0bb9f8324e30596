//! Rules of storage, slots, kernel and flashing.

use super::{Check, steps};
use crate::board::{
    Board, FlashMethod, PartitionConfig, PartitionContent, SlotDisk, SlotsConfig, StorageConfig,
    StorageSource, StorageTechnology,
};

/// Characters of a partition's name in a GPT (UEFI 2.10, section 5.3.3: 36 UTF-16 units with none to spare).
const GPT_NAME_MAX: usize = 36;

/// Logical units of a UFS device (JEDEC JESD220, section 10.7: up to 32 of them).
const MAX_LUN: u8 = 31;

/// Most starts that three bits of a GPT entry count (Qualcomm's ABL: bits 51 to 53).
const ABL_MAX_TRIES: u8 = 7;

/// U-Boot's text state has one digit for each slot's starts.
const UBOOT_MAX_TRIES: u8 = 9;

impl Check<'_> {
    pub(super) fn layout(&mut self, board: &Board) {
        self.storage(&board.storage);
        if let Some(slots) = &board.slots {
            self.slots(slots, board);
        } else {
            for (index, partition) in board.storage.partitions.iter().enumerate() {
                self.rule(
                    !partition.slotted,
                    steps!["storage", "partition", index, "slotted"],
                    || {
                        format!(
                            "partition {:?} is slotted, but the board has no [slots]",
                            partition.name
                        )
                    },
                );
            }
        }
        if let Some(boot) = &board.boot {
            self.rule(!boot.console.is_empty(), steps!["boot", "console"], || {
                "console in boot is empty".to_owned()
            });
            if let Some(tree) = &boot.device_tree {
                let is_below =
                    tree.ends_with(".dtb") && !tree.starts_with('/') && !tree.contains("..");
                self.rule(is_below, steps!["boot", "device_tree"], || {
                    format!("device_tree {tree:?} is no .dtb below the kernel's folder")
                });
            }
        }
        for (index, method) in board.flash.iter().enumerate() {
            if *method == FlashMethod::Disk {
                self.only_tag(steps!["flash", index]);
            }
        }
        let methods = board.flash.iter().map(|method| match method {
            FlashMethod::Disk => "disk",
            FlashMethod::Fastboot { .. } => "fastboot",
            FlashMethod::Edl { .. } => "edl",
        });
        self.distinct("flash", "method", methods);
    }

    fn storage(&mut self, storage: &StorageConfig) {
        match &storage.source {
            StorageSource::Linux => self.only_tag(steps!["storage", "source"]),
            StorageSource::Simulated {
                total_bytes,
                available_bytes,
            } => self.rule(
                available_bytes <= total_bytes,
                steps!["storage", "source", "available_bytes"],
                || "available_bytes of storage is more than total_bytes".to_owned(),
            ),
        }
        let sector = storage.sector_bytes;
        let is_sector = matches!(sector, 512 | 4096);
        self.rule(is_sector, steps!["storage", "sector_bytes"], || {
            format!("sector_bytes of storage is {sector}, neither 512 nor 4096")
        });
        let is_ufs = storage.technology == StorageTechnology::Ufs;
        self.rule(
            !is_ufs || sector == 4096,
            steps!["storage", "sector_bytes"],
            || format!("sector_bytes of storage is {sector}; UFS has 4096"),
        );
        if let Some(device) = &storage.device {
            let is_name = !device.is_empty() && !device.contains('/') && device != "..";
            self.rule(is_name, steps!["storage", "device"], || {
                format!("device {device:?} of storage is no name in /sys/class/block, such as sda")
            });
        }
        let mut seen = std::collections::BTreeSet::new();
        for (index, partition) in storage.partitions.iter().enumerate() {
            let behind = storage.partitions.get(index + 1..).unwrap_or_default();
            let is_last = behind.iter().all(|other| other.lun != partition.lun);
            let can_grow = is_last && !partition.slotted;
            self.rule(
                !partition.grow || can_grow,
                steps!["storage", "partition", index, "grow"],
                || {
                    format!(
                        "partition {:?} cannot grow: it is not the last of its disk, or it is slotted",
                        partition.name
                    )
                },
            );
            let at = |key: &str| steps!["storage", "partition", index, key].to_vec();
            self.rule(seen.insert(&partition.name), &at("name"), || {
                format!("two partitions are called {:?}", partition.name)
            });
            self.partition(partition, is_ufs, &at);
            let divides = is_sector && partition.size_bytes % u64::from(sector) == 0;
            self.rule(
                (divides || !is_sector) && partition.size_bytes > 0,
                &at("size_bytes"),
                || {
                    format!(
                        "size_bytes {} of partition {:?} is no multiple of the sector's {sector} bytes",
                        partition.size_bytes, partition.name
                    )
                },
            );
        }
    }

    fn partition(
        &mut self,
        partition: &PartitionConfig,
        is_ufs: bool,
        at: &dyn Fn(&str) -> Vec<super::Step>,
    ) {
        let name = &partition.name;
        let suffix = if partition.slotted { 2 } else { 0 };
        let is_plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        self.rule(
            is_plain && (1..=GPT_NAME_MAX - suffix).contains(&name.len()),
            &at("name"),
            || {
                format!(
                    "{name:?} is no partition name: letters, digits, '_' and '-', at most {GPT_NAME_MAX} with the slot's suffix"
                )
            },
        );
        let ends_like_slot = name.ends_with("_a") || name.ends_with("_b");
        self.rule(!(partition.slotted && ends_like_slot), &at("name"), || {
            format!("partition {name:?} is slotted: its name goes without _a or _b")
        });
        let slotted_needed = matches!(
            partition.content,
            PartitionContent::Data | PartitionContent::Provisioning
        );
        self.rule(
            !(slotted_needed && partition.slotted),
            &at("slotted"),
            || format!("partition {name:?} outlives updates and cannot be slotted"),
        );
        self.rule(partition.lun == 0 || is_ufs, &at("lun"), || {
            format!("partition {name:?} has a lun, but only UFS has logical units")
        });
        self.rule(partition.lun <= MAX_LUN, &at("lun"), || {
            format!(
                "lun {} of partition {name:?} is more than {MAX_LUN}",
                partition.lun
            )
        });
        if let Some(guid) = &partition.type_guid {
            self.rule(is_guid(guid), &at("type_guid"), || {
                format!("type_guid {guid:?} of partition {name:?} is no GUID of the form 8-4-4-4-12 hexadecimal digits")
            });
        }
    }

    fn slots(&mut self, slots: &SlotsConfig, board: &Board) {
        let partitions = &board.storage.partitions;
        let tries = match slots {
            SlotsConfig::QualcommAbl { disks, tries, .. } => {
                self.slot_disks(disks, partitions);
                (*tries, ABL_MAX_TRIES)
            }
            SlotsConfig::UbootText { file, tries } => {
                self.rule(file.starts_with('/'), steps!["slots", "file"], || {
                    format!("file {file:?} of slots is no absolute path")
                });
                (*tries, UBOOT_MAX_TRIES)
            }
            SlotsConfig::UbootBinary {
                copies,
                size_bytes,
                tries,
            } => {
                let [first, second] = copies;
                let apart =
                    first.offset_bytes.abs_diff(second.offset_bytes) >= u64::from(*size_bytes);
                self.rule(
                    first.device != second.device || apart,
                    steps!["slots", "copies"],
                    || "copies of slots overlap".to_owned(),
                );
                // A checksum of four bytes, a flag, and at least the two zero bytes that end the list.
                self.rule(*size_bytes >= 7, steps!["slots", "size_bytes"], || {
                    format!("size_bytes of slots is {size_bytes}, too small for an environment")
                });
                (*tries, UBOOT_MAX_TRIES)
            }
            SlotsConfig::Simulated { tries } => (*tries, UBOOT_MAX_TRIES),
        };
        let (tries, most) = tries;
        self.rule(
            (1..=most).contains(&tries),
            steps!["slots", "tries"],
            || format!("tries of slots is {tries}, not 1 to {most}"),
        );
        if matches!(slots, SlotsConfig::Simulated { .. }) || partitions.is_empty() {
            return;
        }
        for content in [PartitionContent::Kernel, PartitionContent::Root] {
            let has = partitions.iter().any(|p| p.slotted && p.content == content);
            self.rule(has, steps!["slots"], || {
                let content = if content == PartitionContent::Kernel {
                    "kernel"
                } else {
                    "root"
                };
                format!(
                    "the board has slots, but no slotted partition whose content is {content:?}"
                )
            });
        }
    }

    fn slot_disks(&mut self, disks: &[SlotDisk], partitions: &[PartitionConfig]) {
        self.rule(!disks.is_empty(), steps!["slots", "disks"], || {
            "disks of slots is empty".to_owned()
        });
        for (index, disk) in disks.iter().enumerate() {
            let place = steps!["slots", "disks", index];
            self.rule(disk.device.starts_with("/dev/"), place, || {
                format!("device {:?} of slots is not in /dev", disk.device)
            });
            let earlier = disks.get(..index).unwrap_or(disks);
            let is_new = earlier
                .iter()
                .all(|d| d.lun != disk.lun && d.device != disk.device);
            self.rule(is_new, place, || {
                format!(
                    "lun {} or {} is twice in disks of slots",
                    disk.lun, disk.device
                )
            });
            if partitions.is_empty() {
                continue;
            }
            let is_commit = index + 1 == disks.len();
            let holds = partitions.iter().any(|p| p.slotted && p.lun == disk.lun);
            self.rule(holds, place, || {
                let role = if is_commit { ", the commit point," } else { "" };
                format!("lun {}{role} holds no slotted partition", disk.lun)
            });
        }
        for (index, partition) in partitions.iter().enumerate() {
            let is_listed = disks.iter().any(|disk| disk.lun == partition.lun);
            self.rule(
                !partition.slotted || is_listed,
                steps!["storage", "partition", index],
                || {
                    format!(
                        "partition {:?} is slotted, but its lun {} is not among disks of slots",
                        partition.name, partition.lun
                    )
                },
            );
        }
    }
}

fn is_guid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(group, length)| {
            group.len() == length && group.bytes().all(|b| b.is_ascii_hexdigit())
        })
}
