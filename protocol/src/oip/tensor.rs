//! A tensor on a host: name, type, shape and little-endian data that agree with each other.

use bytes::Bytes;

use super::Datatype;
use crate::limit;

/// A tensor whose data has exactly the elements that its shape says.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Name of the model's input or output.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, outermost first; empty = a scalar.
    pub shape: Vec<u64>,
    /// Elements, little-endian, row-major; `BYTES` elements each behind a 4-byte length.
    pub data: Bytes,
}

/// What is wrong with a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// A datatype that the protocol does not have.
    #[error("unknown datatype")]
    Datatype,
    /// A name that is empty or too long.
    #[error("the name is empty or longer than {max} bytes", max = limit::TENSOR_NAME_MAX_BYTES)]
    Name,
    /// Too many dimensions.
    #[error("more than {max} dimensions", max = limit::DIMENSIONS_MAX)]
    Dimensions,
    /// A shape whose element count is beyond any request's size.
    #[error("the shape has more elements than a request can carry")]
    TooLarge,
    /// Data that does not fill the shape.
    #[error("the shape needs {expected} {unit}, the data has {actual}")]
    Length {
        /// What the shape needs.
        expected: u64,
        /// What there is.
        actual: u64,
        /// Bytes or elements.
        unit: &'static str,
    },
    /// Neither JSON data nor a binary size, or both.
    #[error("needs either \"data\" or the parameter \"binary_data_size\"")]
    NoData,
    /// A JSON element of the wrong type or out of the datatype's range.
    #[error("the data does not fit {datatype}: {why}")]
    Element {
        /// The tensor's datatype.
        datatype: Datatype,
        /// What the parser says.
        why: String,
    },
    /// More binary data announced than the body has.
    #[error("binary_data_size is {announced} bytes, the body has {left} left")]
    BinaryPastEnd {
        /// Announced bytes.
        announced: u64,
        /// Bytes left.
        left: u64,
    },
}

impl Tensor {
    /// Checks name, shape and data against each other.
    ///
    /// # Errors
    /// [`TensorError`] says what does not agree.
    pub fn new(
        name: String,
        datatype: Datatype,
        shape: Vec<u64>,
        data: Bytes,
    ) -> Result<Self, TensorError> {
        if name.is_empty() || name.len() > limit::TENSOR_NAME_MAX_BYTES {
            return Err(TensorError::Name);
        }
        let expected = element_count(&shape)?;
        let bytes = data.len() as u64;
        match datatype.element_bytes() {
            Some(size) if expected.saturating_mul(size as u64) != bytes => {
                return Err(TensorError::Length {
                    expected: expected.saturating_mul(size as u64),
                    actual: bytes,
                    unit: "bytes",
                });
            }
            Some(_) => {}
            None => {
                let actual = count_bytes_elements(&data)?;
                if actual != expected {
                    return Err(TensorError::Length {
                        expected,
                        actual,
                        unit: "elements",
                    });
                }
            }
        }
        Ok(Self {
            name,
            datatype,
            shape,
            data,
        })
    }

    /// A tensor of `FP32` values.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_f32(name: &str, shape: Vec<u64>, values: &[f32]) -> Result<Self, TensorError> {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name.to_owned(), Datatype::Fp32, shape, data.into())
    }

    /// The elements as whole numbers, where the datatype is an integer that fits.
    #[must_use]
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        fn each<const N: usize>(data: &[u8], read: fn([u8; N]) -> i64) -> Vec<i64> {
            data.as_chunks::<N>().0.iter().map(|c| read(*c)).collect()
        }
        let data = &self.data;
        Some(match self.datatype {
            Datatype::Int8 => each(data, |b: [u8; 1]| i8::from_le_bytes(b).into()),
            Datatype::Int16 => each(data, |b| i16::from_le_bytes(b).into()),
            Datatype::Int32 => each(data, |b| i32::from_le_bytes(b).into()),
            Datatype::Int64 => each(data, i64::from_le_bytes),
            Datatype::Uint8 => each(data, |b: [u8; 1]| u8::from_le_bytes(b).into()),
            Datatype::Uint16 => each(data, |b| u16::from_le_bytes(b).into()),
            Datatype::Uint32 => each(data, |b| u32::from_le_bytes(b).into()),
            _ => return None,
        })
    }

    /// The elements of a `BYTES` tensor.
    pub fn elements(&self) -> impl Iterator<Item = &[u8]> {
        bytes_elements(&self.data)
    }

    /// Index of the first element that is NaN or infinite, for the floating-point datatypes.
    #[must_use]
    pub fn first_non_finite(&self) -> Option<usize> {
        fn find<const N: usize>(data: &[u8], finite: fn([u8; N]) -> bool) -> Option<usize> {
            data.as_chunks::<N>().0.iter().position(|c| !finite(*c))
        }
        match self.datatype {
            Datatype::Fp16 => find(&self.data, |b| half::f16::from_le_bytes(b).is_finite()),
            Datatype::Bf16 => find(&self.data, |b| half::bf16::from_le_bytes(b).is_finite()),
            Datatype::Fp32 => find(&self.data, |b| f32::from_le_bytes(b).is_finite()),
            Datatype::Fp64 => find(&self.data, |b| f64::from_le_bytes(b).is_finite()),
            _ => None,
        }
    }
}

/// Elements of a shape.
///
/// # Errors
/// [`TensorError::Dimensions`] and [`TensorError::TooLarge`].
pub(super) fn element_count(shape: &[u64]) -> Result<u64, TensorError> {
    if shape.len() > limit::DIMENSIONS_MAX {
        return Err(TensorError::Dimensions);
    }
    // A zero makes the product zero whatever the others are, so the bound is on the others alone.
    let nonzero = shape
        .iter()
        .filter(|d| **d != 0)
        .try_fold(1_u64, |product, d| product.checked_mul(*d));
    match nonzero {
        Some(count) if count <= limit::PACKET_MAX_BYTES.into() => {
            Ok(if shape.contains(&0) { 0 } else { count })
        }
        _ => Err(TensorError::TooLarge),
    }
}

fn count_bytes_elements(data: &[u8]) -> Result<u64, TensorError> {
    let (mut rest, mut count) = (data, 0);
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        rest = tail
            .get(length as usize..)
            .ok_or(TensorError::BinaryPastEnd {
                announced: length.into(),
                left: tail.len() as u64,
            })?;
        count += 1;
    }
    if rest.is_empty() {
        Ok(count)
    } else {
        Err(TensorError::Length {
            expected: 4,
            actual: rest.len() as u64,
            unit: "bytes of an element's length",
        })
    }
}

/// The elements of `BYTES` data that [`Tensor::new`] has accepted.
pub(super) fn bytes_elements(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (element, after) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        Some(element)
    })
}
