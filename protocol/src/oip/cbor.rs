//! Between the host's types and the compact form.

use bytes::Bytes;

use super::{Answer, Body, Encoding, Inputs, OipError, Request, Tensor, WantedOutput};
use crate::compact;

pub(super) fn decode_request(body: &Bytes) -> Result<Request, OipError> {
    let request = compact::Request::decode(body)?;
    Ok(Request {
        id: None,
        timeout_us: request.timeout_us,
        priority: None,
        binary_output: true,
        inputs: Inputs::Named(own_all(body, &request.inputs)?),
        outputs: request
            .outputs
            .iter()
            .map(|name| WantedOutput {
                name: (*name).to_owned(),
                binary: None,
                classification: None,
            })
            .collect(),
    })
}

pub(super) fn encode_request(request: &Request) -> Result<Body, OipError> {
    let Inputs::Named(inputs) = &request.inputs else {
        return Err(unwritable("", "a raw tensor has no name"));
    };
    let mut compact = compact::Request {
        timeout_us: request.timeout_us,
        inputs: borrow_all(inputs)?,
        ..compact::Request::default()
    };
    for wanted in &request.outputs {
        compact
            .outputs
            .push(&wanted.name)
            .map_err(|_| unwritable(&wanted.name, "too many outputs"))?;
    }
    let names: usize = request.outputs.iter().map(|o| o.name.len() + 9).sum();
    let tensors: usize = inputs
        .iter()
        .map(|t| 80 + t.name.len() + t.data.len())
        .sum();
    let mut buffer = vec![0; 64 + names + tensors];
    let length = compact
        .encode(&mut buffer)
        .map_err(|_| unwritable("", "too large"))?;
    Ok(body(buffer, length))
}

pub(super) fn encode_answer(answer: &Answer) -> Result<Body, OipError> {
    let compact = compact::Answer::Outputs {
        model_version: answer.model_version.as_deref(),
        outputs: borrow_all(&answer.outputs)?,
    };
    let mut buffer = vec![0; compact.encoded_max_bytes()];
    let length = compact
        .encode(&mut buffer)
        .map_err(|_| unwritable("", "too large"))?;
    Ok(body(buffer, length))
}

pub(super) fn decode_answer(bytes: &Bytes) -> Result<Answer, OipError> {
    match compact::Answer::decode(bytes)? {
        compact::Answer::Failure(_) => Err(OipError::NoInputs),
        compact::Answer::Outputs {
            model_version,
            outputs,
        } => Ok(Answer {
            model_name: String::new(),
            model_version: model_version.map(str::to_owned),
            id: None,
            outputs: own_all(bytes, &outputs)?,
        }),
    }
}

pub(super) fn encode_failure(message: &str) -> Body {
    let compact = compact::Answer::Failure(message);
    let mut buffer = vec![0; compact.encoded_max_bytes()];
    let length = compact.encode(&mut buffer).unwrap_or(0);
    body(buffer, length)
}

fn body(mut buffer: Vec<u8>, length: usize) -> Body {
    buffer.truncate(length);
    Body {
        bytes: buffer.into(),
        encoding: Encoding::Cbor,
    }
}

fn unwritable(name: &str, why: &'static str) -> OipError {
    OipError::Unwritable {
        name: name.to_owned(),
        encoding: "compact CBOR",
        why,
    }
}

fn own_all(body: &Bytes, tensors: &[compact::Tensor<'_>]) -> Result<Vec<Tensor>, OipError> {
    tensors
        .iter()
        .map(|t| {
            let shape = t.shape.iter().map(|d| u64::from(*d)).collect();
            Tensor::new(t.name.to_owned(), t.datatype, shape, body.slice_ref(t.data)).map_err(
                |source| OipError::Tensor {
                    name: t.name.to_owned(),
                    source,
                },
            )
        })
        .collect()
}

fn borrow_all(
    tensors: &[Tensor],
) -> Result<heapless::Vec<compact::Tensor<'_>, { compact::TENSORS_MAX }>, OipError> {
    let mut compact = heapless::Vec::new();
    for tensor in tensors {
        let mut shape = compact::Shape::new();
        for dimension in &tensor.shape {
            u32::try_from(*dimension)
                .ok()
                .and_then(|d| shape.push(d).ok())
                .ok_or_else(|| unwritable(&tensor.name, "its shape does not fit"))?;
        }
        compact
            .push(compact::Tensor {
                name: &tensor.name,
                datatype: tensor.datatype,
                shape,
                data: &tensor.data,
            })
            .map_err(|_| unwritable(&tensor.name, "too many tensors"))?;
    }
    Ok(compact)
}
