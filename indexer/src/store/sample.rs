//! How a message's metrics are packed into one blob: for each metric its name's key and its value.
//!
//! A key is a LEB128 number, then comes a tag byte, then the value: integers as LEB128 (zigzag where they have a
//! sign), doubles as 8 little-endian bytes, text as its length and UTF-8.

use edge_protocol::sparkplug::Value;

mod tag {
    pub(super) const FALSE: u8 = 0;
    pub(super) const TRUE: u8 = 1;
    pub(super) const UINT: u8 = 2;
    pub(super) const INT: u8 = 3;
    pub(super) const DOUBLE: u8 = 4;
    pub(super) const TEXT: u8 = 5;
}

/// Appends one metric.
pub(super) fn push(blob: &mut Vec<u8>, name_key: u64, value: &Value) {
    number(blob, name_key);
    match value {
        Value::Bool(v) => blob.push(if *v { tag::TRUE } else { tag::FALSE }),
        Value::UInt(v) => {
            blob.push(tag::UINT);
            number(blob, *v);
        }
        Value::Int(v) => {
            blob.push(tag::INT);
            number(blob, ((v << 1) ^ (v >> 63)).cast_unsigned());
        }
        Value::Double(v) => {
            blob.push(tag::DOUBLE);
            blob.extend_from_slice(&v.to_le_bytes());
        }
        Value::Text(text) => {
            blob.push(tag::TEXT);
            number(blob, text.len() as u64);
            blob.extend_from_slice(text.as_bytes());
        }
    }
}

/// The value of the metric with this key; `None` when the blob has it not, or is damaged before it.
pub(super) fn find(mut blob: &[u8], name_key: u64) -> Option<Value> {
    while !blob.is_empty() {
        let (key, value) = next(&mut blob)?;
        if key == name_key {
            return Some(value);
        }
    }
    None
}

fn next(blob: &mut &[u8]) -> Option<(u64, Value)> {
    let key = take_number(blob)?;
    let (tag, rest) = blob.split_first()?;
    *blob = rest;
    let value = match *tag {
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        tag::UINT => Value::UInt(take_number(blob)?),
        tag::INT => {
            let zigzag = take_number(blob)?;
            Value::Int((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
        }
        tag::DOUBLE => {
            let (bytes, rest) = blob.split_first_chunk::<8>()?;
            *blob = rest;
            Value::Double(f64::from_le_bytes(*bytes))
        }
        tag::TEXT => {
            let length = usize::try_from(take_number(blob)?).ok()?;
            let (bytes, rest) = blob.split_at_checked(length)?;
            *blob = rest;
            Value::Text(std::str::from_utf8(bytes).ok()?.to_owned())
        }
        _ => return None,
    };
    Some((key, value))
}

fn number(blob: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            blob.push(low);
            return;
        }
        blob.push(low | 0x80);
    }
}

fn take_number(blob: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = blob.split_first()?;
        *blob = rest;
        let low = u64::from(byte & 0x7f);
        value |= low.checked_shl(shift).filter(|v| v >> shift == low)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<u64>().prop_map(Value::UInt),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300).prop_map(Value::Double),
            ".{0,40}".prop_map(Value::Text),
        ]
    }

    proptest! {
        #[test]
        fn what_is_packed_is_found(values in prop::collection::vec(value(), 0..20)) {
            let mut blob = Vec::new();
            for (key, value) in values.iter().enumerate() {
                push(&mut blob, key as u64 * 1_000, value);
            }
            for (key, value) in values.iter().enumerate() {
                let found = find(&blob, key as u64 * 1_000);
                prop_assert_eq!(found.as_ref(), Some(value));
            }
            prop_assert_eq!(find(&blob, u64::MAX), None);
        }

        #[test]
        fn a_damaged_blob_is_no_panic(blob: Vec<u8>, key: u64) {
            find(&blob, key);
        }
    }
}
