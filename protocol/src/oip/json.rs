//! The JSON of requests and answers, with or without binary tensors behind it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Answer, Body, Datatype, Encoding, Inputs, OipError, Request, Tensor, TensorError, WantedOutput,
    binary, number, tensor::element_count,
};

#[derive(Deserialize)]
struct WireRequest<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    parameters: Option<Parameters>,
    inputs: Vec<WireTensor<'a>>,
    outputs: Option<Vec<WireOutput<'a>>>,
}

#[derive(Deserialize)]
struct WireAnswer<'a> {
    model_name: String,
    model_version: Option<String>,
    id: Option<String>,
    #[serde(borrow)]
    outputs: Vec<WireTensor<'a>>,
}

#[derive(Deserialize)]
struct WireTensor<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    parameters: Option<Parameters>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    parameters: Option<Parameters>,
}

/// The parameters that this protocol version knows; others are ignored, as OIP allows.
#[derive(Deserialize, Serialize, Default)]
#[serde(default)]
struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classification: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_data_output: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_data: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_data_size: Option<u64>,
}

impl Parameters {
    fn is_empty(&self) -> bool {
        self.timeout.is_none()
            && self.priority.is_none()
            && self.classification.is_none()
            && self.binary_data_output.is_none()
            && self.binary_data.is_none()
            && self.binary_data_size.is_none()
    }
}

pub(super) fn decode_request(header: &[u8], tensors: Bytes) -> Result<Request, OipError> {
    let wire: WireRequest<'_> = serde_json::from_slice(header)?;
    let parameters = wire.parameters.unwrap_or_default();
    let wanted = |output: WireOutput<'_>| {
        let parameters = output.parameters.unwrap_or_default();
        WantedOutput {
            name: output.name.into_owned(),
            binary: parameters.binary_data,
            // Triton's clients say 0 for none.
            classification: parameters.classification.filter(|classes| *classes > 0),
        }
    };
    Ok(Request {
        id: wire.id.map(Cow::into_owned),
        timeout_us: parameters.timeout,
        priority: parameters.priority,
        binary_output: parameters.binary_data_output.unwrap_or(false),
        inputs: Inputs::Named(decode_tensors(wire.inputs, tensors)?),
        outputs: wire
            .outputs
            .unwrap_or_default()
            .into_iter()
            .map(wanted)
            .collect(),
    })
}

pub(super) fn decode_answer(header: &[u8], tensors: Bytes) -> Result<Answer, OipError> {
    let wire: WireAnswer<'_> = serde_json::from_slice(header)?;
    Ok(Answer {
        model_name: wire.model_name,
        model_version: wire.model_version,
        id: wire.id,
        outputs: decode_tensors(wire.outputs, tensors)?,
    })
}

fn decode_tensors(wire: Vec<WireTensor<'_>>, mut rest: Bytes) -> Result<Vec<Tensor>, OipError> {
    let mut tensors = Vec::with_capacity(wire.len());
    for tensor in wire {
        let name = tensor.name.clone().into_owned();
        let tensor =
            decode_tensor(tensor, &mut rest).map_err(|source| OipError::Tensor { name, source })?;
        tensors.push(tensor);
    }
    if rest.is_empty() {
        Ok(tensors)
    } else {
        Err(OipError::Trailing(rest.len()))
    }
}

fn decode_tensor(wire: WireTensor<'_>, rest: &mut Bytes) -> Result<Tensor, TensorError> {
    let datatype: Datatype = wire.datatype.parse()?;
    let binary_data_size = wire.parameters.and_then(|it| it.binary_data_size);
    let data = match (wire.data, binary_data_size) {
        (Some(data), None) => number::read(data, datatype, element_count(&wire.shape)?)?,
        (None, Some(size)) => binary::take(rest, size)?,
        _ => return Err(TensorError::NoData),
    };
    Tensor::new(wire.name.into_owned(), datatype, wire.shape, data)
}

pub(super) fn encode_request(request: &Request, is_binary: bool) -> Result<Body, OipError> {
    let inputs = match &request.inputs {
        Inputs::Named(inputs) => inputs,
        Inputs::Raw(data) => {
            return Ok(Body {
                bytes: data.clone(),
                encoding: Encoding::Binary { header_length: 0 },
            });
        }
    };
    let mut json = Writer::new();
    if let Some(id) = &request.id {
        json.field("id", id);
    }
    let parameters = Parameters {
        timeout: request.timeout_us,
        priority: request.priority,
        binary_data_output: request.binary_output.then_some(true),
        ..Parameters::default()
    };
    if !parameters.is_empty() {
        json.field("parameters", &parameters);
    }
    json.tensors("inputs", inputs, |_| is_binary)?;
    if !request.outputs.is_empty() {
        #[derive(Serialize)]
        struct Wanted<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "Parameters::is_empty")]
            parameters: Parameters,
        }
        let outputs: Vec<_> = request
            .outputs
            .iter()
            .map(|output| Wanted {
                name: &output.name,
                parameters: Parameters {
                    binary_data: output.binary,
                    classification: output.classification,
                    ..Parameters::default()
                },
            })
            .collect();
        json.field("outputs", &outputs);
    }
    Ok(json.finish())
}

pub(super) fn encode_answer(
    answer: &Answer,
    wants_binary: impl Fn(&str) -> bool,
) -> Result<Body, OipError> {
    let mut json = Writer::new();
    json.field("model_name", &answer.model_name);
    if let Some(version) = &answer.model_version {
        json.field("model_version", version);
    }
    if let Some(id) = &answer.id {
        json.field("id", id);
    }
    json.tensors("outputs", &answer.outputs, wants_binary)?;
    Ok(json.finish())
}

pub(super) fn encode_failure(message: &str) -> Body {
    let mut json = Writer::new();
    json.field("error", message);
    json.finish()
}

/// Writes one JSON object field by field, and collects the binary tensors that follow it.
struct Writer {
    json: Vec<u8>,
    binary: Vec<u8>,
    has_binary: bool,
}

impl Writer {
    fn new() -> Self {
        Self {
            json: Vec::with_capacity(256),
            binary: Vec::new(),
            has_binary: false,
        }
    }

    fn key(&mut self, key: &str) {
        self.json
            .push(if self.json.is_empty() { b'{' } else { b',' });
        self.value(key);
        self.json.push(b':');
    }

    #[allow(
        clippy::expect_used,
        reason = "texts, numbers and structs of them always serialise to memory"
    )]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut self.json, value).expect("plain values serialise");
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.key(key);
        self.value(value);
    }

    fn tensors(
        &mut self,
        key: &str,
        tensors: &[Tensor],
        is_binary: impl Fn(&str) -> bool,
    ) -> Result<(), OipError> {
        self.key(key);
        self.json.push(b'[');
        for (i, tensor) in tensors.iter().enumerate() {
            self.json.extend_from_slice(if i == 0 {
                b"{\"name\":"
            } else {
                b",{\"name\":"
            });
            self.value(tensor.name.as_str());
            self.json.extend_from_slice(b",\"datatype\":");
            self.value(tensor.datatype.name());
            self.json.extend_from_slice(b",\"shape\":");
            self.value(&tensor.shape);
            if is_binary(&tensor.name) {
                self.has_binary = true;
                self.json.extend_from_slice(b",\"parameters\":");
                self.value(&Parameters {
                    binary_data_size: Some(tensor.data.len() as u64),
                    ..Parameters::default()
                });
                self.binary.extend_from_slice(&tensor.data);
            } else {
                self.json.extend_from_slice(b",\"data\":");
                number::write(&mut self.json, tensor.datatype, &tensor.data).map_err(|why| {
                    OipError::Unwritable {
                        name: tensor.name.clone(),
                        encoding: "JSON",
                        why,
                    }
                })?;
            }
            self.json.push(b'}');
        }
        self.json.push(b']');
        Ok(())
    }

    fn finish(mut self) -> Body {
        self.json.push(b'}');
        let encoding = if self.has_binary {
            Encoding::Binary {
                header_length: self.json.len(),
            }
        } else {
            Encoding::Json
        };
        self.json.append(&mut self.binary);
        Body {
            bytes: self.json.into(),
            encoding,
        }
    }
}
