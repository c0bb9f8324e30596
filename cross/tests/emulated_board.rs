//! The whole box, emulated: Debian, our programs and U-Boot from an image, in a region on this machine.
//!
//! Run by `cargo xtask test --only qemu`, which makes the image and names it in `EDGE_IMAGE`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use cross::cache::Cache;
use cross::emulated::{BOX, Emulated};
use cross::image::kernel;
use cross::region::Broker;

fn image() -> PathBuf {
    let path = std::env::var_os("EDGE_IMAGE").map(PathBuf::from);
    path.expect("EDGE_IMAGE names no image: run `cargo xtask test --only qemu`, which makes one")
}

fn start() -> Emulated {
    let cache = Cache::from_env().expect("a cache folder");
    let kernel = kernel::ensure(&cache).expect("U-Boot");
    let plan = support::plan(Broker::Secured, 0);
    Emulated::start(plan, &image(), &kernel.u_boot).expect("a board")
}

/// From an image over enrolment to answers; a box that froze comes back; a slot that does not start is left for the one that does;
/// a factory reset forgets.
#[test]
fn a_box_from_its_first_start_to_its_factory_reset() {
    let mut emulated = start();
    let first = emulated
        .wait_for_first_answer(None)
        .unwrap_or_else(|error| panic!("{error}\n{}", emulated.board.console()));
    println!("switched on to first answer: {:.1} s", first.as_secs_f64());

    let known = emulated.region.holders().expect("the region's list");
    assert!(known.contains(BOX), "{known}");

    let answers = emulated.ask(30).expect("answers");
    assert_eq!(answers.answered, 30, "{answers:?}");
    assert!(answers.correct >= 29, "{answers:?}");

    emulated
        .board
        .wait_for_ssh()
        .expect("SSH, by the provisioned key");
    let inside = |emulated: &Emulated, command: &str| {
        emulated
            .board
            .ssh(command)
            .unwrap_or_else(|error| panic!("{command}: {error}\n{}", emulated.board.console()))
    };
    // All lines good or warnings. Under emulation a driver takes its time. The key is the agent's, so doctor runs as it.
    let doctor = inside(
        &emulated,
        "runuser -u edge-agent -- edge-agent doctor --config /run/edge/agent.toml --timeout 100",
    );
    println!("{doctor}");
    assert!(doctor.contains("ONNX Runtime"), "{doctor}");
    assert!(doctor.contains("llvmpipe"), "{doctor}");
    let failed = inside(&emulated, "systemctl --failed --no-legend --plain");
    assert_eq!(failed, "", "units that failed");

    // What the owner reads on the console.
    assert!(
        emulated.board.console().contains(BOX),
        "its name is on the console"
    );

    // The kernel stands still for ever; nobody feeds the watchdog any more.
    let key = inside(&emulated, "sha256sum < /var/lib/edge-agent/identity.key");
    let watchdog = inside(
        &emulated,
        "cat /sys/class/watchdog/watchdog0/identity /sys/class/watchdog/watchdog0/state",
    );
    assert!(
        watchdog.contains("i6300ESB") && watchdog.contains("active"),
        "{watchdog}"
    );
    let starts = emulated.board.console().matches("starting slot A").count();
    let _gone = emulated
        .board
        .ssh("sysctl -q kernel.panic=0; (sleep 1; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &");
    emulated
        .board
        .wait_for_console("starting slot A", starts + 1)
        .expect("the watchdog resets the box");
    emulated.board.wait_for_ssh().expect("the box is back");
    let same = inside(&emulated, "sha256sum < /var/lib/edge-agent/identity.key");
    assert_eq!(key, same, "the box is the same");

    // The other slot gets its turn, on trial, and is confirmed once its agent has served for a while.
    inside(
        &emulated,
        "edge-ota rollback && (sleep 1; systemctl reboot) >/dev/null 2>&1 &",
    );
    emulated
        .board
        .wait_for_console("starting slot B", 1)
        .expect("slot B starts");
    emulated.board.wait_for_ssh().expect("slot B works");
    let minutes = Duration::from_secs(300);
    support::eventually_within(minutes, "slot B is confirmed", || {
        let status = emulated.board.ssh("edge-ota status --json");
        status.is_ok_and(|status| runs_and_is_good(&status, "B"))
    });

    // Slot A gets its turn with a root that is no root any more.
    inside(
        &emulated,
        "dd if=/dev/zero of=/dev/disk/by-partlabel/root_a bs=1M count=1 conv=fsync 2>/dev/null; \
         edge-ota rollback && (sleep 1; systemctl reboot) >/dev/null 2>&1 &",
    );
    emulated
        .board
        .wait_for_console("starting slot A", starts + 4)
        .expect("three tries of slot A");
    emulated
        .board
        .wait_for_console("starting slot B", 2)
        .expect("the box returns to slot B");
    emulated.board.wait_for_ssh().expect("the box is back");
    assert_eq!(
        emulated.board.console().matches("starting slot A").count(),
        starts + 4
    );
    let status = inside(&emulated, "edge-ota status --json");
    assert!(runs_and_is_good(&status, "B"), "{status}");

    // Forgets its key, keeps what provisioning wrote. Its token is used up: the owner gives it another.
    inside(
        &emulated,
        "(sleep 1; /usr/lib/edge/factory-reset request) >/dev/null 2>&1 &",
    );
    emulated
        .board
        .wait_for_console("starting slot B", 3)
        .expect("a restart");
    emulated.board.wait_for_ssh().expect("the box is back");
    let other = inside(&emulated, "sha256sum < /var/lib/edge-agent/identity.key");
    assert_ne!(key, other, "the key is a new one");
    let mut emulated = emulated.provision_again().expect("a provisioned box");
    emulated
        .wait_for_first_answer(None)
        .unwrap_or_else(|error| panic!("{error}\n{}", emulated.board.console()));
    emulated.stop().expect("the end");
}

/// Whether `slot` runs and is good, by `edge-ota status --json`.
fn runs_and_is_good(status: &str, slot: &str) -> bool {
    let status: serde_json::Value = serde_json::from_str(status).expect("JSON");
    status["running"] == slot && status["slots"][slot]["state"] == "good"
}
