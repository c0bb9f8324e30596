//! Rust's `core` for the microcontrollers of sensors, `thumbv7em-none-eabihf`.
//!
//! Where rustup can install the target, that is all. Elsewhere Cargo builds `core` from the source
//! of exactly this compiler's release, which lies in our cache and never in the user's toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use super::apt::{Apt, AptError};
use crate::cache::{Cache, CacheError};
use crate::shell::{self, CommandError};

/// Cortex-M4F and M7: what a sensor with a floating-point unit has.
pub const TARGET: &str = "thumbv7em-none-eabihf";

/// Rustup retries for minutes when no server answers.
const RUSTUP_LIMIT: Duration = Duration::from_secs(30);

/// Debian's release with compilers newer than the stable one's.
const SUITE: &str = "trixie-backports";

/// How to get `core` for [`TARGET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreLibrary {
    /// The toolchain has it.
    Installed,
    /// Cargo builds it from this folder, rustc's `library/`.
    Source(PathBuf),
}

/// `core` for microcontrollers is out of reach.
#[derive(Debug, thiserror::Error)]
pub enum CoreLibraryError {
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
        "no `core` for {TARGET}: rustup could not add the target, and Debian has no source of \
         rustc {version}; give --rust-src a .tar.xz or folder of that release's library/"
    )]
    OutOfReach {
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

impl CoreLibrary {
    /// `cargo build` for [`TARGET`], into a folder of its own: build scripts watch `RUSTC_BOOTSTRAP`, so the host's build
    /// cache must not see it.
    #[must_use]
    pub fn build(&self, target_folder: &Path) -> Command {
        let mut command = shell::cargo();
        command.args(["build", "--target", TARGET, "--target-dir"]);
        command.arg(target_folder);
        if let Self::Source(library) = self {
            command.arg("-Zbuild-std=core");
            command
                .env("RUSTC_BOOTSTRAP", "1")
                .env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        }
        command
    }
}

/// Finds or fetches `core` for [`TARGET`]; `given` is the source that the user named, if any.
///
/// # Errors
/// When all ways fail.
pub fn ensure(cache: &Cache, given: Option<&Path>) -> Result<CoreLibrary, CoreLibraryError> {
    if is_installed()? {
        return Ok(CoreLibrary::Installed);
    }
    let sysroot = rustc(&["--print", "sysroot"])?;
    let version = release(&rustc(&["-vV"])?);
    let from_component = Path::new(&sysroot).join("lib/rustlib/src/rust/library");
    let fetched = cache.rust_library(&version);
    for library in [from_component, fetched.clone()] {
        if is_library(&library) {
            return Ok(CoreLibrary::Source(library));
        }
    }
    if let Some(given) = given {
        return from_given(cache, given, &version, fetched);
    }
    if add_with_rustup() && is_installed()? {
        return Ok(CoreLibrary::Installed);
    }
    from_debian(cache, &version, fetched)
}

fn is_installed() -> Result<bool, CommandError> {
    let libraries = rustc(&["--print", "target-libdir", "--target", TARGET])?;
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
) -> Result<CoreLibrary, CoreLibraryError> {
    for folder in [given.to_path_buf(), given.join("library")] {
        if is_library(&folder) {
            return Ok(CoreLibrary::Source(folder));
        }
    }
    if !given.is_file() {
        return Err(CoreLibraryError::NotSource {
            path: given.to_path_buf(),
        });
    }
    shell::step(
        &format!("source of Rust {version}'s core, from {}", given.display()),
        || {
            cache.finish("rust-library", version, &product, |scratch| {
                let mut unpack = Command::new("tar");
                shell::output(unpack.arg("-xf").arg(given).arg("-C").arg(scratch))?;
                let library = scratch.join("library");
                if is_library(&library) {
                    return Ok(library);
                }
                Err(CoreLibraryError::NotSource {
                    path: given.to_path_buf(),
                })
            })
        },
    )?;
    Ok(CoreLibrary::Source(product))
}

fn add_with_rustup() -> bool {
    if shell::which("rustup").is_none() {
        return false;
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", TARGET])
        .current_dir(crate::repository());
    let what = format!("Rust's core for {TARGET}, with rustup");
    shell::step(&what, || shell::output_within(&mut add, RUSTUP_LIMIT)).is_ok()
}

fn from_debian(
    cache: &Cache,
    version: &str,
    product: PathBuf,
) -> Result<CoreLibrary, CoreLibraryError> {
    shell::step(
        &format!("source of Rust {version}'s core, from Debian's {SUITE}"),
        || {
            cache.finish("rust-library", version, &product, |scratch| {
                let unpacked = Apt::new(cache, SUITE)
                    .and_then(|apt| apt.unpack("rust-src", version, scratch))
                    .map_err(|source| CoreLibraryError::OutOfReach {
                        version: version.to_owned(),
                        source,
                    })?;
                let library = unpacked.join(format!("usr/src/rustc-{version}/library"));
                if is_library(&library) {
                    return Ok(library);
                }
                Err(CoreLibraryError::NotSource { path: library })
            })
        },
    )?;
    Ok(CoreLibrary::Source(product))
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
