//! Open Inference Protocol v2 on hosts: one request and one answer type, three encodings on the wire.
//!
//! [`Encoding`] names the encoding, [`Request::decode`] and [`Answer::encode`] are what a box needs,
//! [`Request::encode`] and [`Answer::decode`] what a sensor needs; [`server`] has the operations beside inference.

mod binary;
mod cbor;
mod json;
mod number;
pub mod server;
mod tensor;

use bytes::Bytes;

pub use tensor::{Tensor, TensorError};

use crate::{Datatype, UnknownDatatype, property};

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON alone.
    Json,
    /// Binary tensor extension: `header_length` bytes of JSON, then little-endian tensors; 0 = one raw tensor.
    Binary {
        /// Bytes of JSON before the tensors.
        header_length: usize,
    },
    /// The compact form, [`crate::compact`].
    Cbor,
}

impl Encoding {
    /// The encoding named by a content type and the user property `inference-header-content-length`.
    ///
    /// # Errors
    /// [`OipError::ContentType`] for another content type, [`OipError::HeaderLength`] when binary lacks its length.
    pub fn from_properties(
        content_type: Option<&str>,
        header_length: Option<&str>,
    ) -> Result<Self, OipError> {
        Self::of(
            content_type,
            header_length.and_then(|text| text.parse().ok()),
        )
    }

    /// As [`Encoding::from_properties`], with the length as a number.
    ///
    /// # Errors
    /// As [`Encoding::from_properties`].
    pub fn of(content_type: Option<&str>, header_length: Option<usize>) -> Result<Self, OipError> {
        match content_type {
            Some(property::CONTENT_TYPE_JSON) => Ok(Self::Json),
            Some(property::CONTENT_TYPE_CBOR) => Ok(Self::Cbor),
            Some(property::CONTENT_TYPE_BINARY) => header_length
                .map(|header_length| Self::Binary { header_length })
                .ok_or(OipError::HeaderLength),
            other => Err(OipError::ContentType(
                other.unwrap_or("none").chars().take(64).collect(),
            )),
        }
    }

    /// The content type that names this encoding.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => property::CONTENT_TYPE_JSON,
            Self::Binary { .. } => property::CONTENT_TYPE_BINARY,
            Self::Cbor => property::CONTENT_TYPE_CBOR,
        }
    }
}

/// An encoded request or answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// How they are encoded, with the header's length where there is one.
    pub encoding: Encoding,
}

/// A request for inference.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    /// The client's own mark, returned in the answer.
    pub id: Option<String>,
    /// OIP's `timeout`: the latest answer that is of use, in microseconds after arrival.
    pub timeout_us: Option<u64>,
    /// OIP's `priority`: 1 is first; 0 and absent are the model's default.
    pub priority: Option<u64>,
    /// Whether outputs that do not say otherwise come as binary tensors.
    pub binary_output: bool,
    /// The model's inputs.
    pub inputs: Inputs,
    /// Outputs wanted; empty means all.
    pub outputs: Vec<WantedOutput>,
}

/// Inputs of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Tensors with names, types and shapes.
    Named(Vec<Tensor>),
    /// The data of a one-input model's input; the model knows its name, type and shape.
    Raw(Bytes),
}

impl Default for Inputs {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

/// An output that the client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedOutput {
    /// Name of the model's output.
    pub name: String,
    /// Binary or JSON; `None` follows the request's `binary_output`.
    pub binary: Option<bool>,
    /// Instead of the output, its so many highest elements as texts `VALUE:INDEX:LABEL`; at least 1.
    pub classification: Option<u64>,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The model that ran.
    pub model_name: String,
    /// Its version.
    pub model_version: Option<String>,
    /// The request's `id`.
    pub id: Option<String>,
    /// The outputs.
    pub outputs: Vec<Tensor>,
}

/// Why a body is refused or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OipError {
    /// No or another content type.
    #[error(
        "content type {0:?} is not served; use application/json, application/octet-stream with inference-header-content-length, or application/cbor"
    )]
    ContentType(String),
    /// Binary content without a valid header length.
    #[error(
        "application/octet-stream needs the user property inference-header-content-length with a whole number"
    )]
    HeaderLength,
    /// A header longer than the body.
    #[error("the header is said to have {header_length} bytes, the body has {body_bytes}")]
    HeaderPastEnd {
        /// What the property says.
        header_length: usize,
        /// What there is.
        body_bytes: usize,
    },
    /// Not JSON, or not OIP's JSON.
    #[error("not an Open Inference Protocol v2 body: {0}")]
    Json(#[from] serde_json::Error),
    /// Not the compact form.
    #[error(transparent)]
    Compact(#[from] crate::compact::CompactError),
    /// A request without inputs.
    #[error("the request has no inputs")]
    NoInputs,
    /// More tensors than allowed.
    #[error("more than {max} {what}", max = crate::limit::TENSORS_MAX)]
    TooMany {
        /// Inputs or outputs.
        what: &'static str,
    },
    /// Two tensors of one name.
    #[error("{0:?} stands twice")]
    Repeated(String),
    /// A tensor's type, shape or data.
    #[error("tensor {name:?}: {source}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// Bytes behind the last binary tensor.
    #[error("{0} bytes follow the last binary tensor")]
    Trailing(usize),
    /// An output that the chosen encoding cannot carry.
    #[error("output {name:?} cannot be written as {encoding}: {why}")]
    Unwritable {
        /// Name of the output.
        name: String,
        /// The encoding.
        encoding: &'static str,
        /// The reason.
        why: &'static str,
    },
}

impl From<UnknownDatatype> for TensorError {
    fn from(_: UnknownDatatype) -> Self {
        Self::Datatype
    }
}

impl Request {
    /// Reads a request. Binary and compact tensors share `body`'s memory.
    ///
    /// # Errors
    /// [`OipError`] says what is wrong with which tensor.
    pub fn decode(body: &Bytes, encoding: Encoding) -> Result<Self, OipError> {
        let request = match encoding {
            Encoding::Json => json::decode_request(body, Bytes::new())?,
            Encoding::Binary { header_length: 0 } => Self {
                inputs: Inputs::Raw(body.clone()),
                binary_output: true,
                ..Self::default()
            },
            Encoding::Binary { header_length } => {
                let (header, tensors) = binary::split(body, header_length)?;
                json::decode_request(&header, tensors)?
            }
            Encoding::Cbor => cbor::decode_request(body)?,
        };
        match &request.inputs {
            Inputs::Raw(data) if data.is_empty() => Err(OipError::NoInputs),
            Inputs::Named(tensors) if tensors.is_empty() => Err(OipError::NoInputs),
            Inputs::Raw(_) => Ok(request),
            Inputs::Named(tensors) => {
                check_names(tensors, |tensor| &tensor.name, "inputs")?;
                check_names(&request.outputs, |output| &output.name, "outputs")?;
                Ok(request)
            }
        }
    }

    /// Writes a request; the header length of a binary one is found here, so that of `encoding` is ignored.
    ///
    /// # Errors
    /// [`OipError::Unwritable`] when the encoding cannot carry a tensor.
    pub fn encode(&self, encoding: Encoding) -> Result<Body, OipError> {
        match encoding {
            Encoding::Json => json::encode_request(self, false),
            Encoding::Binary { .. } => json::encode_request(self, true),
            Encoding::Cbor => cbor::encode_request(self),
        }
    }

    /// The encoding in which this request, having come in `encoding`, is answered.
    #[must_use]
    pub fn answer_encoding(&self, encoding: Encoding) -> Encoding {
        match encoding {
            Encoding::Cbor => Encoding::Cbor,
            Encoding::Json | Encoding::Binary { .. } => {
                let wants_binary =
                    self.binary_output || self.outputs.iter().any(|o| o.binary == Some(true));
                if wants_binary {
                    Encoding::Binary { header_length: 0 }
                } else {
                    Encoding::Json
                }
            }
        }
    }

    /// Whether the output of this name is to come as a binary tensor.
    #[must_use]
    pub fn wants_binary(&self, output: &str) -> bool {
        self.outputs
            .iter()
            .find(|wanted| wanted.name == output)
            .and_then(|wanted| wanted.binary)
            .unwrap_or(self.binary_output)
    }
}

impl Answer {
    /// Writes the answer to `request`, which came in `encoding`.
    ///
    /// # Errors
    /// [`OipError::Unwritable`] when the encoding cannot carry an output, such as a NaN in JSON.
    pub fn encode(&self, request: &Request, encoding: Encoding) -> Result<Body, OipError> {
        match request.answer_encoding(encoding) {
            Encoding::Cbor => cbor::encode_answer(self),
            _ => json::encode_answer(self, |output| request.wants_binary(output)),
        }
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`OipError`] says what is wrong with which tensor.
    pub fn decode(body: &Bytes, encoding: Encoding) -> Result<Self, OipError> {
        match encoding {
            Encoding::Json => json::decode_answer(body, Bytes::new()),
            Encoding::Binary { header_length } => {
                let (header, tensors) = binary::split(body, header_length)?;
                json::decode_answer(&header, tensors)
            }
            Encoding::Cbor => cbor::decode_answer(body),
        }
    }

    /// The output of this name.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|tensor| tensor.name == name)
    }
}

/// Writes a failure in the encoding in which the request came: `{"error": message}`, or the compact failure.
#[must_use]
pub fn encode_failure(message: &str, encoding: Encoding) -> Body {
    match encoding {
        Encoding::Cbor => cbor::encode_failure(message),
        Encoding::Json | Encoding::Binary { .. } => json::encode_failure(message),
    }
}

/// Bounds the number of named things and refuses a name that stands twice.
fn check_names<T>(
    things: &[T],
    name: impl Fn(&T) -> &String,
    what: &'static str,
) -> Result<(), OipError> {
    if things.len() > crate::limit::TENSORS_MAX {
        return Err(OipError::TooMany { what });
    }
    let mut names: Vec<&String> = things.iter().map(name).collect();
    names.sort_unstable();
    match names.array_windows().find(|[a, b]| a == b) {
        Some([name, _]) => Err(OipError::Repeated((*name).clone())),
        None => Ok(()),
    }
}
