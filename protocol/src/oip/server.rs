//! Open Inference Protocol v2 beside inference: what is served, in which state, and what to load. All of it is JSON.
//!
//! The types are those of the protocol's HTTP form. Over MQTT the same operations have the names of its gRPC form
//! ([`Operation`]), and what HTTP has in the path stands in the body ([`Subject`]).

use serde::{Deserialize, Serialize};

use super::OipError;
use crate::Datatype;

/// An operation over MQTT: a level of [`crate::topic::OpTopic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Operation {
    ServerLive,
    ServerReady,
    ServerMetadata,
    ModelReady,
    ModelMetadata,
    RepositoryIndex,
    RepositoryModelLoad,
    RepositoryModelUnload,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 8] = [
        Self::ServerLive,
        Self::ServerReady,
        Self::ServerMetadata,
        Self::ModelReady,
        Self::ModelMetadata,
        Self::RepositoryIndex,
        Self::RepositoryModelLoad,
        Self::RepositoryModelUnload,
    ];

    /// Its name as a level of a topic.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServerLive => "server-live",
            Self::ServerReady => "server-ready",
            Self::ServerMetadata => "server-metadata",
            Self::ModelReady => "model-ready",
            Self::ModelMetadata => "model-metadata",
            Self::RepositoryIndex => "repository-index",
            Self::RepositoryModelLoad => "repository-model-load",
            Self::RepositoryModelUnload => "repository-model-unload",
        }
    }

    /// The operation of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.name() == name)
    }

    /// Whether it is for admins only: it tells or changes what lies in the repository.
    #[must_use]
    pub const fn is_for_admins(self) -> bool {
        matches!(
            self,
            Self::RepositoryIndex | Self::RepositoryModelLoad | Self::RepositoryModelUnload
        )
    }
}

/// What an operation is about: the body of a request over MQTT. Over HTTP names stand in the path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// Model of an operation on a model.
    #[serde(alias = "model_name", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version; absent or empty: the one that a request gets which names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of an index: leave out what is not ready.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// Of loading: Triton's `config` and `file:...` would replace what lies in the repository, and are refused.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

impl Subject {
    /// Reads a body; an empty one says nothing.
    ///
    /// # Errors
    /// [`OipError::Json`] when it is not a JSON object of that form.
    pub fn decode(body: &[u8]) -> Result<Self, OipError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        Ok(serde_json::from_slice(body)?)
    }
}

/// Whether the server lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Always true: a server that does not live does not answer.
    pub live: bool,
}

/// Whether the server is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// True once every model of the repository is loaded or has failed.
    pub ready: bool,
}

/// Whether a model is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReady {
    /// The model.
    pub name: String,
    /// Whether it takes requests.
    pub ready: bool,
}

/// What the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMetadata {
    /// Name of the software.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Extensions of the protocol, by their names in Triton's documentation.
    pub extensions: Vec<String>,
}

/// Names of all models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// The names.
    pub models: Vec<String>,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// Versions that take requests, in ascending order.
    pub versions: Vec<String>,
    /// What runs it, `onnxruntime_onnx`.
    pub platform: String,
    /// Its inputs.
    pub inputs: Vec<TensorMetadata>,
    /// Its outputs.
    pub outputs: Vec<TensorMetadata>,
    /// What this box says beyond the protocol.
    pub parameters: ModelParameters,
}

/// What a box says of a model beyond the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelParameters {
    /// Version that inputs and outputs are of.
    pub version: String,
    /// Execution provider that runs it, by its name in board files.
    pub execution_provider: String,
    /// The board's other execution providers, with the reason why each does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_providers: Vec<RefusedProvider>,
    /// Versions that do not take requests, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedVersion>,
}

/// An execution provider that does not run a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedProvider {
    /// The provider, by its name in board files.
    pub provider: String,
    /// Why it does not.
    pub reason: String,
}

/// A version that could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedVersion {
    /// The version.
    pub version: String,
    /// Why it could not be loaded.
    pub reason: String,
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Its element type.
    #[serde(
        serialize_with = "datatype::write",
        deserialize_with = "datatype::read"
    )]
    pub datatype: Datatype,
    /// Its dimensions; -1 where any length fits.
    pub shape: Vec<i64>,
}

/// A version in the index of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The model.
    pub name: String,
    /// Its version; empty where the model has none.
    #[serde(default)]
    pub version: String,
    /// Its state.
    pub state: IndexState,
    /// Why it is in this state; empty where there is nothing to say.
    #[serde(default)]
    pub reason: String,
}

/// State of a version in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum IndexState {
    /// Takes requests.
    Ready,
    /// Is being loaded, warmed up and tried out.
    Loading,
    /// Takes no requests.
    Unavailable,
}

mod datatype {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::Datatype;

    pub(super) fn write<S: Serializer>(datatype: &Datatype, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(datatype.name())
    }

    pub(super) fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Datatype, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(d)?;
        name.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_their_names() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.name()), Some(operation));
        }
        assert_eq!(Operation::from_name("reboot"), None);
    }

    #[test]
    fn a_subject_is_read_by_the_names_of_both_forms() {
        let read = |text: &str| Subject::decode(text.as_bytes()).unwrap();
        assert_eq!(read("{}"), Subject::default());
        assert_eq!(read(""), Subject::default());
        assert_eq!(
            read(r#"{"model_name":"m"}"#),
            read(r#"{"name":"m","later":1}"#)
        );
        assert!(Subject::decode(b"7").is_err());
    }

    #[test]
    fn the_index_is_written_as_triton_writes_it() {
        let entry = IndexEntry {
            name: "digits".into(),
            version: "1".into(),
            state: IndexState::Ready,
            reason: String::new(),
        };
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            json,
            r#"{"name":"digits","version":"1","state":"READY","reason":""}"#
        );
        assert_eq!(serde_json::from_str::<IndexEntry>(&json).unwrap(), entry);
    }
}
