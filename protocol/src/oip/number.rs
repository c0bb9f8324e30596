//! Elements of a tensor between JSON and little-endian bytes, without loss: integers stay integers, and a number
//! out of the datatype's range is an error.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Datatype, TensorError, tensor::bytes_elements};

/// Reads nested or flat JSON `data` of at most `expected` elements.
pub(super) fn read(
    data: &RawValue,
    datatype: Datatype,
    expected: u64,
) -> Result<Bytes, TensorError> {
    // The text has at least two bytes an element, so what is reserved is bounded by what has arrived.
    let elements = usize::try_from(expected)
        .unwrap_or(usize::MAX)
        .min(data.get().len());
    let mut bytes = Vec::with_capacity(elements * datatype.element_bytes().unwrap_or(8));
    let mut count = 0;
    let elements = Elements {
        datatype,
        expected,
        count: &mut count,
        bytes: &mut bytes,
    };
    let mut json = serde_json::Deserializer::from_str(data.get());
    elements
        .deserialize(&mut json)
        .map_err(|error| TensorError::Element {
            datatype,
            why: error.to_string(),
        })?;
    if count == expected {
        Ok(bytes.into())
    } else {
        Err(TensorError::Length {
            expected,
            actual: count,
            unit: "elements",
        })
    }
}

struct Elements<'v> {
    datatype: Datatype,
    expected: u64,
    count: &'v mut u64,
    bytes: &'v mut Vec<u8>,
}

impl Elements<'_> {
    fn put<E: Error>(self, element: Option<&[u8]>, seen: impl fmt::Display) -> Result<(), E> {
        let element =
            element.ok_or_else(|| E::custom(format_args!("{seen} is out of its range or type")))?;
        *self.count += 1;
        if *self.count > self.expected {
            return Err(E::custom(format_args!(
                "more than the {} elements that the shape needs",
                self.expected
            )));
        }
        self.bytes.extend_from_slice(element);
        Ok(())
    }

    fn put_integer<E: Error>(self, v: i128) -> Result<(), E> {
        macro_rules! integer {
            ($type:ty) => {
                self.put(
                    <$type>::try_from(v)
                        .ok()
                        .map(|v| v.to_le_bytes())
                        .as_ref()
                        .map(|b| b.as_slice()),
                    v,
                )
            };
        }
        match self.datatype {
            Datatype::Uint8 => integer!(u8),
            Datatype::Uint16 => integer!(u16),
            Datatype::Uint32 => integer!(u32),
            Datatype::Uint64 => integer!(u64),
            Datatype::Int8 => integer!(i8),
            Datatype::Int16 => integer!(i16),
            Datatype::Int32 => integer!(i32),
            Datatype::Int64 => integer!(i64),
            // Whole numbers are valid floating-point elements; JSON integers are at most 64 bits wide.
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 =>
            {
                #[allow(
                    clippy::cast_precision_loss,
                    reason = "the datatype rounds, as JSON numbers do"
                )]
                self.put_float(v as f64)
            }
            Datatype::Bool | Datatype::Bytes => self.put(None, v),
        }
    }

    fn put_float<E: Error>(self, v: f64) -> Result<(), E> {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "rounding is what FP32 is; overflow is refused"
        )]
        let single = v as f32;
        match self.datatype {
            Datatype::Fp16 => {
                let half = half::f16::from_f64(v);
                let bytes = half.to_le_bytes();
                self.put(half.is_finite().then_some(bytes.as_slice()), v)
            }
            Datatype::Bf16 => {
                let brain = half::bf16::from_f64(v);
                let bytes = brain.to_le_bytes();
                self.put(brain.is_finite().then_some(bytes.as_slice()), v)
            }
            Datatype::Fp32 => {
                let bytes = single.to_le_bytes();
                self.put(single.is_finite().then_some(bytes.as_slice()), v)
            }
            Datatype::Fp64 => self.put(Some(&v.to_le_bytes()), v),
            _ => self.put(None, v),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements, flat or nested", self.datatype)
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<(), E> {
        let byte = [u8::from(v)];
        let fits = self.datatype == Datatype::Bool;
        self.put(fits.then_some(byte.as_slice()), v)
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<(), E> {
        self.put_integer(v.into())
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<(), E> {
        self.put_integer(v.into())
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<(), E> {
        self.put_float(v)
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<(), E> {
        let element = u32::try_from(v.len())
            .ok()
            .filter(|_| self.datatype == Datatype::Bytes)
            .map(|length| [&length.to_le_bytes(), v.as_bytes()].concat());
        self.put(element.as_deref(), "a text")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Elements {
            datatype,
            expected,
            count,
            bytes,
        } = self;
        while seq
            .next_element_seed(Elements {
                datatype,
                expected,
                count: &mut *count,
                bytes: &mut *bytes,
            })?
            .is_some()
        {}
        Ok(())
    }
}

/// Writes `data` as a flat JSON array onto `json`.
pub(super) fn write(
    json: &mut Vec<u8>,
    datatype: Datatype,
    data: &[u8],
) -> Result<(), &'static str> {
    macro_rules! numbers {
        ($size:literal, $read:expr) => {
            list(json, data.as_chunks::<$size>().0.iter().map(|b| $read(*b)))
        };
    }
    match datatype {
        Datatype::Bool => numbers!(1, |b: [u8; 1]| b != [0]),
        Datatype::Uint8 => numbers!(1, u8::from_le_bytes),
        Datatype::Uint16 => numbers!(2, u16::from_le_bytes),
        Datatype::Uint32 => numbers!(4, u32::from_le_bytes),
        Datatype::Uint64 => numbers!(8, u64::from_le_bytes),
        Datatype::Int8 => numbers!(1, i8::from_le_bytes),
        Datatype::Int16 => numbers!(2, i16::from_le_bytes),
        Datatype::Int32 => numbers!(4, i32::from_le_bytes),
        Datatype::Int64 => numbers!(8, i64::from_le_bytes),
        Datatype::Fp16 => numbers!(2, |b| Float(half::f16::from_le_bytes(b).to_f32())),
        Datatype::Bf16 => numbers!(2, |b| Float(half::bf16::from_le_bytes(b).to_f32())),
        Datatype::Fp32 => numbers!(4, |b| Float(f32::from_le_bytes(b))),
        Datatype::Fp64 => numbers!(8, |b| Float(f64::from_le_bytes(b))),
        Datatype::Bytes => list(
            json,
            bytes_elements(data).map(|element| Text(std::str::from_utf8(element))),
        ),
    }
}

fn list<T: serde::Serialize>(
    json: &mut Vec<u8>,
    elements: impl Iterator<Item = T>,
) -> Result<(), &'static str> {
    json.push(b'[');
    for (i, element) in elements.enumerate() {
        if i > 0 {
            json.push(b',');
        }
        serde_json::to_writer(&mut *json, &element).map_err(
            |_| "JSON has no NaN, no infinity and no text that is not UTF-8; ask for binary_data",
        )?;
    }
    json.push(b']');
    Ok(())
}

/// A float that JSON can carry; serialising NaN or an infinity fails instead of writing `null`.
struct Float<T>(T);

macro_rules! float {
    ($type:ty, $serialize:ident) => {
        impl serde::Serialize for Float<$type> {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if self.0.is_finite() {
                    s.$serialize(self.0)
                } else {
                    Err(serde::ser::Error::custom("not finite"))
                }
            }
        }
    };
}
float!(f32, serialize_f32);
float!(f64, serialize_f64);

struct Text<'a>(Result<&'a str, std::str::Utf8Error>);

impl serde::Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Ok(text) => s.serialize_str(text),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}
