//! Everything around the product: set-up, tests, demo. Run as `cargo xtask`.
//!
//! - [`bench`]: benchmarks beside their floors
//! - [`boards`]: `cargo xtask boards`
//! - [`build`]: `cargo xtask build`
//! - [`cache`]: where downloads and their stamps live
//! - [`image`]: `cargo xtask image`
//! - [`emulated`]: `cargo xtask qemu`
//! - [`emulated_board`]: QEMU's emulated board as a process
//! - [`shell`]: other programs, run behind a spinner or in plain sight
//! - [`setup`]: what building and testing needs beyond Rust itself
//! - [`suites`]: `cargo xtask test`
//! - [`firmware`]: the example firmware of a sensor, built and emulated
//! - [`fuzz`]: `cargo xtask fuzz`
//! - [`processes`]: real processes, supervised: brokers, indexers, agents
//! - [`authority`]: a region's certificate authority, by `edgectl ca`
//! - [`region`]: a whole region on this machine
//! - [`sensor`]: `edgectl sense` as a child process
//! - [`demo`]: `cargo xtask demo`
//! - [`stop_signal`]: Ctrl-C as a message

pub mod authority;
pub mod bench;
pub mod boards;
pub mod build;
pub mod cache;
pub mod demo;
pub mod emulated;
pub mod emulated_board;
pub mod firmware;
pub mod fuzz;
pub mod image;
pub mod processes;
pub mod region;
pub mod sensor;
pub mod setup;
pub mod shell;
pub mod stop_signal;
pub mod suites;

use std::path::{Path, PathBuf};

/// The checkout that this program was built from.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The committed model repository: `digits` alone.
#[must_use]
pub fn committed_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/repository")
}

/// What happens to the boards of a region that shows itself.
#[must_use]
pub fn demo_day() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-day.toml")
}

/// The 360 labelled images that trained nothing.
#[must_use]
pub fn heldout_images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits-heldout.csv")
}
