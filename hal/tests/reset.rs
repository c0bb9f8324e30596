//! Why the box last started: the decision, and what is gathered for it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use edge_hal::reset::{BootStatus, ResetEvidence, ResetReason, last_reset};

#[test]
fn the_strongest_evidence_decides() {
    use ResetReason::{KernelPanic, PowerFault, PowerOn, Reboot, Thermal, Unknown, Watchdog};
    for (status, panic, word, expected) in [
        (0, false, None, Unknown),
        (0, true, None, KernelPanic),
        (0x20, true, Some("watchdog"), KernelPanic),
        (0x20, false, Some("cold"), Watchdog),
        (0x21, false, None, Thermal),
        (0x10, false, Some("reboot"), PowerFault),
        (0x40, false, None, PowerFault),
        // Flags that say nothing of a reset.
        (0x8180, false, None, Unknown),
        (0, false, Some("kernel_panic,null"), KernelPanic),
        (0, false, Some("watchdog"), Watchdog),
        (0, false, Some("wdog_bite"), Watchdog),
        (0, false, Some("reboot,ota"), Reboot),
        (0, false, Some("shutdown,thermal"), Thermal),
        (0, false, Some("shutdown,thermal,battery"), Thermal),
        (0, false, Some("cold,powerkey"), PowerOn),
        (0, false, Some("Power_Key"), PowerOn),
        (0, false, Some("warm"), Unknown),
        (0, false, Some("hard"), Unknown),
        (0, false, Some(""), Unknown),
        (0, false, Some(",,,"), Unknown),
    ] {
        let evidence = ResetEvidence {
            boot_status: BootStatus(status),
            has_panic_record: panic,
            boot_loader: word.map(str::to_owned),
        };
        assert_eq!(evidence.reason(), expected, "{evidence:?}");
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn a_machine_that_says_nothing_leaves_it_unknown() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(last_reset(root.path()), ResetReason::Unknown);
}

#[test]
fn gathers_from_all_watchdogs_pstore_and_the_command_line() {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("sys/class/watchdog/watchdog0/bootstatus", "0\n"),
        ("sys/class/watchdog/watchdog1/bootstatus", "0x20\n"),
        ("sys/class/watchdog/watchdog2/bootstatus", "nonsense\n"),
        // WDIOF_UNKNOWN
        ("sys/class/watchdog/watchdog3/bootstatus", "4294967295\n"),
        ("sys/fs/pstore/dmesg-ramoops-0", "Oops#1 Part1\n<4>...\n"),
        ("sys/fs/pstore/console-ramoops-0", "Panic#1 Part1\n"),
        ("sys/fs/pstore/dmesg-ramoops-1", ""),
        (
            "proc/cmdline",
            "root=/dev/sda7 bootreason=other androidboot.bootreason=reboot,ota quiet\n",
        ),
    ] {
        write(root.path(), path, text);
    }
    let expected = ResetEvidence {
        boot_status: BootStatus(0x20),
        has_panic_record: false,
        boot_loader: Some("reboot,ota".to_owned()),
    };
    assert_eq!(ResetEvidence::gather(root.path()), expected);
    assert_eq!(last_reset(root.path()), ResetReason::Watchdog);
    write(
        root.path(),
        "sys/fs/pstore/dmesg-ramoops-2",
        "Panic#2 Part1\n<0>...",
    );
    assert_eq!(last_reset(root.path()), ResetReason::KernelPanic);
}

#[test]
fn a_boot_loader_cannot_say_too_much() {
    let root = tempfile::tempdir().unwrap();
    for (line, expected) in [
        (format!("bootreason={}", "x".repeat(65)), None),
        ("bootreason=".to_owned(), None),
        ("xbootreason=reboot".to_owned(), None),
        ("bootreason=\"watchdog\"".to_owned(), Some("watchdog")),
    ] {
        write(root.path(), "proc/cmdline", &line);
        let evidence = ResetEvidence::gather(root.path());
        assert_eq!(evidence.boot_loader.as_deref(), expected, "{line}");
    }
}
