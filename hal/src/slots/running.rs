//! Which slot runs, and what UFS starts from: what the kernel says about the start.

use std::path::Path;

use super::policy::Slot;
use crate::kernel_file::KernelFile;

/// The running slot, by `/proc/cmdline` below `root`; none where it does not say, or says two things.
#[must_use]
pub fn running_slot(root: &Path) -> Option<Slot> {
    KernelFile::new(root, "/proc/cmdline")
        .read()
        .ok()
        .and_then(|text| slot_of(&text))
}

/// The slot that a kernel's command line names: `edge.slot=` (ours) or `androidboot.slot_suffix=` (ABL's).
fn slot_of(command_line: &str) -> Option<Slot> {
    let mut found = command_line.split_ascii_whitespace().filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        let value = value.trim_matches('"');
        match (name, value) {
            ("edge.slot", "a" | "A") | ("androidboot.slot_suffix", "_a") => Some(Slot::A),
            ("edge.slot", "b" | "B") | ("androidboot.slot_suffix", "_b") => Some(Slot::B),
            _ => None,
        }
    });
    let first = found.next()?;
    found.all(|slot| slot == first).then_some(first)
}

/// The slot whose boot LUN a UFS device starts from; none where `disk` (its name in `/sys/class/block`) is no UFS.
///
/// The kernel's `Documentation/ABI/testing/sysfs-driver-ufs` describes `boot_lun_enabled`; the host controller is
/// three folders above the disk's SCSI device. ABL takes 1 for slot A and 2 for slot B.
#[must_use]
pub(crate) fn boot_lun(root: &Path, disk: &str) -> Option<BootLun> {
    let mut file = KernelFile::new(
        root,
        &format!("/sys/class/block/{disk}/device/../../../attributes/boot_lun_enabled"),
    );
    let text = file.read().ok()?;
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    Some(match u32::from_str_radix(digits, 16) {
        Ok(1) => BootLun::Of(Slot::A),
        Ok(2) => BootLun::Of(Slot::B),
        _ => BootLun::Neither,
    })
}

/// What a UFS device starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootLun {
    /// The boot LUN of a slot.
    Of(Slot),
    /// None, or something unknown.
    Neither,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_the_slot() {
        for (text, slot) in [
            (
                "console=ttyMSM0 androidboot.slot_suffix=_b ro",
                Some(Slot::B),
            ),
            ("edge.slot=a quiet\n", Some(Slot::A)),
            ("edge.slot=\"B\"", Some(Slot::B)),
            ("edge.slot=a androidboot.slot_suffix=_a", Some(Slot::A)),
            ("edge.slot=a androidboot.slot_suffix=_b", None),
            ("edge.slot=c", None),
            ("not.edge.slot=a", None),
            ("", None),
        ] {
            assert_eq!(slot_of(text), slot, "{text}");
        }
    }
}
