//! QEMU's emulator of single programs for boxes, `qemu-aarch64`.
//!
//! ONNX Runtime crashes under QEMU 7, which Debian 12 has, and runs under QEMU 10. So the system's own emulator is used
//! where it is new enough, else the one of Debian's backports, which is a single static file.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::{self, Apt, AptError};
use crate::cache::{Cache, CacheError};
use crate::shell;

/// First release that runs ONNX Runtime.
const OLDEST: u32 = 10;

/// Folder of the C library for boxes, from Debian's `libc6-arm64-cross`; where the emulator looks for libraries.
pub const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// There is no emulator.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// Debian's backports do not give one.
    #[error(
        "no qemu-aarch64 of release {OLDEST} or newer: install Debian's qemu-user from backports"
    )]
    OutOfReach(#[source] AptError),
    /// The cache folder refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// The emulator's path; fetches it if need be.
///
/// # Errors
/// When it is neither here nor to be had.
pub fn ensure(cache: &Cache) -> Result<PathBuf, EmulatorError> {
    let is_new = |program: &PathBuf| release(program).is_some_and(|release| release >= OLDEST);
    if let Some(system) = shell::which("qemu-aarch64").filter(is_new) {
        return Ok(system);
    }
    let product = cache.emulator();
    let pin = OLDEST.to_string();
    if cache.is_done("emulator", &pin, &product) {
        return Ok(product);
    }
    let suite = apt::backports_of_this_machine();
    shell::step(
        &format!("QEMU's qemu-aarch64, from Debian's {suite}"),
        || {
            cache.finish("emulator", &pin, &product, |scratch| {
                Apt::new(cache, &suite)
                    .and_then(|apt| apt.unpack("qemu-user", None, scratch))
                    .map(|unpacked| unpacked.join("usr/bin/qemu-aarch64"))
                    .map_err(EmulatorError::OutOfReach)
            })
        },
    )?;
    Ok(product)
}

/// `10` out of "qemu-aarch64 version 10.0.2 (Debian ...)".
fn release(program: &Path) -> Option<u32> {
    let printed = shell::output(Command::new(program).arg("--version")).ok()?;
    let version = printed.split("version ").nth(1)?;
    version.split('.').next()?.parse().ok()
}
