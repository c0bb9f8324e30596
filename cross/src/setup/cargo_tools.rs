//! Sub-commands of Cargo that the tests use: those on the `PATH`, else built here.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::cache::{Cache, CacheError};
use crate::shell::{self, CommandError};

const TOOLS: [(&str, &str, &str); 2] = [
    (
        "cargo-deny",
        DENY_VERSION,
        "judges the licences and origins of dependencies",
    ),
    ("cargo-nextest", "0.9.143", "runs the tests"),
];
const DENY_VERSION: &str = "0.20.2";

/// A tool could not be built.
#[derive(Debug, thiserror::Error)]
pub enum CargoToolsError {
    /// `cargo install` failed.
    #[error("could not build a tool that the tests need")]
    Install(#[from] CommandError),
    /// The cache folder refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Builds the tools that are not on the `PATH`.
///
/// # Errors
/// When one does not build.
pub fn ensure(cache: &Cache) -> Result<(), CargoToolsError> {
    for (tool, version, why) in TOOLS {
        let product = cache.tools().join("bin").join(tool);
        if shell::which(tool).is_some() || cache.is_done(tool, version, &product) {
            continue;
        }
        shell::step(
            &format!("build {tool} {version} (some minutes, once): {why}"),
            || {
                let mut install = shell::cargo();
                install.args([
                    "install",
                    "--locked",
                    "--quiet",
                    "--version",
                    version,
                    "--root",
                ]);
                shell::output(install.arg(cache.tools()).arg(tool))
            },
        )?;
        cache.set_stamp(tool, version)?;
    }
    Ok(())
}

/// The `PATH` that finds them.
#[must_use]
pub fn path(cache: &Cache) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let ours = [cache.tools().join("bin")];
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(ours).collect();
    env::join_paths(folders).unwrap_or(path)
}
