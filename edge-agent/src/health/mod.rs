//! Health: sees whether all parts make progress, feeds the watchdogs only then, and helps what is stuck.
//!
//! - [`progress`] (pure): which parts are stuck
//! - [`ladder`] (pure): what is done about them
//! - [`vitals`]: what the parts say while they work
//! - [`store`]: the data folder's own thread
//! - [`notify`]: what systemd hears
//! - [`feeder`]: the thread that looks, acts and feeds
//!
//! `docs/operations.md` says it for operators. This knows of no MQTT and no model; workers are behind
//! [`feeder::Workers`].

pub mod feeder;
pub mod ladder;
pub mod notify;
pub mod progress;
pub mod store;
pub mod vitals;

use std::{fs, path::Path, time::Duration};

use edge_hal::{Board, controls::Controls, watchdog::Watchdog};
use serde::Deserialize;
use tracing::{error, info, warn};

pub use self::{
    feeder::{Feeder, Workers},
    progress::{Limits, Part, WorkerId},
    vitals::{Pulse, Vitals},
};
use self::{ladder::History, store::Kept};

/// How often the main loop says that it runs.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// Whether the board's watchdog is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchdogUse {
    /// It must be there; its absence is an error in the log and in the status, though the box serves
    On,
    /// It is used where the board has one
    #[default]
    Auto,
    /// It is left alone
    Off,
}

/// Starts the board's watchdog, if it has one and it is to be used. Without it the box serves all the same.
pub(crate) fn arm(board: &Board, root: &Path, wanted: WatchdogUse) -> Option<Box<dyn Watchdog>> {
    let unarmed = match (wanted, Controls::open(board, root).watchdog) {
        (WatchdogUse::Off, _) | (WatchdogUse::Auto, None) => return None,
        (WatchdogUse::On, None) => {
            error!(
                board = board.name,
                "the settings want a watchdog, and the board has none"
            );
            return None;
        }
        (_, Some(unarmed)) => unarmed,
    };
    match unarmed.arm() {
        Ok(watchdog) => {
            let (identity, timeout_s) = (unarmed.identity(), watchdog.timeout().as_secs());
            info!(identity, timeout_s, "the watchdog runs");
            Some(watchdog)
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_default();
            if wanted == WatchdogUse::On {
                error!(%error, cause, "no watchdog: a box that hangs stays so");
            } else {
                warn!(%error, cause, "no watchdog: a box that hangs stays so");
            }
            None
        }
    }
}

/// The past of the ladder as it is now: kept in `data`, of this boot or an earlier one.
pub(crate) fn past(data: &Path, root: &Path, watchdog: Option<&mut Box<dyn Watchdog>>) -> Kept {
    let boot = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id"));
    let boot = boot.unwrap_or_default().trim().to_owned();
    let kept = store::read(data).unwrap_or_default();
    let is_same_boot = kept.boot == boot;
    let was_watchdog = watchdog.is_some_and(|watchdog| {
        let told = watchdog.caused_last_reset();
        told.unwrap_or_else(|error| {
            warn!(%error, "the watchdog does not tell whether it reset the box");
            false
        })
    });
    let history: History = kept.history.at_start(is_same_boot, was_watchdog);
    if was_watchdog && !is_same_boot {
        warn!(resets = history.resets, "the watchdog has reset the box");
    }
    Kept { boot, history }
}
