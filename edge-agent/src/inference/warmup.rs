//! Warm-up and self-test of a loaded copy of a model: it must answer, and with numbers, before it serves.

use std::{sync::mpsc, thread, time::Duration};

use edge_protocol::{
    Datatype,
    oip::{Inputs, Request, Tensor, server::TensorMetadata},
};

use super::{
    model_config::{Fill, ModelConfig, Warmup, WarmupInput},
    worker::Run,
};

/// Longest time that all requests of a warm-up may take together.
const WARMUP_MAX: Duration = Duration::from_secs(60);

/// Bytes of one input of a warm-up: as many as a request may have.
const INPUT_MAX_BYTES: u64 = edge_protocol::limit::REQUEST_MAX_BYTES as u64;

/// What to do about a self-test that fails.
const ADVICE: &str =
    "say in model.toml what a fitting request is ([[warmup]]), or that there is none (warmup = [])";

/// Makes the requests that the settings say, one after the other.
///
/// # Errors
/// Why the copy must not serve.
pub(super) fn warm_up(
    model: &mut dyn Run,
    inputs: &[TensorMetadata],
    config: &ModelConfig,
) -> Result<(), String> {
    let stopper = model.stopper();
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if is_done.recv_timeout(WARMUP_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
                stopper.stop();
            }
        });
        let result = answer_all(model, inputs, config);
        drop(done);
        result
    })
    .map_err(|why| format!("the self-test failed: {why}; {ADVICE}"))
}

fn answer_all(
    model: &mut dyn Run,
    inputs: &[TensorMetadata],
    config: &ModelConfig,
) -> Result<(), String> {
    for warmup in config.warmup() {
        let request = request(inputs, &warmup)?;
        let prepared = model
            .graph()
            .prepare(request)
            .map_err(|error| error.to_string())?;
        for _ in 0..warmup.count {
            let outputs = model.run(std::slice::from_ref(&prepared));
            let outputs = outputs
                .map_err(|error| error.to_string())?
                .into_iter()
                .flatten();
            if config.allow_non_finite {
                continue;
            }
            for output in outputs {
                if let Some(index) = output.first_non_finite() {
                    let name = output.name;
                    return Err(format!(
                        "element {index} of output {name:?} is NaN or infinite"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The request that a warm-up stands for, for a model with these inputs.
pub(super) fn request(inputs: &[TensorMetadata], warmup: &Warmup) -> Result<Request, String> {
    if let Some(name) = warmup
        .inputs
        .keys()
        .find(|name| !inputs.iter().any(|it| it.name == **name))
    {
        return Err(format!(
            "warmup has the input {name:?}, which the model has not"
        ));
    }
    let tensors: Result<Vec<_>, _> = inputs
        .iter()
        .map(|input| {
            let others = || WarmupInput {
                shape: None,
                fill: warmup.others,
            };
            let wanted = warmup.inputs.get(&input.name).cloned();
            let wanted = wanted.unwrap_or_else(others);
            tensor(input, &wanted)
        })
        .collect();
    Ok(Request {
        inputs: Inputs::Named(tensors?),
        ..Request::default()
    })
}

fn tensor(input: &TensorMetadata, wanted: &WarmupInput) -> Result<Tensor, String> {
    let graphs = || {
        let any = |dimension: &i64| u64::try_from(*dimension).unwrap_or(1);
        input.shape.iter().map(any).collect()
    };
    let shape: Vec<u64> = wanted.shape.clone().unwrap_or_else(graphs);
    let element_bytes = input
        .datatype
        .element_bytes()
        .map_or(4 + u64::from(TEXT_BYTES), |bytes| bytes as u64);
    let count = shape
        .iter()
        .try_fold(1_u64, |product, dimension| product.checked_mul(*dimension))
        .filter(|count| count.saturating_mul(element_bytes) <= INPUT_MAX_BYTES)
        .ok_or_else(|| {
            format!(
                "input {:?} of shape {shape:?} is too large for a warm-up",
                input.name
            )
        })?;
    let data = data(input.datatype, count, wanted.fill);
    Tensor::new(input.name.clone(), input.datatype, shape, data.into())
        .map_err(|error| format!("input {:?}: {error}", input.name))
}

/// Letters of a text that fills an element.
const TEXT_BYTES: u8 = 8;

fn data(datatype: Datatype, count: u64, fill: Fill) -> Vec<u8> {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut data = Vec::new();
    for _ in 0..count {
        match (fill, datatype) {
            (Fill::Zeros, _) => {
                let bytes = datatype.element_bytes().unwrap_or(4);
                data.resize(data.len() + bytes, 0);
            }
            (Fill::Random, Datatype::Bytes) => {
                data.extend(u32::from(TEXT_BYTES).to_le_bytes());
                data.extend((0..TEXT_BYTES).map(|_| b'a' + numbers.below(26)));
            }
            (Fill::Random, Datatype::Fp64) => data.extend(f64::from(numbers.unit()).to_le_bytes()),
            (Fill::Random, Datatype::Fp32) => data.extend(numbers.unit().to_le_bytes()),
            (Fill::Random, Datatype::Fp16) => {
                data.extend(half::f16::from_f32(numbers.unit()).to_le_bytes());
            }
            (Fill::Random, Datatype::Bf16) => {
                data.extend(half::bf16::from_f32(numbers.unit()).to_le_bytes());
            }
            (Fill::Random, integer) => {
                data.push(numbers.below(2));
                data.resize(data.len() + integer.element_bytes().unwrap_or(1) - 1, 0);
            }
        }
    }
    data
}

/// Numbers that look random and are the same each time (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    #[allow(clippy::cast_possible_truncation, reason = "less than `limit`, a byte")]
    fn below(&mut self, limit: u8) -> u8 {
        (self.next() >> 32).rem_euclid(limit.into()) as u8
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        f32::from(u16::from_le_bytes([
            self.below(u8::MAX),
            self.below(u8::MAX),
        ])) / f32::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inference::{
        graph::{Graph, Prepared},
        model::ModelError,
        worker::Stop,
    };

    fn input(name: &str, datatype: Datatype, shape: &[i64]) -> TensorMetadata {
        TensorMetadata {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        }
    }

    fn named(request: &Request) -> &[Tensor] {
        match &request.inputs {
            Inputs::Named(tensors) => tensors,
            Inputs::Raw(_) => panic!("named"),
        }
    }

    fn config(text: &str) -> ModelConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn without_settings_inputs_are_zeros_of_the_graphs_shape() {
        for datatype in Datatype::ALL {
            let inputs = [input("x", datatype, &[-1, 3])];
            let request = request(&inputs, &Warmup::default()).unwrap();
            let [tensor] = named(&request) else {
                panic!("one input")
            };
            assert_eq!(tensor.shape, [1, 3], "{datatype}");
            assert!(tensor.data.iter().all(|byte| *byte == 0), "{datatype}");
        }
    }

    #[test]
    fn random_inputs_are_finite_and_the_same_each_time() {
        for datatype in Datatype::ALL {
            let inputs = [input("x", datatype, &[64])];
            let warmup = config("[[warmup]]\ninputs.x = { fill = 'random' }")
                .warmup()
                .remove(0);
            let first = request(&inputs, &warmup).unwrap();
            assert_eq!(first, request(&inputs, &warmup).unwrap(), "{datatype}");
            let tensor = &named(&first)[0];
            assert_eq!(tensor.first_non_finite(), None, "{datatype}");
            assert!(tensor.data.iter().any(|byte| *byte != 0), "{datatype}");
        }
    }

    #[test]
    fn an_input_that_the_model_has_not_or_that_is_huge_is_named() {
        let inputs = [input("x", Datatype::Fp32, &[-1])];
        for (settings, wanted) in [
            ("inputs.y = {}", r#"the input "y", which the model has not"#),
            ("inputs.x = { shape = [1, 4294967296] }", "too large"),
            (
                "inputs.x = { shape = [1, 1, 1, 1, 1, 1, 1, 1, 1] }",
                "dimensions",
            ),
        ] {
            let warmup = config(&format!("[[warmup]]\n{settings}"))
                .warmup()
                .remove(0);
            let error = request(&inputs, &warmup).unwrap_err();
            assert!(error.contains(wanted), "{settings}: {error}");
        }
    }

    struct SimModel(f32);

    struct SimStop;

    impl Stop for SimStop {
        fn stop(&self) {}
        fn reset(&self) {}
    }

    impl Run for SimModel {
        fn graph(&self) -> Arc<Graph> {
            Arc::new(Graph {
                inputs: Vec::new(),
                outputs: Vec::new(),
                allow_non_finite: false,
            })
        }

        fn run(&mut self, requests: &[Prepared]) -> Result<Vec<Vec<Tensor>>, ModelError> {
            let output = Tensor::from_f32("y", vec![1], &[self.0]).unwrap();
            Ok(requests.iter().map(|_| vec![output.clone()]).collect())
        }

        fn stopper(&self) -> Arc<dyn Stop> {
            Arc::new(SimStop)
        }
    }

    #[test]
    fn a_model_that_answers_with_nan_does_not_serve_unless_it_may() {
        let mut model = SimModel(f32::NAN);
        let error = warm_up(&mut model, &[], &config("")).unwrap_err();
        assert!(
            error.contains(r#"element 0 of output "y" is NaN"#),
            "{error}"
        );
        assert!(error.contains("[[warmup]]"), "{error}");
        assert_eq!(
            warm_up(&mut model, &[], &config("allow_non_finite = true")),
            Ok(())
        );
        assert_eq!(warm_up(&mut model, &[], &config("warmup = []")), Ok(()));
        assert_eq!(warm_up(&mut SimModel(1.0), &[], &config("")), Ok(()));
    }
}
