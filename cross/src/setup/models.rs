//! Model graphs of realistic cost: SqueezeNet and ResNet50, out of the `onnx` wheel.
//!
//! Their weights are constants, so the answers mean nothing, but the work is that of the real
//! networks. Both take one FP32 image of `[1, 3, 224, 224]`:
//!
//! | model | input | output |
//! | --- | --- | --- |
//! | `squeezenet` | `data_0` | `softmaxout_1` `[1, 1000, 1, 1]` |
//! | `resnet50` | `gpu_0/data_0` | `gpu_0/softmax_1` `[1, 1000]` |

use std::path::PathBuf;
use std::process::Command;
use std::{fs, io};

use super::python::{self, PythonError};
use crate::cache::{Cache, CacheError};
use crate::shell::{self, CommandError};

const GRAPHS: [(&str, &str); 2] = [
    (
        "squeezenet",
        "770b0f3c8623e18bf58b53754d710051b4c268248422142980a132bbe6dfe908",
    ),
    (
        "resnet50",
        "05e77a5c9c9ce0913f549a50d6ebaced5e0ff6817b61e09bae26e4c5bd9055e4",
    ),
];

/// A graph could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The wheel is not where it should be.
    #[error("could not find the `onnx` package in the Python environment")]
    Find(#[from] CommandError),
    /// A graph is not the pinned one.
    #[error("could not take the model `{model}` out of the onnx package")]
    Graph {
        /// Its name in the repository.
        model: &'static str,
        /// Why not.
        #[source]
        source: PythonError,
    },
    /// A graph could not be copied.
    #[error("could not copy the model `{model}`")]
    Copy {
        /// Its name in the repository.
        model: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The cache folder refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Puts the graphs into the model repository at [`Cache::models`], as Triton lays it out.
///
/// # Errors
/// When the Python environment is incomplete, or its graphs are not the pinned ones.
pub fn ensure(cache: &Cache) -> Result<(), ModelsError> {
    let pin = GRAPHS
        .map(|(model, hash)| format!("{model} {hash}"))
        .join("\n");
    if cache.is_done("models", &pin, &cache.models()) {
        return Ok(());
    }
    shell::step("models of realistic cost: SqueezeNet, ResNet50", || {
        let mut find = Command::new(cache.python());
        find.args([
            "-c",
            "import onnx, pathlib; print(pathlib.Path(onnx.__file__).parent)",
        ]);
        let graphs = PathBuf::from(shell::output(&mut find)?).join("backend/test/data/light");
        cache.finish("models", &pin, &cache.models(), |scratch| {
            for (model, hash) in GRAPHS {
                let graph = graphs.join(format!("light_{model}.onnx"));
                python::check_hash(&graph, hash)
                    .map_err(|source| ModelsError::Graph { model, source })?;
                let version = scratch.join("models").join(model).join("1");
                fs::create_dir_all(&version)
                    .and_then(|()| fs::copy(&graph, version.join("model.onnx")))
                    .map_err(|source| ModelsError::Copy { model, source })?;
            }
            Ok(scratch.join("models"))
        })
    })
}
