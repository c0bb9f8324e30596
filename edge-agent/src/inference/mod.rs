//! Inference: a repository of models on disk, ONNX Runtime that runs them, and threads of their own to run on.
//!
//! Knows nothing of MQTT: a [`Job`] comes with the [`Reply`] that takes its outcome.

mod batching;
mod catalogue;
mod classification;
mod compare;
mod cores;
mod crew;
mod figures;
mod graph;
mod job;
mod loader;
mod manifest;
pub(crate) mod memory;
mod model;
mod model_config;
mod models;
mod onnx;
mod permits;
mod policy;
mod providers;
mod quarantine;
mod queue;
mod repository;
mod runtime;
pub mod schedule;
mod stages;
mod statistics;
mod values;
mod warmup;
mod watch;
mod weights;
mod worker;

use edge_hal::board::ExecutionProvider;

pub use cores::Cores;
pub use figures::Figures;
pub use job::{Job, Reply};
pub use loader::{Done, Library, LoadError, Loader};
pub use model_config::{ConfigError, Fill, ModelConfig, VersionPolicy, Warmup, WarmupInput};
pub use models::{ModelReport, ModelState, Models};
pub use permits::Permits;
pub use providers::Book;
pub(crate) use providers::{Trial, try_provider};
pub use quarantine::Quarantine;
pub(crate) use repository::NONE_GIVEN;
pub use repository::{ModelEntry, ModelFolder, RepositoryError, VersionFolder, scan};
pub(crate) use runtime::dispatch;
pub use runtime::{Runtime, RuntimeError};
pub use stages::{BOUNDS_US, Spread, Stage, Stages, Times};
pub use statistics::Statistics;

/// Loads one copy of a model as a worker would, and lets go of it.
///
/// # Errors
/// Why it cannot be served.
pub fn try_model(runtime: &Runtime, entry: &ModelEntry) -> Result<(), String> {
    runtime
        .copy(entry, ExecutionProvider::Cpu, None, None)
        .map(drop)
}
