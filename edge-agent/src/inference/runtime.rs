//! ONNX Runtime, loaded from the library that the settings name when the first model needs it.

use std::path::{Path, PathBuf};

use ort::{
    environment::Environment,
    session::{Session, builder::GraphOptimizationLevel},
};

use super::repository::ModelEntry;

/// ONNX Runtime in this process.
pub struct Runtime {
    environment: Environment,
}

/// Why the runtime or a model is not there.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such library.
    #[error("there is no ONNX Runtime at {0}; name its library with --onnxruntime")]
    Missing(PathBuf),
    /// The library is not ONNX Runtime, or too old.
    #[error("cannot use {path} as ONNX Runtime: {why}; version 1.17 or newer is needed")]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        why: String,
    },
    /// The runtime does not start.
    #[error("ONNX Runtime does not start: {0}")]
    Start(String),
    /// The runtime refuses the graph.
    #[error("ONNX Runtime cannot load {path}: {why}")]
    Graph {
        /// The graph.
        path: PathBuf,
        /// What the runtime says.
        why: String,
    },
}

impl Runtime {
    /// Loads the library. It stays loaded until the process ends.
    ///
    /// # Errors
    /// [`RuntimeError`] when it is missing, too old or no ONNX Runtime.
    pub fn load(path: &Path) -> Result<Self, RuntimeError> {
        if !path.is_file() {
            return Err(RuntimeError::Missing(path.to_owned()));
        }
        let builder = ort::init_from(path).map_err(|error| RuntimeError::Load {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        let environment = builder
            .with_name("edge-agent")
            .with_telemetry(false)
            .build()
            .map_err(|error| RuntimeError::Start(error.to_string()))?;
        Ok(Self { environment })
    }

    /// The runtime's own handle.
    pub(crate) const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Loads one copy of a model.
    ///
    /// # Errors
    /// [`RuntimeError::Graph`] when the runtime refuses it.
    pub fn session(&self, entry: &ModelEntry) -> Result<Session, RuntimeError> {
        let graph_error = |error: &dyn std::fmt::Display| RuntimeError::Graph {
            path: entry.graph.clone(),
            why: error.to_string(),
        };
        // Spinning threads burn power between requests, and steal the second core of a small machine.
        Session::builder(&self.environment)
            .map_err(|e| graph_error(&e))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|e| graph_error(&e))?
            .with_intra_threads(entry.config.intra_op_threads)
            .map_err(|e| graph_error(&e))?
            .with_intra_op_spinning(false)
            .map_err(|e| graph_error(&e))?
            .commit_from_file(&entry.graph)
            .map_err(|e| graph_error(&e))
    }
}
