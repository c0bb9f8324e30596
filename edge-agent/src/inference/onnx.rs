//! Finds the weights in an ONNX file (protobuf, `onnx.proto3`), as far as sharing them needs. Pure; takes any bytes, and
//! passes over what it does not understand: ONNX Runtime judges the file.

use std::collections::BTreeSet;

use edge_protocol::Datatype;

/// Smaller ones are not worth sharing, and may be what shapes are made of.
const SHARED_MIN_BYTES: usize = 64 << 10;
/// Most of them.
const WEIGHTS_MAX: usize = 65_536;

/// A constant tensor of a graph.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Weight<'a> {
    pub(super) name: &'a str,
    pub(super) datatype: Datatype,
    pub(super) shape: Vec<i64>,
    /// Elements, little-endian, row-major.
    pub(super) data: &'a [u8],
}

/// The large weights of a model that lie in the file itself and that no input of the graph can replace.
pub(super) fn weights(model: &[u8]) -> Vec<Weight<'_>> {
    // ModelProto.graph is field 7; of GraphProto, initializer is 5 and input is 11.
    let graph = || submessages(model, 7);
    let inputs: BTreeSet<&str> = graph()
        .flat_map(|graph| submessages(graph, 11))
        .filter_map(|input| text(input, 1))
        .collect();
    let mut seen = BTreeSet::new();
    graph()
        .flat_map(|graph| submessages(graph, 5))
        .filter_map(weight)
        .filter(|weight| weight.data.len() >= SHARED_MIN_BYTES)
        .filter(|weight| !inputs.contains(weight.name) && seen.insert(weight.name))
        .take(WEIGHTS_MAX)
        .collect()
}

/// A TensorProto whose elements are raw bytes.
fn weight(tensor: &[u8]) -> Option<Weight<'_>> {
    let mut datatype = None;
    let mut shape = Vec::new();
    let mut data = None;
    for field in fields(tensor) {
        match field {
            (1, Value::Number(length)) => shape.push(i64::try_from(length).ok()?),
            (1, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    shape.push(i64::try_from(varint(&mut packed)?).ok()?);
                }
            }
            // TensorProto.DataType.
            (2, Value::Number(kind)) => {
                datatype = Some(match kind {
                    1 => Datatype::Fp32,
                    2 => Datatype::Uint8,
                    3 => Datatype::Int8,
                    10 => Datatype::Fp16,
                    _ => return None,
                });
            }
            (9, Value::Bytes(bytes)) => data = Some(bytes),
            // A segment, or data in another file.
            (3 | 13, _) | (14, Value::Number(1)) => return None,
            _ => {}
        }
    }
    let (datatype, data) = (datatype?, data?);
    let elements = shape.iter().try_fold(1_usize, |product, length| {
        product.checked_mul(usize::try_from(*length).ok()?)
    })?;
    let bytes = elements.checked_mul(datatype.element_bytes()?)?;
    (bytes == data.len()).then_some(Weight {
        name: text(tensor, 8)?,
        datatype,
        shape,
        data,
    })
}

/// What a field holds.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, up to the first that is not understood.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        let key = varint(&mut message)?;
        // https://protobuf.dev/programming-guides/encoding/#structure
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)?),
            1 => Value::Bytes(message.split_off(..8)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Value::Bytes(message.split_off(..length)?)
            }
            5 => Value::Bytes(message.split_off(..4)?),
            _ => return None,
        };
        Some((key >> 3, value))
    })
}

fn submessages(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |field| match field {
        (found, Value::Bytes(bytes)) if found == number => Some(bytes),
        _ => None,
    })
}

fn text(message: &[u8], number: u64) -> Option<&str> {
    std::str::from_utf8(submessages(message, number).next()?).ok()
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut length = bytes.len();
        let mut field = vec![number << 3 | 2];
        let low = |length: usize| u8::try_from(length % 0x80).unwrap();
        while length >= 0x80 {
            field.push(low(length) | 0x80);
            length /= 0x80;
        }
        field.push(low(length));
        field.extend(bytes);
        field
    }

    fn tensor(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
        // 160 rows of 128: dims unpacked, data type, name, raw data.
        let numbers = [1 << 3, 160, 1, 1 << 3, 128, 1, 2 << 3, kind].to_vec();
        [numbers, field(8, name.as_bytes()), field(9, data)].concat()
    }

    fn model(tensors: &[Vec<u8>], input: &str) -> Vec<u8> {
        let tensors = tensors.iter().flat_map(|tensor| field(5, tensor));
        let input = field(11, &field(1, input.as_bytes()));
        let graph: Vec<u8> = tensors.chain(input).collect();
        [field(2, b"a producer"), field(7, &graph)].concat()
    }

    #[test]
    fn large_weights_in_the_file_are_found() {
        let (floats, bytes) = (vec![1; 160 * 128 * 4], vec![2; 160 * 128]);
        let external = [tensor("outside", 1, &floats), vec![14 << 3, 1]].concat();
        let all = model(
            &[
                tensor("w", 1, &floats),
                tensor("w", 1, &floats),
                tensor("small", 3, &bytes),
                tensor("torn", 1, &floats[1..]),
                tensor("texts", 8, &floats),
                tensor("given", 1, &floats),
                external,
            ],
            "given",
        );
        let found = weights(&all);
        let wanted = Weight {
            name: "w",
            datatype: Datatype::Fp32,
            shape: vec![160, 128],
            data: &floats,
        };
        assert_eq!(found, [wanted]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..512), cut in 0..200_000_usize) {
            weights(&bytes);
            let whole = model(&[tensor("w", 1, &vec![1; 160 * 128 * 4])], "x");
            weights(&whole[..cut.min(whole.len())]);
            let nested = [field(7, &field(5, &bytes)), bytes].concat();
            weights(&nested);
        }
    }
}
