//! What a model takes and gives: reads a request against the graph's inputs, before a thread computes for it. Knows
//! nothing of ONNX Runtime's values.

use bytes::Bytes;
use edge_protocol::{
    Datatype,
    oip::{Encoding, Inputs, OipError, Request, Tensor, server::TensorMetadata},
};

use super::{model::ModelError, schedule::Shape};

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    /// Dimensions; -1 where any length fits.
    pub(super) shape: Vec<i64>,
}

/// The inputs and outputs of a model.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    /// Whether inputs may hold NaN and infinities.
    pub(super) allow_non_finite: bool,
}

/// What a model takes and gives, for those who ask.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Signature {
    pub(super) inputs: Vec<TensorMetadata>,
    pub(super) outputs: Vec<TensorMetadata>,
}

/// A request that fits the model.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What the client said, without the inputs.
    pub(super) request: Request,
    /// The graph's inputs, in its order.
    pub(super) inputs: Vec<Tensor>,
    /// Which of the graph's outputs are wanted, in the client's order.
    pub(super) wanted: Vec<usize>,
    /// First dimension of the inputs, where it is the same for all and any length fits; else 1.
    pub(super) rows: usize,
    /// With which others it can run; none for alone.
    pub(super) shape: Option<Shape>,
}

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It is not a request.
    #[error(transparent)]
    Body(#[from] OipError),
    /// It is not one for this model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Graph {
    /// What it takes and gives.
    pub(super) fn signature(&self) -> Signature {
        let metadata = |ports: &[Port]| {
            let metadata = |port: &Port| TensorMetadata {
                name: port.name.clone(),
                datatype: port.datatype,
                shape: port.shape.clone(),
            };
            ports.iter().map(metadata).collect()
        };
        Signature {
            inputs: metadata(&self.inputs),
            outputs: metadata(&self.outputs),
        }
    }

    /// Whether the first dimension of every input and output may have any length: then it may be the rows of a batch.
    pub(super) fn has_rows(&self) -> bool {
        let mut ports = self.inputs.iter().chain(&self.outputs);
        !self.inputs.is_empty() && ports.all(|port| port.shape.first() == Some(&-1))
    }

    /// Whether all other dimensions of the inputs have one length, so that every row is as much work.
    pub(super) fn is_steady(&self) -> bool {
        let mut others = self
            .inputs
            .iter()
            .flat_map(|port| port.shape.iter().skip(1));
        others.all(|length| *length >= 0)
    }

    /// Reads a request.
    pub(super) fn read(&self, body: &Bytes, encoding: Encoding) -> Result<Prepared, ReadError> {
        Ok(self.prepare(Request::decode(body, encoding)?)?)
    }

    /// Checks a request against the graph.
    pub(super) fn prepare(&self, mut request: Request) -> Result<Prepared, ModelError> {
        let wanted = self.wanted(&request)?;
        let inputs = self.check(std::mem::take(&mut request.inputs))?;
        let (rows, shape) = self.rows(&inputs);
        Ok(Prepared {
            request,
            inputs,
            wanted,
            rows,
            shape,
        })
    }

    /// Rows, and the dimensions in which rows of other requests must agree.
    fn rows(&self, inputs: &[Tensor]) -> (usize, Option<Shape>) {
        let mut firsts = inputs.iter().map(|tensor| tensor.shape.first().copied());
        let first = firsts.next().flatten().unwrap_or(0);
        let rows = usize::try_from(first).unwrap_or(usize::MAX);
        if !self.has_rows() || rows == 0 || firsts.any(|other| other != Some(first)) {
            return (1, None);
        }
        let dimensions = self.inputs.iter().zip(inputs).flat_map(|(port, tensor)| {
            let dimensions = port.shape.iter().zip(&tensor.shape).skip(1);
            dimensions.filter_map(|(any, length)| (*any < 0).then_some(*length))
        });
        (rows, Some(dimensions.collect()))
    }

    /// The outputs that the request wants; all, when it names none.
    fn wanted(&self, request: &Request) -> Result<Vec<usize>, ModelError> {
        if request.outputs.is_empty() {
            return Ok((0..self.outputs.len()).collect());
        }
        let wanted = request.outputs.iter();
        wanted
            .map(|wanted| {
                let index = self
                    .outputs
                    .iter()
                    .position(|port| port.name == wanted.name);
                index.ok_or_else(|| ModelError::UnknownOutput {
                    name: wanted.name.clone(),
                    known: names(&self.outputs),
                })
            })
            .collect()
    }

    /// The tensors for the graph's inputs in its order, all of them and no others, each of the right type and shape.
    fn check(&self, inputs: Inputs) -> Result<Vec<Tensor>, ModelError> {
        let ports = &self.inputs;
        let mut tensors = match (inputs, ports.as_slice()) {
            (Inputs::Raw(data), [port]) => vec![port.tensor_from(&data)?],
            (Inputs::Raw(_), ports) => return Err(ModelError::RawInputs(ports.len())),
            (Inputs::Named(tensors), _) => tensors,
        };
        for tensor in &tensors {
            let name = || tensor.name.clone();
            let Some(port) = ports.iter().find(|port| port.name == tensor.name) else {
                return Err(ModelError::UnknownInput {
                    name: name(),
                    known: names(ports),
                });
            };
            if tensor.datatype != port.datatype {
                return Err(ModelError::Datatype {
                    name: name(),
                    expected: port.datatype,
                    actual: tensor.datatype,
                });
            }
            if !port.takes(&tensor.shape) {
                return Err(ModelError::Shape {
                    name: name(),
                    expected: port.shape.clone(),
                    actual: tensor.shape.clone(),
                });
            }
            if !self.allow_non_finite
                && let Some(index) = tensor.first_non_finite()
            {
                return Err(ModelError::NonFinite {
                    name: name(),
                    index,
                });
            }
        }
        let place = |tensor: &Tensor| ports.iter().position(|port| port.name == tensor.name);
        tensors.sort_by_key(place);
        match ports
            .iter()
            .find(|port| !tensors.iter().any(|tensor| tensor.name == port.name))
        {
            Some(port) => Err(ModelError::MissingInput {
                name: port.name.clone(),
            }),
            None => Ok(tensors),
        }
    }
}

impl Port {
    fn takes(&self, shape: &[u64]) -> bool {
        self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(expected, actual)| *expected < 0 || u64::try_from(*expected) == Ok(*actual))
    }

    /// The tensor that `data` is when it comes without a header: any length fits one dimension at most.
    fn tensor_from(&self, data: &Bytes) -> Result<Tensor, ModelError> {
        let error = || ModelError::RawShape {
            name: self.name.clone(),
            datatype: self.datatype,
            shape: self.shape.clone(),
        };
        let element_bytes = self.datatype.element_bytes().ok_or_else(error)? as u64;
        let fixed = self
            .shape
            .iter()
            .filter_map(|dimension| u64::try_from(*dimension).ok())
            .try_fold(element_bytes, u64::checked_mul)
            .filter(|bytes| *bytes > 0)
            .ok_or_else(error)?;
        if self
            .shape
            .iter()
            .filter(|dimension| **dimension < 0)
            .count()
            > 1
        {
            return Err(error());
        }
        let any = data.len() as u64 / fixed;
        let shape = self
            .shape
            .iter()
            .map(|dimension| u64::try_from(*dimension).unwrap_or(any))
            .collect();
        Tensor::new(self.name.clone(), self.datatype, shape, data.clone()).map_err(|_| error())
    }
}

fn names(ports: &[Port]) -> String {
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, shape: &[i64]) -> Port {
        Port {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        }
    }

    fn graph(inputs: Vec<Port>, outputs: Vec<Port>) -> Graph {
        Graph {
            inputs,
            outputs,
            allow_non_finite: false,
        }
    }

    fn request(tensors: &[(&str, &[u64])]) -> Request {
        let tensors = tensors.iter().map(|(name, shape)| {
            let elements = shape.iter().product::<u64>();
            let values = vec![0.5; usize::try_from(elements).unwrap()];
            Tensor::from_f32(name, shape.to_vec(), &values).unwrap()
        });
        Request {
            inputs: Inputs::Named(tensors.collect()),
            ..Request::default()
        }
    }

    #[test]
    fn rows_are_the_first_dimension_where_every_input_and_output_has_them() {
        let images = graph(
            vec![port("a", &[-1, 3, -1]), port("b", &[-1])],
            vec![port("c", &[-1, 10])],
        );
        assert!(images.has_rows() && !images.is_steady());
        let prepared = images
            .prepare(request(&[("b", &[4]), ("a", &[4, 3, 7])]))
            .unwrap();
        assert_eq!(
            (prepared.rows, prepared.shape.as_deref()),
            (4, Some(&[7][..]))
        );
        assert_eq!(prepared.inputs[0].name, "a", "in the graph's order");
        let uneven = images
            .prepare(request(&[("b", &[5]), ("a", &[4, 3, 7])]))
            .unwrap();
        assert_eq!((uneven.rows, uneven.shape), (1, None));
        let none = images
            .prepare(request(&[("b", &[0]), ("a", &[0, 3, 7])]))
            .unwrap();
        assert_eq!((none.rows, none.shape), (1, None));
        let fixed = graph(vec![port("a", &[1, 3])], vec![port("c", &[1, 10])]);
        assert!(!fixed.has_rows() && fixed.is_steady());
        let alone = fixed.prepare(request(&[("a", &[1, 3])])).unwrap();
        assert_eq!((alone.rows, alone.shape), (1, None));
    }

    #[test]
    fn a_request_that_does_not_fit_is_told_why() {
        let graph = graph(vec![port("a", &[-1, 2])], vec![port("c", &[-1])]);
        for (tensors, wanted) in [
            (&[("a", &[1, 3][..])][..], "shape [1, 3]"),
            (&[("a", &[1, 2][..]), ("x", &[1][..])][..], "no input \"x\""),
            (&[][..], "\"a\" is missing"),
        ] {
            let error = graph.prepare(request(tensors)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
