//! What the box says of its models in the words of the Open Inference Protocol.

use edge_hal::board::ExecutionProvider;
use edge_protocol::{
    Id, Status,
    oip::server::{
        FailedVersion, IndexEntry, IndexState, ModelMetadata, ModelParameters, RefusedProvider,
    },
};

use super::{
    Models,
    models::{Served, State, Version},
};
use crate::health::Workers;

/// Platform of every model, by Triton's name.
const PLATFORM: &str = "onnxruntime_onnx";

/// Why a version is not in memory that takes requests.
const EVICTED: &str = "it gave way to other models; it is loaded again when it is asked for";

impl Models {
    /// Whether every model of the repository is loaded or has failed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.served().is_some()
    }

    /// Whether a version takes requests; without a version, whether any does. `None` for an unknown model.
    #[must_use]
    pub fn is_model_ready(&self, name: &Id, version: Option<u64>) -> Option<bool> {
        self.look(|served| {
            let model = served.get(name)?;
            Some(
                model
                    .taking()
                    .any(|(taking, _)| version.is_none_or(|version| version == taking)),
            )
        })
    }

    /// What a version takes and gives; without a version, of that which a request gets which names none.
    ///
    /// # Errors
    /// Status and message for who asks.
    pub fn metadata(
        &self,
        name: &Id,
        version: Option<u64>,
    ) -> Result<ModelMetadata, (Status, String)> {
        self.look(|served| {
            let unknown = || (Status::NotFound, format!("there is no model {name}"));
            let model = served.get(name).ok_or_else(unknown)?;
            let found = model.of_request(version);
            let loaded = found.and_then(|(version, it)| Some((version, it.loaded()?)));
            let (version, loaded) = loaded.ok_or_else(|| model.why_not(name, version))?;
            Ok(ModelMetadata {
                name: name.to_string(),
                versions: model
                    .taking()
                    .map(|(version, _)| version.to_string())
                    .collect(),
                platform: PLATFORM.to_owned(),
                inputs: loaded.signature.inputs.clone(),
                outputs: loaded.signature.outputs.clone(),
                parameters: ModelParameters {
                    version: version.to_string(),
                    execution_provider: loaded.choice.provider.to_string(),
                    refused_providers: loaded.choice.refused.iter().map(refused).collect(),
                    failed: model.failures().map(failed).collect(),
                },
            })
        })
    }

    /// All versions in the repository or in use; those that take requests, with `ready_only`.
    #[must_use]
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let is_wanted = |entry: &IndexEntry| !ready_only || entry.state == IndexState::Ready;
        self.look(|served| {
            let entries = served.iter().flat_map(|(name, model)| entries(name, model));
            entries.filter(is_wanted).collect()
        })
    }
}

fn refused((provider, reason): &(ExecutionProvider, String)) -> RefusedProvider {
    RefusedProvider {
        provider: provider.to_string(),
        reason: reason.clone(),
    }
}

fn failed((version, reason): (u64, String)) -> FailedVersion {
    FailedVersion {
        version: version.to_string(),
        reason,
    }
}

/// The versions of a model; a model without any has one entry, so that what is wrong with it is seen.
fn entries(name: &Id, model: &Served) -> Vec<IndexEntry> {
    let entry = |version: String, state, reason: Option<&str>| IndexEntry {
        name: name.to_string(),
        version,
        state,
        reason: reason.unwrap_or_default().to_owned(),
    };
    if model.versions.is_empty() {
        let unloaded = model.is_unloaded.then_some("unloaded");
        let reason = model.trouble.as_deref().or(unloaded);
        return vec![entry(String::new(), IndexState::Unavailable, reason)];
    }
    let version = |(version, it): (&u64, &Version)| {
        let state = match it.state {
            State::Ready(_) => IndexState::Ready,
            State::Loading => IndexState::Loading,
            State::Evicted(_) | State::Failed => IndexState::Unavailable,
        };
        let is_evicted = matches!(it.state, State::Evicted(_));
        let reason = it.trouble.as_deref().or(model.trouble.as_deref());
        let reason = reason.or(is_evicted.then_some(EVICTED));
        entry(version.to_string(), state, reason)
    };
    model.versions.iter().map(version).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use edge_protocol::{Datatype, oip::server::TensorMetadata};

    use super::*;
    use crate::inference::{
        Statistics,
        graph::Signature,
        models::{Loaded, Started},
        providers::Choice,
        queue::Queue,
        schedule::Policy,
    };

    #[test]
    fn says_what_serves_what_does_not_and_why() {
        let (models, name) = (Models::new(), Id::new("digits").unwrap());
        assert!(!models.is_ready(), "nobody has looked yet");
        models.scanned();
        models.loading(&name, 1);
        assert!(!models.is_ready());
        assert_eq!(models.is_model_ready(&name, None), Some(false));
        let input = TensorMetadata {
            name: "pixels".into(),
            datatype: Datatype::Fp32,
            shape: vec![-1, 64],
        };
        let signature = Signature {
            inputs: vec![input.clone()],
            outputs: Vec::new(),
        };
        let statistics = Arc::new(Statistics::new());
        let started = Started {
            queue: Queue::new(name.clone(), Policy::default(), statistics.clone()),
            statistics,
        };
        let choice = Choice {
            provider: ExecutionProvider::Cpu,
            refused: vec![(ExecutionProvider::QnnGpu, "crashes".to_owned())],
        };
        let loaded = Loaded {
            signature,
            choice,
            bytes: 1,
        };
        models.ready(&name, 1, started, loaded);
        models.failed(&name, 2, "bad graph");
        models.in_trouble(&Id::new("empty").unwrap(), Some("no version".into()));

        assert!(
            models.is_ready(),
            "what has failed does not hold up the others"
        );
        assert_eq!(models.is_model_ready(&name, Some(1)), Some(true));
        assert_eq!(models.is_model_ready(&name, Some(2)), Some(false));
        assert_eq!(models.is_model_ready(&Id::new("cats").unwrap(), None), None);
        let metadata = models.metadata(&name, None).unwrap();
        assert_eq!(metadata.versions, ["1"]);
        assert_eq!(metadata.inputs, [input]);
        assert_eq!(metadata.parameters.execution_provider, "cpu");
        let refused = &metadata.parameters.refused_providers[0];
        assert_eq!(
            (&*refused.provider, &*refused.reason),
            ("qnn-gpu", "crashes")
        );
        assert_eq!(
            metadata.parameters.failed,
            [failed((2, "bad graph".into()))]
        );
        let (status, why) = models.metadata(&name, Some(2)).unwrap_err();
        assert_eq!(status, Status::RuntimeFailed);
        assert!(why.contains("bad graph"), "{why}");

        let index: Vec<_> = models
            .index(false)
            .into_iter()
            .map(|it| (it.name, it.version, it.state, it.reason))
            .collect();
        let line = |name: &str, version: &str, state, reason: &str| {
            (
                name.to_owned(),
                version.to_owned(),
                state,
                reason.to_owned(),
            )
        };
        assert_eq!(
            index,
            [
                line("digits", "1", IndexState::Ready, ""),
                line("digits", "2", IndexState::Unavailable, "bad graph"),
                line("empty", "", IndexState::Unavailable, "no version"),
            ]
        );
        assert_eq!(models.index(true).len(), 1);
    }
}
