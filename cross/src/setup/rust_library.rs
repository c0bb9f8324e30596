//! Rust's library for what this project is built for: boxes and the microcontrollers of sensors.
//!
//! Where rustup can install the target, that is all. Elsewhere Cargo builds the library from the source
//! of exactly this compiler's release, which lies in our cache and never in the user's toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use super::apt::{Apt, AptError};
use crate::cache::{Cache, CacheError};
use crate::shell::{self, CommandError};

/// What programs are built for, other than this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Boxes: 64-bit ARM Linux with glibc.
    Box,
    /// Cortex-M4F and M7: what a sensor with a floating-point unit has.
    Sensor,
}

impl Target {
    /// As rustc calls it.
    #[must_use]
    pub fn triple(self) -> &'static str {
        match self {
            Self::Box => "aarch64-unknown-linux-gnu",
            Self::Sensor => "thumbv7em-none-eabihf",
        }
    }

    /// The parts of the library that are built from source.
    fn parts(self) -> &'static str {
        match self {
            Self::Box => "std,panic_unwind",
            Self::Sensor => "core",
        }
    }
}

/// Rustup retries for minutes when no server answers.
const RUSTUP_LIMIT: Duration = Duration::from_secs(30);

/// Debian's release with compilers newer than the stable one's.
const SUITE: &str = "trixie-backports";

/// How to get the library for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RustLibrary {
    /// The toolchain has it.
    Installed,
    /// Cargo builds it from this folder, rustc's `library/`.
    Source(PathBuf),
}

/// The library for a target is out of reach.
#[derive(Debug, thiserror::Error)]
pub enum RustLibraryError {
    /// The compiler does not say what it is.
    #[error("could not ask rustc for its version and folders")]
    Rustc(#[from] CommandError),
    /// What the user named holds no library.
    #[error("{} holds no source of Rust's library: want a folder or .tar.xz with library/core", path.display())]
    NotSource {
        /// As the user named it.
        path: PathBuf,
    },
    /// No way led to a source.
    #[error(
        "no Rust library for {target}: rustup could not add the target, and Debian has no source of \
         rustc {version}; give --rust-src a .tar.xz or folder of that release's library/"
    )]
    OutOfReach {
        /// As rustc calls it.
        target: &'static str,
        /// The compiler's release.
        version: String,
        /// What Debian said.
        #[source]
        source: AptError,
    },
    /// A fetched source could not be read.
    #[error("could not look into {}", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The cache folder refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl RustLibrary {
    /// Makes a Cargo command one for `target`, into a folder of its own: build scripts watch `RUSTC_BOOTSTRAP`, so the
    /// host's build cache must not see it.
    pub fn apply(&self, command: &mut Command, target: Target, folder: &Path) {
        command.args(["--target", target.triple(), "--target-dir"]);
        command.arg(folder);
        if let Self::Source(library) = self {
            command
                .arg(format!("-Zbuild-std={}", target.parts()))
                .env("RUSTC_BOOTSTRAP", "1")
                .env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        }
    }
}

/// Finds or fetches the library for `target`; `given` is the source that the user named, if any.
///
/// # Errors
/// When all ways fail.
pub fn ensure(
    cache: &Cache,
    target: Target,
    given: Option<&Path>,
) -> Result<RustLibrary, RustLibraryError> {
    if is_installed(target)? {
        return Ok(RustLibrary::Installed);
    }
    let sysroot = rustc(&["--print", "sysroot"])?;
    let version = release(&rustc(&["-vV"])?);
    let from_component = Path::new(&sysroot).join("lib/rustlib/src/rust/library");
    let fetched = cache.rust_library(&version);
    for library in [from_component, fetched.clone()] {
        if is_library(&library) {
            return Ok(RustLibrary::Source(library));
        }
    }
    if let Some(given) = given {
        return from_given(cache, given, &version, fetched);
    }
    if add_with_rustup(target) && is_installed(target)? {
        return Ok(RustLibrary::Installed);
    }
    from_debian(cache, target, &version, fetched)
}

fn is_installed(target: Target) -> Result<bool, CommandError> {
    let libraries = rustc(&["--print", "target-libdir", "--target", target.triple()])?;
    Ok(fs::read_dir(libraries).is_ok_and(|mut files| files.next().is_some()))
}

fn rustc(arguments: &[&str]) -> Result<String, CommandError> {
    shell::output(
        Command::new("rustc")
            .args(arguments)
            .current_dir(crate::repository()),
    )
}

/// `1.95.0` out of what `rustc -vV` prints.
fn release(verbose_version: &str) -> String {
    let line = verbose_version
        .lines()
        .find_map(|line| line.strip_prefix("release: "));
    line.unwrap_or("unknown").to_owned()
}

fn is_library(folder: &Path) -> bool {
    folder.join("core/Cargo.toml").is_file()
}

fn from_given(
    cache: &Cache,
    given: &Path,
    version: &str,
    product: PathBuf,
) -> Result<RustLibrary, RustLibraryError> {
    for folder in [given.to_path_buf(), given.join("library")] {
        if is_library(&folder) {
            return Ok(RustLibrary::Source(folder));
        }
    }
    if !given.is_file() {
        return Err(RustLibraryError::NotSource {
            path: given.to_path_buf(),
        });
    }
    shell::step(
        &format!(
            "source of Rust {version}'s library, from {}",
            given.display()
        ),
        || {
            cache.finish("rust-library", version, &product, |scratch| {
                let mut unpack = Command::new("tar");
                shell::output(unpack.arg("-xf").arg(given).arg("-C").arg(scratch))?;
                let library = scratch.join("library");
                if is_library(&library) {
                    return Ok(library);
                }
                Err(RustLibraryError::NotSource {
                    path: given.to_path_buf(),
                })
            })
        },
    )?;
    Ok(RustLibrary::Source(product))
}

fn add_with_rustup(target: Target) -> bool {
    if shell::which("rustup").is_none() {
        return false;
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", target.triple()])
        .current_dir(crate::repository());
    let what = format!("Rust's library for {}, with rustup", target.triple());
    shell::step(&what, || shell::output_within(&mut add, RUSTUP_LIMIT)).is_ok()
}

fn from_debian(
    cache: &Cache,
    target: Target,
    version: &str,
    product: PathBuf,
) -> Result<RustLibrary, RustLibraryError> {
    shell::step(
        &format!("source of Rust {version}'s library, from Debian's {SUITE}"),
        || {
            cache.finish("rust-library", version, &product, |scratch| {
                let unpacked = Apt::new(cache, SUITE)
                    .and_then(|apt| apt.unpack("rust-src", Some(version), scratch))
                    .map_err(|source| RustLibraryError::OutOfReach {
                        target: target.triple(),
                        version: version.to_owned(),
                        source,
                    })?;
                let library = unpacked.join(format!("usr/src/rustc-{version}/library"));
                if is_library(&library) {
                    return Ok(library);
                }
                Err(RustLibraryError::NotSource { path: library })
            })
        },
    )?;
    Ok(RustLibrary::Source(product))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_rustc() {
        let printed = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\n";
        assert_eq!(release(printed), "1.95.0");
    }
}
