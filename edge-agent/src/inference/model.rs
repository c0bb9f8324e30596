//! One loaded copy of a model: checks a request against the graph's inputs, runs it, reads the outputs.

use std::sync::Arc;

use edge_protocol::{
    Datatype,
    oip::{Inputs, Request, Tensor, TensorError, server::TensorMetadata},
};
use half::{bf16, f16};
use ort::{
    session::{RunOptions, Session, SessionInputValue},
    value::{DynValue, Outlet, TensorElementType, ValueType},
};
use tracing::warn;

use super::{
    classification::classify,
    repository::ModelEntry,
    worker::{Run, Stop},
};

/// One loaded copy of a model.
pub(super) struct Model {
    session: Session,
    /// Of all runs; through them another thread ends one.
    options: Arc<RunOptions>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    allow_non_finite: bool,
    /// Names of the classes.
    labels: Vec<String>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Signature {
    pub(super) inputs: Vec<TensorMetadata>,
    pub(super) outputs: Vec<TensorMetadata>,
}

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq)]
struct Port {
    name: String,
    datatype: Datatype,
    /// Dimensions; -1 where any length fits.
    shape: Vec<i64>,
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
    #[error("{0}")]
    Classification(String),
    #[error("ONNX Runtime failed: {0}")]
    Runtime(#[from] ort::Error),
}

impl ModelError {
    /// Whether the request is at fault, rather than model or runtime.
    pub(super) const fn is_the_requests_fault(&self) -> bool {
        !matches!(self, Self::Runtime(_) | Self::Port { .. })
    }
}

impl Model {
    pub(super) fn new(session: Session, entry: &ModelEntry) -> Result<Self, ModelError> {
        let ports = |what, outlets: &[Outlet]| {
            outlets
                .iter()
                .map(|outlet| Port::new(what, outlet))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            inputs: ports("input", session.inputs())?,
            outputs: ports("output", session.outputs())?,
            session,
            options: Arc::new(RunOptions::new()?),
            allow_non_finite: entry.config.allow_non_finite,
            labels: entry.config.labels.clone(),
        })
    }

    /// What it takes and gives.
    pub(super) fn signature(&self) -> Signature {
        let metadata = |ports: &[Port]| {
            let metadata = |port: &Port| TensorMetadata {
                name: port.name.clone(),
                datatype: port.datatype,
                shape: port.shape.clone(),
            };
            ports.iter().map(metadata).collect()
        };
        Signature {
            inputs: metadata(&self.inputs),
            outputs: metadata(&self.outputs),
        }
    }
}

impl Run for Model {
    fn run(&mut self, request: &Request) -> Result<Vec<Tensor>, ModelError> {
        let Self {
            session,
            options,
            inputs,
            outputs,
            allow_non_finite,
            labels,
        } = self;
        let wanted = wanted(outputs, request)?;
        let mut values = Vec::with_capacity(inputs.len());
        for tensor in check(inputs, &request.inputs, *allow_non_finite)? {
            let value = to_value(&tensor)?;
            values.push((tensor.name, SessionInputValue::from(value)));
        }
        let results = session.run_with_options(values, options.as_ref())?;
        let results: Result<Vec<_>, _> = wanted
            .into_iter()
            .map(|port| match results.get(&port.name) {
                Some(value) => from_value(port, value),
                None => Err(unknown_output(outputs, &port.name)),
            })
            .collect();
        classify(results?, request, labels).map_err(ModelError::Classification)
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

impl Port {
    fn new(what: &'static str, outlet: &Outlet) -> Result<Self, ModelError> {
        let datatype = match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } => to_datatype(ty).map(|ty| (ty, shape)),
            _ => None,
        };
        match datatype {
            Some((datatype, shape)) => Ok(Self {
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

    fn takes(&self, shape: &[u64]) -> bool {
        self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(expected, actual)| *expected < 0 || u64::try_from(*expected) == Ok(*actual))
    }

    /// The tensor that `data` is when it comes without a header: any length fits one dimension at most.
    fn tensor_from(&self, data: &bytes::Bytes) -> Result<Tensor, ModelError> {
        let error = || ModelError::RawShape {
            name: self.name.clone(),
            datatype: self.datatype,
            shape: self.shape.clone(),
        };
        let element_bytes = self.datatype.element_bytes().ok_or_else(error)? as u64;
        let fixed = self
            .shape
            .iter()
            .filter_map(|dimension| u64::try_from(*dimension).ok())
            .try_fold(element_bytes, u64::checked_mul)
            .filter(|bytes| *bytes > 0)
            .ok_or_else(error)?;
        if self
            .shape
            .iter()
            .filter(|dimension| **dimension < 0)
            .count()
            > 1
        {
            return Err(error());
        }
        let any = data.len() as u64 / fixed;
        let shape = self
            .shape
            .iter()
            .map(|dimension| u64::try_from(*dimension).unwrap_or(any))
            .collect();
        Tensor::new(self.name.clone(), self.datatype, shape, data.clone()).map_err(|_| error())
    }
}

fn names(ports: &[Port]) -> String {
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    names.join(", ")
}

fn unknown_output(outputs: &[Port], name: &str) -> ModelError {
    ModelError::UnknownOutput {
        name: name.to_owned(),
        known: names(outputs),
    }
}

/// The outputs that the request wants; all, when it names none.
fn wanted<'a>(outputs: &'a [Port], request: &Request) -> Result<Vec<&'a Port>, ModelError> {
    if request.outputs.is_empty() {
        return Ok(outputs.iter().collect());
    }
    request
        .outputs
        .iter()
        .map(|wanted| {
            outputs
                .iter()
                .find(|port| port.name == wanted.name)
                .ok_or_else(|| unknown_output(outputs, &wanted.name))
        })
        .collect()
}

/// The tensors for the graph's inputs, all of them and no others, each of the right type and shape.
fn check(
    ports: &[Port],
    inputs: &Inputs,
    allow_non_finite: bool,
) -> Result<Vec<Tensor>, ModelError> {
    let tensors = match (inputs, ports) {
        (Inputs::Raw(data), [port]) => vec![port.tensor_from(data)?],
        (Inputs::Raw(_), ports) => return Err(ModelError::RawInputs(ports.len())),
        (Inputs::Named(tensors), _) => tensors.clone(),
    };
    for tensor in &tensors {
        let name = || tensor.name.clone();
        let Some(port) = ports.iter().find(|port| port.name == tensor.name) else {
            return Err(ModelError::UnknownInput {
                name: name(),
                known: names(ports),
            });
        };
        if tensor.datatype != port.datatype {
            return Err(ModelError::Datatype {
                name: name(),
                expected: port.datatype,
                actual: tensor.datatype,
            });
        }
        if !port.takes(&tensor.shape) {
            return Err(ModelError::Shape {
                name: name(),
                expected: port.shape.clone(),
                actual: tensor.shape.clone(),
            });
        }
        if !allow_non_finite && let Some(index) = tensor.first_non_finite() {
            return Err(ModelError::NonFinite {
                name: name(),
                index,
            });
        }
    }
    match ports
        .iter()
        .find(|port| !tensors.iter().any(|tensor| tensor.name == port.name))
    {
        Some(port) => Err(ModelError::MissingInput {
            name: port.name.clone(),
        }),
        None => Ok(tensors),
    }
}

/// Calls `$do!(Rust type)` for the element type of a fixed-size datatype.
macro_rules! for_number {
    ($datatype:expr, $do:ident) => {
        match $datatype {
            Datatype::Uint8 => $do!(u8),
            Datatype::Uint16 => $do!(u16),
            Datatype::Uint32 => $do!(u32),
            Datatype::Uint64 => $do!(u64),
            Datatype::Int8 => $do!(i8),
            Datatype::Int16 => $do!(i16),
            Datatype::Int32 => $do!(i32),
            Datatype::Int64 => $do!(i64),
            Datatype::Fp16 => $do!(f16),
            Datatype::Bf16 => $do!(bf16),
            Datatype::Fp32 => $do!(f32),
            Datatype::Fp64 => $do!(f64),
            Datatype::Bool | Datatype::Bytes => unreachable!("handled before the numbers"),
        }
    };
}

/// The runtime's value for a tensor.
fn to_value(tensor: &Tensor) -> Result<DynValue, ModelError> {
    let shape: Vec<i64> = tensor
        .shape
        .iter()
        .map(|dimension| i64::try_from(*dimension).unwrap_or(i64::MAX))
        .collect();
    macro_rules! number {
        ($type:ty) => {{
            // A copy, since a message's bytes have no alignment.
            let data: Vec<$type> = bytemuck::pod_collect_to_vec(&tensor.data);
            ort::value::Tensor::from_array((shape, data))?.into_dyn()
        }};
    }
    Ok(match tensor.datatype {
        Datatype::Bool => {
            let data: Vec<bool> = tensor.data.iter().map(|byte| *byte != 0).collect();
            ort::value::Tensor::from_array((shape, data))?.into_dyn()
        }
        Datatype::Bytes => {
            let texts: Result<Vec<String>, _> = tensor.elements().map(text).collect();
            let texts = texts.map_err(|why| ModelError::Tensor {
                name: tensor.name.clone(),
                source: TensorError::Element {
                    datatype: Datatype::Bytes,
                    why: format!("the model takes text: {why}"),
                },
            })?;
            ort::value::Tensor::from_string_array((shape, texts.as_slice()))?.into_dyn()
        }
        datatype => for_number!(datatype, number),
    })
}

/// An element as ONNX Runtime's C interface takes it: UTF-8 that ends at the first zero byte.
fn text(element: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(element).map_err(|error| error.to_string())?;
    if text.contains('\0') {
        return Err("a zero byte stands in it".to_owned());
    }
    Ok(text.to_owned())
}

/// The tensor for one of the runtime's values.
fn from_value(port: &Port, value: &DynValue) -> Result<Tensor, ModelError> {
    macro_rules! number {
        ($type:ty) => {{
            let (shape, data) = value.try_extract_tensor::<$type>()?;
            (shape, bytemuck::cast_slice::<$type, u8>(data).to_vec())
        }};
    }
    let (shape, data) = match port.datatype {
        Datatype::Bool => {
            let (shape, data) = value.try_extract_tensor::<bool>()?;
            (
                shape,
                data.iter().map(|element| u8::from(*element)).collect(),
            )
        }
        Datatype::Bytes => {
            let (shape, texts) = value.try_extract_strings()?;
            let data = texts
                .iter()
                .flat_map(|text| {
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
                    length.into_iter().chain(text.bytes())
                })
                .collect();
            (shape, data)
        }
        datatype => for_number!(datatype, number),
    };
    let shape = shape
        .iter()
        .map(|dimension| u64::try_from(*dimension).unwrap_or(0))
        .collect();
    Tensor::new(port.name.clone(), port.datatype, shape, data.into()).map_err(|source| {
        ModelError::Tensor {
            name: port.name.clone(),
            source,
        }
    })
}

fn to_datatype(element: &TensorElementType) -> Option<Datatype> {
    Some(match element {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}
