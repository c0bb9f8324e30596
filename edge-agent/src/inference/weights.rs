//! Weights that the copies of a model share. ONNX Runtime gives each session its own, and each again in the order that its
//! kernels like; both are shared only for weights that its user brings. So they are read from the file here, once.

use std::{fs, sync::Arc};

use bytemuck::pod_collect_to_vec;
use edge_protocol::Datatype;
use half::f16;
use ort::{
    session::builder::{PrepackedWeights, SessionBuilder},
    value::{DynValue, Tensor},
};
use tracing::warn;

use super::{
    onnx::{self, Weight},
    repository::ModelEntry,
};

/// What the copies of a version share.
pub(super) struct Weights {
    values: Vec<(String, Arc<DynValue>)>,
    packed: PrepackedWeights,
}

impl Weights {
    /// Those of a version that has more than one copy.
    pub(super) fn of(entry: &ModelEntry) -> Option<Self> {
        if entry.config.instances < 2 {
            return None;
        }
        let model = match fs::read(&entry.graph) {
            Ok(model) => model,
            Err(error) => {
                warn!(model = %entry.name, %error, "copies of the model do not share their weights");
                return None;
            }
        };
        let values = onnx::weights(&model).into_iter().filter_map(|weight| {
            let name = weight.name.to_owned();
            Some((name, Arc::new(value(weight)?)))
        });
        Some(Self {
            values: values.collect(),
            packed: PrepackedWeights::new(),
        })
    }

    /// Gives them to a session.
    pub(super) fn lend(&self, mut builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        for (name, value) in &self.values {
            builder = builder.with_initializer(name, value.clone())?;
        }
        Ok(builder.with_prepacked_weights(&self.packed)?)
    }
}

fn value(weight: Weight<'_>) -> Option<DynValue> {
    macro_rules! tensor {
        ($type:ty) => {{
            let data: Vec<$type> = pod_collect_to_vec(weight.data);
            Tensor::from_array((weight.shape, data)).ok()?.into_dyn()
        }};
    }
    Some(match weight.datatype {
        Datatype::Fp32 => tensor!(f32),
        Datatype::Fp16 => tensor!(f16),
        Datatype::Int8 => tensor!(i8),
        Datatype::Uint8 => tensor!(u8),
        _ => return None,
    })
}
