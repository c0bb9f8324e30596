//! Compact form of requests and answers: CBOR (RFC 8949) that a microcontroller writes and reads without an allocator.
//!
//! ```text
//! request = { ? 1: timeout_us uint, 2: [* tensor], ? 3: [* output name text] }
//! answer  = { ? 1: model version text, 2: [* tensor] }
//! failure = { 4: message text }
//! tensor  = [ name text, datatype code uint, [* dimension uint], data bytes ]
//! ```
//!
//! `data` holds the elements little-endian in row-major order, `BYTES` elements each behind a 4-byte length.
//! Unknown map keys are skipped, so that later versions can add some. Indefinite lengths are refused.

use heapless::Vec;
use minicbor::{
    Decoder, Encoder,
    data::Type,
    decode, encode,
    encode::{Write, write::Cursor},
};

use crate::{Datatype, limit};

/// Tensors of one compact request or answer.
pub const TENSORS_MAX: usize = 8;
/// Dimensions of a tensor.
pub type Shape = Vec<u32, { limit::DIMENSIONS_MAX }>;

const TIMEOUT_OR_VERSION: u8 = 1;
const TENSORS: u8 = 2;
const OUTPUTS: u8 = 3;
const MESSAGE: u8 = 4;

/// A tensor whose name and data lie in the buffer it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<'a> {
    /// Name of the model's input or output.
    pub name: &'a str,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, outermost first.
    pub shape: Shape,
    /// Elements, little-endian.
    pub data: &'a [u8],
}

/// A request for inference.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request<'a> {
    /// Latest answer that is of use, in microseconds after arrival.
    pub timeout_us: Option<u64>,
    /// The model's inputs.
    pub inputs: Vec<Tensor<'a>, TENSORS_MAX>,
    /// Outputs wanted; empty means all.
    pub outputs: Vec<&'a str, TENSORS_MAX>,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is no allocator to box with"
)]
pub enum Answer<'a> {
    /// The model's outputs.
    Outputs {
        /// Version of the model that ran.
        model_version: Option<&'a str>,
        /// The outputs.
        outputs: Vec<Tensor<'a>, TENSORS_MAX>,
    },
    /// What was wrong.
    Failure(&'a str),
}

/// The buffer is too small for what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the buffer is too small for the compact form")]
pub struct BufferFull;

/// Why bytes are not a compact request or answer.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// Not CBOR, or not of the expected types.
    #[error("not the compact CBOR form: {0}")]
    Cbor(#[from] decode::Error),
    /// A container of indefinite length.
    #[error("indefinite lengths are not allowed")]
    Indefinite,
    /// More tensors, names or dimensions than allowed.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A datatype code that the protocol does not have.
    #[error("unknown datatype code {0}")]
    Datatype(u8),
    /// A map without the key that carries the tensors or the message.
    #[error("key {0} is missing")]
    Missing(u8),
    /// Bytes after the end.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
}

impl<'a> Request<'a> {
    /// Writes the request into `buffer` and returns its length in bytes.
    ///
    /// # Errors
    /// [`BufferFull`] when `buffer` is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        let mut encoder = Encoder::new(Cursor::new(buffer));
        self.write(&mut encoder).map_err(|_| BufferFull)?;
        Ok(encoder.into_writer().position())
    }

    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), encode::Error<W::Error>> {
        let keys = 1 + u64::from(self.timeout_us.is_some()) + u64::from(!self.outputs.is_empty());
        e.map(keys)?;
        if let Some(timeout_us) = self.timeout_us {
            e.u8(TIMEOUT_OR_VERSION)?.u64(timeout_us)?;
        }
        write_tensors(e, &self.inputs)?;
        if !self.outputs.is_empty() {
            e.u8(OUTPUTS)?.array(self.outputs.len() as u64)?;
            for name in &self.outputs {
                e.str(name)?;
            }
        }
        Ok(())
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`CompactError`] for whatever is not a whole request and nothing else.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CompactError> {
        let mut request = Self::default();
        let mut seen_inputs = false;
        read_map(bytes, |key, d| {
            match key {
                TIMEOUT_OR_VERSION => request.timeout_us = Some(d.u64()?),
                TENSORS => {
                    request.inputs = read_tensors(d)?;
                    seen_inputs = true;
                }
                OUTPUTS => {
                    for _ in 0..definite(d.array()?)? {
                        let name = d.str()?;
                        request
                            .outputs
                            .push(name)
                            .map_err(|_| CompactError::TooMany("outputs"))?;
                    }
                }
                _ => d.skip()?,
            }
            Ok(())
        })?;
        if seen_inputs {
            Ok(request)
        } else {
            Err(CompactError::Missing(TENSORS))
        }
    }
}

impl<'a> Answer<'a> {
    /// Writes the answer into `buffer` and returns its length in bytes.
    ///
    /// # Errors
    /// [`BufferFull`] when `buffer` is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        let mut encoder = Encoder::new(Cursor::new(buffer));
        self.write(&mut encoder).map_err(|_| BufferFull)?;
        Ok(encoder.into_writer().position())
    }

    /// Length of the encoded answer at most, in bytes.
    #[must_use]
    pub fn encoded_max_bytes(&self) -> usize {
        match self {
            Self::Failure(message) => 16 + message.len(),
            Self::Outputs {
                model_version,
                outputs,
            } => {
                let tensors: usize = outputs
                    .iter()
                    .map(|t| 32 + t.name.len() + 5 * t.shape.len() + t.data.len())
                    .sum();
                32 + model_version.map_or(0, str::len) + tensors
            }
        }
    }

    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), encode::Error<W::Error>> {
        match self {
            Self::Failure(message) => {
                e.map(1)?.u8(MESSAGE)?.str(message)?;
            }
            Self::Outputs {
                model_version,
                outputs,
            } => {
                e.map(1 + u64::from(model_version.is_some()))?;
                if let Some(version) = model_version {
                    e.u8(TIMEOUT_OR_VERSION)?.str(version)?;
                }
                write_tensors(e, outputs)?;
            }
        }
        Ok(())
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`CompactError`] for whatever is not a whole answer and nothing else.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CompactError> {
        let (mut version, mut outputs, mut failure) = (None, None, None);
        read_map(bytes, |key, d| {
            match key {
                TIMEOUT_OR_VERSION => version = Some(d.str()?),
                TENSORS => outputs = Some(read_tensors(d)?),
                MESSAGE => failure = Some(d.str()?),
                _ => d.skip()?,
            }
            Ok(())
        })?;
        match (outputs, failure) {
            (_, Some(message)) => Ok(Self::Failure(message)),
            (Some(outputs), None) => Ok(Self::Outputs {
                model_version: version,
                outputs,
            }),
            (None, None) => Err(CompactError::Missing(TENSORS)),
        }
    }
}

fn write_tensors<W: Write>(
    e: &mut Encoder<W>,
    tensors: &[Tensor<'_>],
) -> Result<(), encode::Error<W::Error>> {
    e.u8(TENSORS)?.array(tensors.len() as u64)?;
    for tensor in tensors {
        e.array(4)?.str(tensor.name)?.u8(tensor.datatype.code())?;
        e.array(tensor.shape.len() as u64)?;
        for dimension in &tensor.shape {
            e.u32(*dimension)?;
        }
        e.bytes(tensor.data)?;
    }
    Ok(())
}

/// Calls `value` for each key of the one map that `bytes` must be.
fn read_map<'a>(
    bytes: &'a [u8],
    mut value: impl FnMut(u8, &mut Decoder<'a>) -> Result<(), CompactError>,
) -> Result<(), CompactError> {
    let mut d = Decoder::new(bytes);
    for _ in 0..definite(d.map()?)? {
        // Keys of later versions may be of any type; the value behind one is skipped by `value`.
        let key = match d.datatype()? {
            Type::U8 => d.u8()?,
            _ => {
                d.skip()?;
                u8::MAX
            }
        };
        value(key, &mut d)?;
    }
    match bytes.len().saturating_sub(d.position()) {
        0 => Ok(()),
        rest => Err(CompactError::Trailing(rest)),
    }
}

fn read_tensors<'a>(d: &mut Decoder<'a>) -> Result<Vec<Tensor<'a>, TENSORS_MAX>, CompactError> {
    let mut tensors = Vec::new();
    for _ in 0..definite(d.array()?)? {
        if definite(d.array()?)? != 4 {
            return Err(decode::Error::message("a tensor is an array of 4").into());
        }
        let name = d.str()?;
        let code = d.u8()?;
        let datatype = Datatype::from_code(code).map_err(|_| CompactError::Datatype(code))?;
        let mut shape = Shape::new();
        for _ in 0..definite(d.array()?)? {
            let dimension = d.u32()?;
            shape
                .push(dimension)
                .map_err(|_| CompactError::TooMany("dimensions"))?;
        }
        let data = d.bytes()?;
        let tensor = Tensor {
            name,
            datatype,
            shape,
            data,
        };
        tensors
            .push(tensor)
            .map_err(|_| CompactError::TooMany("tensors"))?;
    }
    Ok(tensors)
}

fn definite(length: Option<u64>) -> Result<u64, CompactError> {
    length.ok_or(CompactError::Indefinite)
}
