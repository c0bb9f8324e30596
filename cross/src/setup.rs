//! What building, testing and showing Aethir Edge needs beyond Rust itself.
//!
//! Every step is pinned, leaves a stamp, and is skipped without touching the network when its
//! stamp and product are there.

pub mod apt;
pub mod asyncapi;
pub mod cargo_tools;
pub mod emulator;
pub mod models;
pub mod onnxruntime;
pub mod packages;
pub mod python;
pub mod rust_library;

use std::path::Path;

use crate::cache::{Arch, Cache, CacheError};
use rust_library::{RustLibrary, Target};

/// A step of set-up that failed.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant is the error of the module it is named for"
)]
pub enum SetupError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Packages(#[from] packages::PackagesError),
    #[error(transparent)]
    Python(#[from] python::PythonError),
    #[error(transparent)]
    OnnxRuntime(#[from] onnxruntime::OnnxRuntimeError),
    #[error(transparent)]
    AsyncApi(#[from] asyncapi::AsyncApiError),
    #[error(transparent)]
    Models(#[from] models::ModelsError),
    #[error(transparent)]
    RustLibrary(#[from] rust_library::RustLibraryError),
    #[error(transparent)]
    Emulator(#[from] emulator::EmulatorError),
    #[error(transparent)]
    CargoTools(#[from] cargo_tools::CargoToolsError),
}

/// What the demo needs: a linker, and ONNX Runtime for this machine.
///
/// # Errors
/// The first step that fails.
pub fn for_demo(cache: &Cache) -> Result<(), SetupError> {
    let _lock = cache.lock()?;
    packages::ensure(packages::Purpose::Demo)?;
    onnxruntime::ensure(cache, onnxruntime::host()?)?;
    Ok(())
}

/// What the benchmarks need: a broker as peer, and models of realistic cost.
///
/// # Errors
/// The first step that fails.
pub fn for_bench(cache: &Cache) -> Result<(), SetupError> {
    let _lock = cache.lock()?;
    packages::ensure(packages::Purpose::Test)?;
    onnxruntime::ensure(cache, onnxruntime::host()?)?;
    python::ensure(cache)?;
    Ok(models::ensure(cache)?)
}

/// Rust's library for what is not built for this machine.
#[derive(Debug, Clone)]
pub struct RustLibraries {
    /// For boxes.
    pub boxes: RustLibrary,
    /// For the microcontrollers of sensors.
    pub sensors: RustLibrary,
}

/// What building programs for boxes needs: a linker, and Rust's library.
///
/// `rust_source`: the source of Rust's library, if the caller has it (a `.tar.xz` or a folder).
///
/// # Errors
/// The first step that fails.
pub fn for_build(cache: &Cache, rust_source: Option<&Path>) -> Result<RustLibrary, SetupError> {
    let _lock = cache.lock()?;
    packages::ensure(packages::Purpose::Build)?;
    Ok(rust_library::ensure(cache, Target::Box, rust_source)?)
}

/// What making images needs: all that building programs for boxes does, and ONNX Runtime for them.
///
/// `rust_source`: as for [`for_build`].
///
/// # Errors
/// The first step that fails.
pub fn for_image(cache: &Cache, rust_source: Option<&Path>) -> Result<RustLibrary, SetupError> {
    let _lock = cache.lock()?;
    packages::ensure(packages::Purpose::Image)?;
    onnxruntime::ensure(cache, Arch::Aarch64)?;
    Ok(rust_library::ensure(cache, Target::Box, rust_source)?)
}

/// What the tests need: all there is.
///
/// `rust_source`: as for [`for_build`].
///
/// # Errors
/// The first step that fails.
pub fn for_tests(cache: &Cache, rust_source: Option<&Path>) -> Result<RustLibraries, SetupError> {
    let _lock = cache.lock()?;
    packages::ensure(packages::Purpose::Test)?;
    for arch in Arch::ALL {
        onnxruntime::ensure(cache, arch)?;
    }
    python::ensure(cache)?;
    asyncapi::ensure(cache, onnxruntime::host()?)?;
    models::ensure(cache)?;
    cargo_tools::ensure(cache)?;
    emulator::ensure(cache)?;
    Ok(RustLibraries {
        boxes: rust_library::ensure(cache, Target::Box, rust_source)?,
        sensors: rust_library::ensure(cache, Target::Sensor, rust_source)?,
    })
}
