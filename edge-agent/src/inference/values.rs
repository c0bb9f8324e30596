//! Tensors as ONNX Runtime's values and back: several requests' tensors as one value, one value as each request's part.

use std::marker::PhantomData;

use bytemuck::NoUninit;
use bytes::Bytes;
use edge_protocol::{
    Datatype,
    oip::{Tensor, TensorError},
};
use half::{bf16, f16};
use ort::{
    session::SessionInputValue,
    value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef},
};

use super::{graph::Port, model::ModelError};

/// Memory that a [`Buffer`] keeps from run to run.
const KEPT_BYTES: usize = 1 << 20;

/// Aligned memory for an input whose bytes lie in several places, or at an address that the processor dislikes.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<u64>);

impl Buffer {
    /// The parts one after the other.
    fn gather(&mut self, parts: &[&Tensor]) -> &[u8] {
        let bytes = parts.iter().map(|part| part.data.len()).sum::<usize>();
        let words = bytes.div_ceil(size_of::<u64>());
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        let mut rest: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        for part in parts {
            // There is room for all of them.
            let Some((place, behind)) = rest.split_at_mut_checked(part.data.len()) else {
                break;
            };
            place.copy_from_slice(&part.data);
            rest = behind;
        }
        bytemuck::cast_slice(&self.0)
            .get(..bytes)
            .unwrap_or_default()
    }

    /// Lets go of what only a large request needed.
    pub(super) fn shrink(&mut self) {
        if self.0.len() * size_of::<u64>() > KEPT_BYTES {
            self.0 = Vec::new();
        }
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

/// The runtime's value for the same input of several requests, one below the other; at least one. The value of one
/// request is its message's own memory, where that is aligned.
pub(super) fn to_value<'a>(
    parts: &[&'a Tensor],
    buffer: &'a mut Buffer,
) -> Result<SessionInputValue<'a>, ModelError> {
    let Some((first, others)) = parts.split_first() else {
        return Err(ModelError::RawInputs(0));
    };
    let mut shape: Vec<i64> = first
        .shape
        .iter()
        .map(|dimension| i64::try_from(*dimension).unwrap_or(i64::MAX))
        .collect();
    if let Some(rows) = shape.first_mut()
        && !others.is_empty()
    {
        let all = parts
            .iter()
            .filter_map(|part| part.shape.first())
            .sum::<u64>();
        *rows = i64::try_from(all).unwrap_or(i64::MAX);
    }
    macro_rules! number {
        ($type:ty) => {{
            let in_place = bytemuck::try_cast_slice::<u8, $type>(&first.data);
            let data: &'a [$type] = match in_place {
                Ok(data) if others.is_empty() => data,
                _ => bytemuck::cast_slice(buffer.gather(parts)),
            };
            TensorRef::from_array_view((shape, data))?.into()
        }};
    }
    Ok(match first.datatype {
        Datatype::Bool => {
            let bytes = parts.iter().flat_map(|part| part.data.iter());
            let data: Vec<bool> = bytes.map(|byte| *byte != 0).collect();
            ort::value::Tensor::from_array((shape, data))?.into()
        }
        Datatype::Bytes => {
            let elements = parts.iter().flat_map(|part| part.elements());
            let texts: Result<Vec<String>, _> = elements.map(text).collect();
            let texts = texts.map_err(|why| ModelError::Tensor {
                name: first.name.clone(),
                source: TensorError::Element {
                    datatype: Datatype::Bytes,
                    why: format!("the model takes text: {why}"),
                },
            })?;
            ort::value::Tensor::from_string_array((shape, texts.as_slice()))?.into()
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

/// Numbers where ONNX Runtime has put them.
struct InPlace<T> {
    value: DynValue,
    of: PhantomData<T>,
}

impl<T: PrimitiveTensorElementType + NoUninit> AsRef<[u8]> for InPlace<T> {
    fn as_ref(&self) -> &[u8] {
        let numbers = self.value.try_extract_tensor::<T>();
        // They were extracted before, so they can be.
        numbers.map_or(&[], |(_, data)| bytemuck::cast_slice(data))
    }
}

/// The tensor for one of the runtime's values; numbers stay where they are.
pub(super) fn from_value(port: &Port, value: DynValue) -> Result<Tensor, ModelError> {
    macro_rules! number {
        ($type:ty) => {{
            let shape = value.try_extract_tensor::<$type>()?.0.to_vec();
            let of = PhantomData::<$type>;
            (shape, Bytes::from_owner(InPlace { value, of }))
        }};
    }
    let (shape, data) = match port.datatype {
        Datatype::Bool => {
            let (shape, data) = value.try_extract_tensor::<bool>()?;
            let data: Vec<u8> = data.iter().map(|element| u8::from(*element)).collect();
            (shape.to_vec(), data.into())
        }
        Datatype::Bytes => {
            let (shape, texts) = value.try_extract_strings()?;
            let data: Vec<u8> = texts
                .iter()
                .flat_map(|text| {
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
                    length.into_iter().chain(text.bytes())
                })
                .collect();
            (shape.to_vec(), data.into())
        }
        datatype => for_number!(datatype, number),
    };
    let shape = shape
        .iter()
        .map(|dimension| u64::try_from(*dimension).unwrap_or(0))
        .collect();
    Tensor::new(port.name.clone(), port.datatype, shape, data).map_err(|source| {
        ModelError::Tensor {
            name: port.name.clone(),
            source,
        }
    })
}

/// Each request's part of an output, by the rows of each; all of it for a single request.
pub(super) fn split(output: Tensor, rows: &[usize]) -> Result<Vec<Tensor>, ModelError> {
    if rows.len() == 1 {
        return Ok(vec![output]);
    }
    let all = rows.iter().sum::<usize>();
    let actual = output.shape.first().copied();
    if actual != Some(all as u64) || all == 0 {
        return Err(ModelError::Rows {
            name: output.name,
            expected: all,
            actual,
        });
    }
    let mut ends = row_ends(&output, all);
    let mut start = 0;
    let mut parts = Vec::with_capacity(rows.len());
    for rows in rows {
        let end = rows
            .checked_sub(1)
            .and_then(|last| ends.nth(last))
            .unwrap_or(start);
        let mut shape = output.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = *rows as u64;
        }
        parts.push(Tensor {
            name: output.name.clone(),
            datatype: output.datatype,
            shape,
            data: output.data.slice(start..end),
        });
        start = end;
    }
    Ok(parts)
}

/// Where each row of a tensor ends, in bytes.
fn row_ends(tensor: &Tensor, rows: usize) -> Box<dyn Iterator<Item = usize> + '_> {
    if tensor.datatype.element_bytes().is_some() {
        let row = tensor.data.len() / rows;
        return Box::new((1..=rows).map(move |number| number * row));
    }
    let elements = tensor.elements().count() / rows;
    let mut end = 0;
    let ends = tensor.elements().map(move |element| {
        end += size_of::<u32>() + element.len();
        end
    });
    if elements == 0 {
        return Box::new(std::iter::repeat_n(0, rows));
    }
    Box::new(ends.skip(elements - 1).step_by(elements))
}

pub(super) fn to_datatype(element: &TensorElementType) -> Option<Datatype> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(shape: Vec<u64>, texts: &[&str]) -> Tensor {
        let data: Vec<u8> = texts
            .iter()
            .flat_map(|text| {
                let length = u32::try_from(text.len()).unwrap().to_le_bytes();
                length.into_iter().chain(text.bytes())
            })
            .collect();
        Tensor::new("t".into(), Datatype::Bytes, shape, data.into()).unwrap()
    }

    #[test]
    fn every_request_gets_its_own_rows() {
        let values: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let output = Tensor::from_f32("y", vec![6, 2], &values).unwrap();
        let parts = split(output, &[1, 3, 2]).unwrap();
        let expected = [(1, 0..2), (3, 2..8), (2, 8..12)];
        for (part, (rows, values)) in parts.iter().zip(expected) {
            let values: Vec<f32> = values.map(|value: u8| f32::from(value)).collect();
            assert_eq!(
                *part,
                Tensor::from_f32("y", vec![rows, 2], &values).unwrap()
            );
        }
        let output = texts(vec![3, 2], &["a", "bb", "", "dddd", "e", "f"]);
        let parts = split(output, &[2, 1]).unwrap();
        assert_eq!(parts[0], texts(vec![2, 2], &["a", "bb", "", "dddd"]));
        assert_eq!(parts[1], texts(vec![1, 2], &["e", "f"]));
        let nothing = split(texts(vec![3, 0], &[]), &[2, 1]).unwrap();
        assert_eq!(nothing[0], texts(vec![2, 0], &[]));
    }

    #[test]
    fn an_output_without_the_rows_of_all_is_not_split() {
        let output = || Tensor::from_f32("y", vec![1, 2], &[1.0, 2.0]).unwrap();
        assert!(matches!(
            split(output(), &[1, 1]),
            Err(ModelError::Rows { expected: 2, .. })
        ));
        assert_eq!(
            split(output(), &[3]).unwrap(),
            [output()],
            "alone, all of it is its own"
        );
    }

    #[test]
    fn parts_are_gathered_in_order_and_aligned() {
        let (a, b) = (
            Tensor::from_f32("x", vec![1, 3], &[1.0, 2.0, 3.0]).unwrap(),
            Tensor::from_f32("x", vec![2, 1], &[4.0, 5.0]).unwrap(),
        );
        let mut buffer = Buffer::default();
        let gathered: &[f32] = bytemuck::cast_slice(buffer.gather(&[&a, &b]));
        assert_eq!(gathered, [1.0, 2.0, 3.0, 4.0, 5.0]);
        let again: &[f32] = bytemuck::cast_slice(buffer.gather(&[&b]));
        assert_eq!(again, [4.0, 5.0]);
    }
}
