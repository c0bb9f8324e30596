//! The Python environment: pip for fetching wheels, and the pinned packages of the models.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use sha2::{Digest, Sha256};

use crate::cache::{Cache, CacheError};
use crate::shell::{self, CommandError};

const REQUIREMENTS: &str = include_str!("../../models/requirements.txt");

/// The Python environment could not be made, or a wheel not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// A program of it failed.
    #[error("could not prepare Python packages")]
    Command(#[from] CommandError),
    /// The cache folder refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// What was fetched is not what was pinned.
    #[error("{} has SHA-256 {found}, but {wanted} is pinned", path.display())]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// Its hash, in hex.
        found: String,
        /// The pinned one.
        wanted: &'static str,
    },
    /// A fetched file could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Makes the environment with the packages of `models/requirements.txt`.
///
/// # Errors
/// When Python has no `venv`, or pip cannot fetch.
pub fn ensure(cache: &Cache) -> Result<(), PythonError> {
    let pin = format!("{:x}", HexOf(&Sha256::digest(REQUIREMENTS)));
    if cache.is_done("venv", &pin, &cache.python()) {
        return Ok(());
    }
    shell::step(
        "Python packages: scikit-learn trains the model, onnx writes it",
        || {
            cache.finish("venv", &pin, &cache.venv(), |scratch| {
                let environment = bare(scratch)?;
                let requirements = scratch.join("requirements.txt");
                fs::write(&requirements, REQUIREMENTS).map_err(|source| PythonError::Read {
                    path: requirements.clone(),
                    source,
                })?;
                shell::output(
                    pip(&environment)
                        .args([
                            "install",
                            "--no-deps",
                            "--only-binary=:all:",
                            "--requirement",
                        ])
                        .arg(requirements),
                )?;
                Ok(environment)
            })
        },
    )
}

/// An environment with nothing but pip, in `folder`.
pub(super) fn bare(folder: &Path) -> Result<PathBuf, PythonError> {
    let environment = folder.join("venv");
    // Debian's own, where it is: a version manager's may change under us.
    let debian = Path::new("/usr/bin/python3");
    let python = if debian.is_file() {
        debian
    } else {
        Path::new("python3")
    };
    shell::output(Command::new(python).args(["-m", "venv"]).arg(&environment))?;
    Ok(environment)
}

/// `pip` of an environment.
pub(super) fn pip(environment: &Path) -> Command {
    let mut command = Command::new(environment.join("bin/python"));
    command.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    command
}

/// Is this file the pinned one?
pub(super) fn check_hash(path: &Path, wanted: &'static str) -> Result<(), PythonError> {
    let path = path.to_path_buf();
    let read = |source| PythonError::Read {
        path: path.clone(),
        source,
    };
    let bytes = fs::read(&path).map_err(read)?;
    let found = format!("{:x}", HexOf(&Sha256::digest(bytes)));
    if found == wanted {
        Ok(())
    } else {
        Err(PythonError::WrongHash {
            path,
            found,
            wanted,
        })
    }
}

/// Bytes, printed in hex.
struct HexOf<'a>(&'a [u8]);

impl std::fmt::LowerHex for HexOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
