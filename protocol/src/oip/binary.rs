//! Binary tensor extension: where the JSON header ends and the tensors begin.

use bytes::Bytes;

use super::{OipError, TensorError};

/// Splits a body into its JSON header and the tensors behind it.
pub(super) fn split(body: &Bytes, header_length: usize) -> Result<(Bytes, Bytes), OipError> {
    if header_length > body.len() {
        return Err(OipError::HeaderPastEnd {
            header_length,
            body_bytes: body.len(),
        });
    }
    Ok((body.slice(..header_length), body.slice(header_length..)))
}

/// Takes the next tensor's `size` bytes off the front of `rest`.
pub(super) fn take(rest: &mut Bytes, size: u64) -> Result<Bytes, TensorError> {
    match usize::try_from(size) {
        Ok(length) if length <= rest.len() => Ok(rest.split_to(length)),
        _ => Err(TensorError::BinaryPastEnd {
            announced: size,
            left: rest.len() as u64,
        }),
    }
}
