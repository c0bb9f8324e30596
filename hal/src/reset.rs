//! Why the box last started.
//!
//! Evidence comes from watchdogs (`bootstatus`), from what the kernel kept of a panic (pstore) and from the boot
//! loader's words on the kernel's command line. Mainline Linux exposes no reset reason of Qualcomm's power chips:
//! `drivers/power/reset/qcom-pon.c` only writes the mode of the next start. So a box whose boot loader says nothing
//! cannot tell a power cut from an orderly restart, and the answer is [`ResetReason::Unknown`].

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use crate::{kernel_file::KernelFile, watchdog::WatchdogNode};

/// Longest word of a boot loader that is looked at.
const MAX_REASON_BYTES: usize = 64;
/// Most records of panics that are looked at.
const MAX_RECORDS: usize = 64;

/// Why the box last started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// Power came on.
    PowerOn,
    /// A supply gave too little or too much.
    PowerFault,
    /// Nobody fed the watchdog.
    Watchdog,
    /// Software asked for it.
    Reboot,
    /// The kernel failed.
    KernelPanic,
    /// It was too hot.
    Thermal,
    /// Nobody says.
    Unknown,
}

impl ResetReason {
    /// Its name in telemetry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PowerOn => "power-on",
            Self::PowerFault => "power-fault",
            Self::Watchdog => "watchdog",
            Self::Reboot => "reboot",
            Self::KernelPanic => "kernel-panic",
            Self::Thermal => "thermal",
            Self::Unknown => "unknown",
        }
    }
}

/// What a watchdog knows of the last start: `WDIOF_*` (include/uapi/linux/watchdog.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BootStatus(pub u32);

impl BootStatus {
    const OVERHEAT: u32 = 0x0001;
    const POWERUNDER: u32 = 0x0010;
    const CARDRESET: u32 = 0x0020;
    const POWEROVER: u32 = 0x0040;

    /// Whether the watchdog reset the box.
    #[must_use]
    pub const fn is_watchdog(self) -> bool {
        self.0 & Self::CARDRESET != 0
    }

    /// Whether the box was reset for heat.
    #[must_use]
    pub const fn is_overheat(self) -> bool {
        self.0 & Self::OVERHEAT != 0
    }

    /// Whether the box was reset for its supply.
    #[must_use]
    pub const fn is_power(self) -> bool {
        self.0 & (Self::POWERUNDER | Self::POWEROVER) != 0
    }
}

/// What is known of the last start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResetEvidence {
    /// What all watchdogs together say.
    pub boot_status: BootStatus,
    /// Whether pstore keeps a record of a panic. Records lie there until somebody removes them (`systemd-pstore` does
    /// at each start): the agent must look before that, and an image without it must remove them itself.
    pub has_panic_record: bool,
    /// The boot loader's `androidboot.bootreason=` or `bootreason=`, as it wrote it.
    pub boot_loader: Option<String>,
}

impl ResetEvidence {
    /// Gathers what the machine below `root` knows. What cannot be read is no evidence.
    #[must_use]
    pub fn gather(root: &Path) -> Self {
        let boot_status = WatchdogNode::all(root)
            .iter()
            .filter_map(|node| node.boot_status().ok().flatten())
            // -1 is "unknown" (WDIOF_UNKNOWN).
            .filter(|status| status.0 != u32::MAX)
            .fold(0, |all, status| all | status.0);
        Self {
            boot_status: BootStatus(boot_status),
            has_panic_record: has_panic_record(&root.join("sys/fs/pstore")),
            boot_loader: KernelFile::new(root, "proc/cmdline")
                .read()
                .ok()
                .and_then(|line| boot_loader_reason(&line)),
        }
    }

    /// Why the box last started. A panic comes first, since one that hangs ends in the watchdog; then what hardware
    /// says; then the boot loader.
    #[must_use]
    pub fn reason(&self) -> ResetReason {
        if self.has_panic_record {
            ResetReason::KernelPanic
        } else if self.boot_status.is_overheat() {
            ResetReason::Thermal
        } else if self.boot_status.is_watchdog() {
            ResetReason::Watchdog
        } else if self.boot_status.is_power() {
            ResetReason::PowerFault
        } else {
            self.boot_loader
                .as_deref()
                .map_or(ResetReason::Unknown, reason_of_word)
        }
    }
}

/// Why the machine below `root` last started.
#[must_use]
pub fn last_reset(root: &Path) -> ResetReason {
    ResetEvidence::gather(root).reason()
}

/// Whether a `dmesg-*` record is of a panic: its first line is `Panic#1 Part1`, of an oops `Oops#1 Part1`
/// (`pstore_dump`, fs/pstore/platform.c).
fn has_panic_record(folder: &Path) -> bool {
    let is_panic = |path: &Path| {
        let mut head = [0; 6];
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut head))
            .is_ok()
            && head == *b"Panic#"
    };
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"dmesg-"))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .take(MAX_RECORDS)
        .any(|entry| is_panic(&entry.path()))
}

/// The boot loader's reason on the kernel's command line; Android's spelling first.
fn boot_loader_reason(command_line: &str) -> Option<String> {
    ["androidboot.bootreason=", "bootreason="]
        .iter()
        .find_map(|key| {
            command_line
                .split_ascii_whitespace()
                .find_map(|word| word.strip_prefix(key))
        })
        .map(|reason| reason.trim_matches('"'))
        .filter(|reason| !reason.is_empty() && reason.len() <= MAX_REASON_BYTES)
        .map(str::to_owned)
}

/// Reads `reason,subreason,...` (Android's "Canonical boot reason"), and the older words that boot loaders for
/// Qualcomm's chips write (AOSP, system/core/bootstat/bootstat.cpp).
fn reason_of_word(word: &str) -> ResetReason {
    let word = word.to_ascii_lowercase();
    let mut parts = word.split(',');
    let reason = parts.next().unwrap_or_default();
    if parts.clone().any(|part| part.starts_with("thermal")) {
        return ResetReason::Thermal;
    }
    match reason {
        "kernel_panic" | "panic" => ResetReason::KernelPanic,
        "watchdog" | "wdog_bark" | "wdog_bite" | "wdog_reset" | "hw_wdt" => ResetReason::Watchdog,
        "thermal" | "overheat" => ResetReason::Thermal,
        "cold" | "power_key" | "powerkey" | "power_on" | "pwron" | "usb_chg" | "charger" => {
            ResetReason::PowerOn
        }
        "reboot" | "recovery" | "bootloader" | "shutdown" => ResetReason::Reboot,
        // "hard" and "warm" say how, not why.
        _ => ResetReason::Unknown,
    }
}
