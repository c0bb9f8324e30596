//! Inference: a repository of models on disk, ONNX Runtime that runs them, and threads of their own to run on.
//!
//! Knows nothing of MQTT: a [`Job`] comes with the [`Reply`] that takes its outcome.

mod job;
mod model;
mod models;
mod repository;
mod runtime;
mod statistics;
mod worker;

pub use job::{Job, Reply};
pub use models::{ModelReport, ModelState, Models, PROVIDER};
pub use repository::{ModelConfig, ModelEntry, RepositoryError, scan};
pub use runtime::{Runtime, RuntimeError};
pub use statistics::Statistics;
