//! ONNX Runtime's shared library, out of its PyPI wheel.

use std::path::PathBuf;
use std::process::Command;

use super::python::{self, PythonError};
use crate::cache::{Arch, Cache, CacheError};
use crate::shell::{self, CommandError};

/// The release that boxes run. A new one needs new hashes below.
pub const VERSION: &str = "1.32.0";

/// Pinned SHA-256 sums: of the wheel as published, and of the library in it.
struct Hashes {
    wheel: &'static str,
    library: &'static str,
}

const fn hashes(arch: Arch) -> Hashes {
    match arch {
        Arch::X86_64 => Hashes {
            wheel: "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
            library: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
        },
        Arch::Aarch64 => Hashes {
            wheel: "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
            library: "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
        },
    }
}

/// ONNX Runtime could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum OnnxRuntimeError {
    /// No wheel for this machine.
    #[error("ONNX Runtime is published for x86_64 and aarch64, not for {0}")]
    Processor(&'static str),
    /// Fetching or unpacking failed.
    #[error("could not fetch ONNX Runtime {VERSION}")]
    Fetch(#[from] PythonError),
    /// The cache folder refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The wheel could not be unpacked.
    #[error("could not unpack ONNX Runtime's wheel")]
    Unpack(#[from] CommandError),
}

/// This machine's processor.
///
/// # Errors
/// When ONNX Runtime is not published for it.
pub fn host() -> Result<Arch, OnnxRuntimeError> {
    Arch::host().ok_or(OnnxRuntimeError::Processor(std::env::consts::ARCH))
}

/// Puts the library at [`Cache::onnxruntime`].
///
/// # Errors
/// When it cannot be fetched, or is not the pinned one.
pub fn ensure(cache: &Cache, arch: Arch) -> Result<(), OnnxRuntimeError> {
    let step = format!("onnxruntime-{}", arch.name());
    let product = cache.onnxruntime(arch);
    let hashes = hashes(arch);
    if cache.is_done(&step, hashes.library, &product) {
        return Ok(());
    }
    shell::step(
        &format!(
            "ONNX Runtime {VERSION} for {}: runs the models",
            arch.name()
        ),
        || {
            cache.finish(
                &step,
                hashes.library,
                &product,
                |scratch| -> Result<PathBuf, _> {
                    let environment = python::bare(scratch)?;
                    let platform = format!("manylinux_2_28_{}", arch.name());
                    let requirement = format!("onnxruntime=={VERSION}");
                    // Any Python's wheel holds the same library; this one's file is the one pinned.
                    let mut download = python::pip(&environment);
                    download.args(["download", "--no-deps", "--only-binary=:all:"]);
                    download.args(["--implementation", "cp", "--python-version", "3.12"]);
                    download.args(["--platform", &platform, &requirement, "--dest"]);
                    shell::output(download.arg(scratch))?;
                    let wheel =
                        scratch.join(format!("onnxruntime-{VERSION}-cp312-cp312-{platform}.whl"));
                    python::check_hash(&wheel, hashes.wheel)?;
                    let mut unpack = Command::new(environment.join("bin/python"));
                    shell::output(unpack.args(["-m", "zipfile", "-e"]).args([&wheel, scratch]))?;
                    let library =
                        scratch.join(format!("onnxruntime/capi/libonnxruntime.so.{VERSION}"));
                    python::check_hash(&library, hashes.library)?;
                    Ok(library)
                },
            )
        },
    )
}
