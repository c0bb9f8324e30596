//! One loaded copy of a model: runs requests together, and gives each its part of the outputs.

use std::sync::Arc;

use edge_hal::crash_note::Activity;
use edge_protocol::{
    Datatype,
    oip::{Tensor, TensorError},
};
use ort::{
    session::{RunOptions, Session, SessionInputValue},
    value::{Outlet, ValueType},
};
use tracing::warn;

use super::{
    classification::classify,
    graph::{Graph, Port, Prepared},
    repository::ModelEntry,
    values::{self, Buffer},
    worker::{Run, Stop},
};

/// One loaded copy of a model.
pub(super) struct Model {
    session: Session,
    /// Of all runs; through them another thread ends one.
    options: Arc<RunOptions>,
    graph: Arc<Graph>,
    /// Of each input, for what cannot be read where it lies.
    buffers: Vec<Buffer>,
    /// Names of the classes.
    labels: Vec<String>,
    /// What a note says when a run kills the agent.
    activity: Activity,
}

/// Why a request does not fit the model, or the model failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModelError {
    #[error("the graph's {what} {name:?} is of a kind that is not served: {kind}")]
    Port {
        what: &'static str,
        name: String,
        kind: String,
    },
    #[error("the model has no input {name:?}; its inputs are {known}")]
    UnknownInput { name: String, known: String },
    #[error("input {name:?} is missing")]
    MissingInput { name: String },
    #[error("input {name:?} is {actual}, the model takes {expected}")]
    Datatype {
        name: String,
        expected: Datatype,
        actual: Datatype,
    },
    #[error("input {name:?} has shape {actual:?}, the model takes {expected:?} (-1 = any)")]
    Shape {
        name: String,
        expected: Vec<i64>,
        actual: Vec<u64>,
    },
    #[error("element {index} of input {name:?} is NaN or infinite")]
    NonFinite { name: String, index: usize },
    #[error("a body without header is the one input of a model; this one has {0}")]
    RawInputs(usize),
    #[error(
        "the data does not fill the shape {shape:?} of input {name:?} (-1 = any) with {datatype}"
    )]
    RawShape {
        name: String,
        datatype: Datatype,
        shape: Vec<i64>,
    },
    #[error("the model has no output {name:?}; its outputs are {known}")]
    UnknownOutput { name: String, known: String },
    #[error("tensor {name:?}: {source}")]
    Tensor { name: String, source: TensorError },
    #[error(
        "output {name:?} has {actual:?} rows after a run of {expected}: this model cannot run requests together"
    )]
    Rows {
        name: String,
        expected: usize,
        actual: Option<u64>,
    },
    #[error("{0}")]
    Classification(String),
    #[error("ONNX Runtime failed: {0}")]
    Runtime(#[from] ort::Error),
}

impl ModelError {
    /// Whether the request is at fault, rather than model or runtime.
    pub(super) const fn is_the_requests_fault(&self) -> bool {
        !matches!(
            self,
            Self::Runtime(_) | Self::Port { .. } | Self::Rows { .. }
        )
    }
}

impl Model {
    /// A copy; `activity` is noted when a run kills the agent.
    pub(super) fn new(
        session: Session,
        entry: &ModelEntry,
        activity: Activity,
    ) -> Result<Self, ModelError> {
        let ports = |what, outlets: &[Outlet]| {
            outlets
                .iter()
                .map(|outlet| port(what, outlet))
                .collect::<Result<Vec<_>, _>>()
        };
        let graph = Graph {
            inputs: ports("input", session.inputs())?,
            outputs: ports("output", session.outputs())?,
            allow_non_finite: entry.config.allow_non_finite,
        };
        Ok(Self {
            buffers: graph.inputs.iter().map(|_| Buffer::default()).collect(),
            graph: Arc::new(graph),
            session,
            options: Arc::new(RunOptions::new()?),
            labels: entry.config.labels.clone(),
            activity,
        })
    }
}

impl Run for Model {
    fn graph(&self) -> Arc<Graph> {
        self.graph.clone()
    }

    fn run(&mut self, requests: &[Prepared]) -> Result<Vec<Vec<Tensor>>, ModelError> {
        let Self {
            session,
            options,
            graph,
            buffers,
            labels,
            activity,
        } = self;
        let mut inputs: Vec<SessionInputValue<'_>> = Vec::with_capacity(buffers.len());
        for (index, buffer) in buffers.iter_mut().enumerate() {
            let parts: Vec<&Tensor> = requests
                .iter()
                .filter_map(|request| request.inputs.get(index))
                .collect();
            inputs.push(values::to_value(&parts, buffer)?);
        }
        let underway = activity.begin();
        let results = session.run_with_options(inputs.as_slice(), options.as_ref());
        drop(underway);
        let mut results = results?;
        let rows: Vec<usize> = requests.iter().map(|request| request.rows).collect();
        let mut outputs = Vec::with_capacity(graph.outputs.len());
        for (index, port) in graph.outputs.iter().enumerate() {
            let is_wanted = requests
                .iter()
                .any(|request| request.wanted.contains(&index));
            outputs.push(match results.remove(&port.name) {
                Some(value) if is_wanted => values::split(values::from_value(port, value)?, &rows)?,
                _ => Vec::new(),
            });
        }
        drop(results);
        drop(inputs);
        buffers.iter_mut().for_each(Buffer::shrink);
        let of_request = |(place, request): (usize, &Prepared)| {
            let wanted = request.wanted.iter();
            let wanted = wanted.filter_map(|index| outputs.get(*index)?.get(place).cloned());
            classify(wanted.collect(), &request.request, labels).map_err(ModelError::Classification)
        };
        requests.iter().enumerate().map(of_request).collect()
    }

    fn stopper(&self) -> Arc<dyn Stop> {
        self.options.clone()
    }
}

/// ONNX Runtime looks at the flag between two nodes of the graph: one endless node is not ended by it.
impl Stop for RunOptions {
    fn stop(&self) {
        if let Err(error) = self.terminate() {
            warn!(%error, "ONNX Runtime cannot end a run");
        }
    }

    fn reset(&self) {
        if let Err(error) = self.unterminate() {
            warn!(%error, "ONNX Runtime cannot take back the end of a run");
        }
    }
}

fn port(what: &'static str, outlet: &Outlet) -> Result<Port, ModelError> {
    let datatype = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => values::to_datatype(ty).map(|ty| (ty, shape)),
        _ => None,
    };
    match datatype {
        Some((datatype, shape)) => Ok(Port {
            name: outlet.name().to_owned(),
            datatype,
            shape: shape.to_vec(),
        }),
        None => Err(ModelError::Port {
            what,
            name: outlet.name().to_owned(),
            kind: outlet.dtype().to_string(),
        }),
    }
}
