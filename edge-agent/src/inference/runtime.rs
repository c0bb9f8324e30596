//! ONNX Runtime, loaded from the library that the settings name when the first model needs it.

use std::path::{Path, PathBuf};

use edge_hal::{
    board::{ExecutionProvider, SimProvider},
    crash_note::Activity,
};
use ort::{
    environment::Environment,
    ep::{self, ExecutionProvider as _, ExecutionProviderDispatch},
    session::{Session, builder::GraphOptimizationLevel},
};

use super::{
    model::Model, providers::SimModel, quarantine, repository::ModelEntry, weights::Weights,
    worker::Run,
};

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

    /// Loads one copy of a model; `sim` is what the simulated accelerator does to it, `weights` what it shares with others.
    ///
    /// # Errors
    /// Why it cannot be served.
    pub(super) fn copy(
        &self,
        entry: &ModelEntry,
        provider: ExecutionProvider,
        sim: Option<SimProvider>,
        weights: Option<&Weights>,
    ) -> Result<Box<dyn Run>, String> {
        let activity = Activity::new(&quarantine::activity(entry));
        let underway = activity.begin();
        let session = self.session(entry, provider, weights);
        drop(underway);
        let session = session.map_err(|error| error.to_string())?;
        let model = Model::new(session, entry, activity).map_err(|error| error.to_string())?;
        Ok(match sim {
            Some(does) if provider == ExecutionProvider::Sim => {
                Box::new(SimModel::new(model, does))
            }
            _ => Box::new(model),
        })
    }

    fn session(
        &self,
        entry: &ModelEntry,
        provider: ExecutionProvider,
        weights: Option<&Weights>,
    ) -> Result<Session, RuntimeError> {
        let graph_error = |error: &dyn std::fmt::Display| RuntimeError::Graph {
            path: entry.graph.clone(),
            why: error.to_string(),
        };
        let own = match provider {
            // What is there without being asked for.
            ExecutionProvider::Cpu | ExecutionProvider::Sim => Vec::new(),
            // Without this the runtime would fall back to its CPU kernels and say nothing.
            _ => vec![dispatch(provider).0.error_on_failure()],
        };
        // Spinning threads burn power between requests, and steal the second core of a small machine.
        let mut builder = Session::builder(&self.environment)
            .map_err(|e| graph_error(&e))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|e| graph_error(&e))?
            .with_intra_threads(entry.config.intra_op_threads)
            .map_err(|e| graph_error(&e))?
            .with_intra_op_spinning(false)
            .map_err(|e| graph_error(&e))?
            .with_execution_providers(own)
            .map_err(|e| graph_error(&e))?;
        if let Some(weights) = weights {
            builder = weights.lend(builder).map_err(|e| graph_error(&e))?;
        }
        builder
            .commit_from_file(&entry.graph)
            .map_err(|e| graph_error(&e))
    }
}

/// How ONNX Runtime is asked for a provider, and whether the library has it. The simulated one computes on the CPU.
pub(crate) fn dispatch(
    provider: ExecutionProvider,
) -> (ExecutionProviderDispatch, ort::Result<bool>) {
    match provider {
        ExecutionProvider::Cpu | ExecutionProvider::Sim => {
            (ep::CPU::default().build(), ep::CPU::is_available())
        }
        ExecutionProvider::Xnnpack => (ep::XNNPACK::default().build(), ep::XNNPACK::is_available()),
        ExecutionProvider::Acl => (ep::ACL::default().build(), ep::ACL::is_available()),
        ExecutionProvider::QnnGpu => (
            ep::QNN::default().with_backend_path("libQnnGpu.so").build(),
            ep::QNN::is_available(),
        ),
        ExecutionProvider::QnnHtp => (
            ep::QNN::default().with_backend_path("libQnnHtp.so").build(),
            ep::QNN::is_available(),
        ),
    }
}
