//! What a box is asked beside inference: metadata, readiness, and what to load. The same for MQTT and HTTP.

use std::sync::Arc;

use edge_protocol::{
    Id, Status,
    oip::{
        Body, Encoding,
        server::{Live, ModelList, ModelReady, Operation, Ready, ServerMetadata, Subject},
    },
};
use serde::Serialize;
use tracing::info;

use crate::{
    inference::{LoadError, Loader, Models, Reply},
    outcome::Outcome,
};

/// Extensions of the Open Inference Protocol that a box has, by their names in Triton's documentation.
const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "classification",
    "model_repository",
    "schedule_policy",
];

/// Carries operations out.
pub(crate) struct Operations {
    models: Arc<Models>,
    loader: Arc<Loader>,
}

/// What is asked, by whom.
pub(crate) struct Asked<'a> {
    pub(crate) operation: Operation,
    pub(crate) subject: Subject,
    /// For the log.
    pub(crate) who: &'a str,
    pub(crate) is_admin: bool,
}

impl Operations {
    pub(crate) const fn new(models: Arc<Models>, loader: Arc<Loader>) -> Self {
        Self { models, loader }
    }

    /// Names of all models.
    pub(crate) fn models(&self) -> Outcome {
        let names = self
            .models
            .report()
            .into_iter()
            .map(|model| model.name.to_string());
        json(&ModelList {
            models: names.collect(),
        })
    }

    /// Carries an operation out, and answers. It never waits: loading goes on elsewhere, and answers when it is done.
    pub(crate) fn perform(&self, asked: Asked<'_>, reply: Reply) {
        let Asked {
            operation,
            subject,
            who,
            is_admin,
        } = asked;
        if operation.is_for_admins() && !is_admin {
            info!(
                who,
                operation = operation.name(),
                "an operation is refused: not an admin"
            );
            let why = format!(
                "{who} may not ask for {}; admins are named with --admins",
                operation.name()
            );
            reply.send(failure(Status::Forbidden, &why));
            return;
        }
        match self.answer(operation, &subject) {
            Step::Answer(outcome) => reply.send(outcome),
            Step::Load(model) => {
                let done = self.audited(operation, &model, who, reply);
                self.loader.load(model, done);
            }
            Step::Unload(model) => {
                let done = self.audited(operation, &model, who, reply);
                self.loader.unload(model, done);
            }
        }
    }

    /// What answers, and leaves a line in the log that says who asked for what.
    fn audited(
        &self,
        operation: Operation,
        model: &Id,
        who: &str,
        reply: Reply,
    ) -> crate::inference::Done {
        let (model, who) = (model.clone(), who.to_owned());
        info!(%model, who, operation = operation.name(), "an admin asks");
        Box::new(move |result| {
            let result_text = result
                .as_ref()
                .map_or_else(ToString::to_string, |()| "done".to_owned());
            info!(%model, who, operation = operation.name(), result = result_text, "an admin is answered");
            reply.send(match result {
                Ok(()) => json(&serde_json::Map::new()),
                Err(error) => failure(
                    match error {
                        LoadError::Unknown(_) => Status::NotFound,
                        LoadError::Failed { .. } => Status::RuntimeFailed,
                        LoadError::Busy => Status::Unavailable,
                    },
                    &error.to_string(),
                ),
            });
        })
    }

    fn answer(&self, operation: Operation, subject: &Subject) -> Step {
        match operation {
            Operation::ServerLive => Step::Answer(json(&Live { live: true })),
            Operation::ServerReady => {
                let ready = self.models.is_ready();
                Step::Answer(with(ready, &Ready { ready }))
            }
            Operation::ServerMetadata => Step::Answer(json(&ServerMetadata {
                name: "aethir-edge".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                extensions: EXTENSIONS.map(str::to_owned).to_vec(),
            })),
            Operation::RepositoryIndex => Step::Answer(json(&self.models.index(subject.ready))),
            Operation::ModelReady => self.about(subject, |model, version| {
                let ready = self.models.is_model_ready(&model, version);
                let name = model.to_string();
                Step::Answer(match ready {
                    Some(ready) => with(ready, &ModelReady { name, ready }),
                    None => failure(Status::NotFound, &format!("there is no model {model}")),
                })
            }),
            Operation::ModelMetadata => self.about(subject, |model, version| {
                Step::Answer(match self.models.metadata(&model, version) {
                    Ok(metadata) => json(&metadata),
                    Err((status, why)) => failure(status, &why),
                })
            }),
            Operation::RepositoryModelLoad => {
                let replaces = |name: &&String| *name == "config" || name.starts_with("file:");
                if let Some(name) = subject.parameters.keys().find(replaces) {
                    let why = format!(
                        "{name:?} is not served: a model is what lies in the box's repository"
                    );
                    return Step::Answer(failure(Status::BadRequest, &why));
                }
                self.about(subject, |model, _| Step::Load(model))
            }
            Operation::RepositoryModelUnload => self.about(subject, |model, _| Step::Unload(model)),
        }
    }

    /// Goes on with the model and version that an operation is about.
    fn about(&self, subject: &Subject, go_on: impl FnOnce(Id, Option<u64>) -> Step) -> Step {
        let Some(name) = &subject.name else {
            return Step::Answer(failure(
                Status::BadRequest,
                "the operation needs a model's name",
            ));
        };
        let Ok(model) = Id::new(name) else {
            return Step::Answer(failure(Status::NotFound, &no_such_model(name)));
        };
        match version(subject.version.as_deref().unwrap_or_default()) {
            Ok(version) => go_on(model, version),
            Err(why) => Step::Answer(failure(Status::BadRequest, &why)),
        }
    }
}

/// What is left to do.
enum Step {
    Answer(Outcome),
    Load(Id),
    Unload(Id),
}

/// What is wrong when there is no model of this name, which may be any text.
pub(crate) fn no_such_model(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    format!("there is no model {name}")
}

/// The version that a text names; none for the empty text.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn version(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let text: String = text.chars().take(64).collect();
        format!("{text:?} is no version: versions are whole numbers from 1")
    })
}

fn json(value: &impl Serialize) -> Outcome {
    with(true, value)
}

/// An answer that is a failure, though not without a body, when something is not ready.
fn with(is_ready: bool, value: &impl Serialize) -> Outcome {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut outcome = Outcome::success(Body {
                bytes: bytes.into(),
                encoding: Encoding::Json,
            });
            if !is_ready {
                outcome.status = Status::Unavailable;
                outcome.message = "not ready".to_owned();
            }
            outcome
        }
        Err(error) => failure(Status::RuntimeFailed, &error.to_string()),
    }
}

fn failure(status: Status, why: &str) -> Outcome {
    Outcome::failure(status, why, Encoding::Json)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::{Value, json};

    use super::*;
    use crate::inference::{Book, Library, Quarantine};

    fn operations(dir: &std::path::Path) -> Operations {
        let models = Arc::new(Models::new());
        let library = Library {
            dir: dir.to_owned(),
            onnxruntime: "nowhere.so".into(),
            memory_max_bytes: 0,
        };
        let loader = {
            let (quarantine, book) = (Quarantine::default(), Book::default());
            Loader::start(models.clone(), library, quarantine, book).unwrap()
        };
        Operations::new(models, Arc::new(loader))
    }

    fn ask(
        operations: &Operations,
        operation: Operation,
        subject: &str,
        is_admin: bool,
    ) -> (u16, Value) {
        let (sender, outcome) = mpsc::channel();
        let asked = Asked {
            operation,
            subject: Subject::decode(subject.as_bytes()).unwrap(),
            who: "admin-1",
            is_admin,
        };
        let reply = Reply::new(Encoding::Json, move |outcome| sender.send(outcome).unwrap());
        operations.perform(asked, reply);
        let outcome: Outcome = outcome.recv().unwrap();
        (
            outcome.status.code(),
            serde_json::from_slice(&outcome.body.bytes).unwrap(),
        )
    }

    #[test]
    fn admins_alone_may_look_into_the_repository_and_change_what_serves() {
        let dir = tempfile::tempdir().unwrap();
        let operations = operations(dir.path());
        for operation in Operation::ALL {
            let (status, _) = ask(&operations, operation, r#"{"name":"digits"}"#, false);
            assert_eq!(status == 403, operation.is_for_admins(), "{operation:?}");
            let (status, _) = ask(&operations, operation, r#"{"name":"digits"}"#, true);
            assert_ne!(status, 403, "{operation:?}");
        }
    }

    #[test]
    fn a_model_that_cannot_be_loaded_is_answered_and_listed_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("digits/1")).unwrap();
        std::fs::write(dir.path().join("digits/1/model.onnx"), "").unwrap();
        let operations = operations(dir.path());
        let load = Operation::RepositoryModelLoad;
        let (status, body) = ask(&operations, load, r#"{"model_name":"digits"}"#, true);
        assert_eq!(status, 500);
        let error = body["error"].as_str().unwrap();
        assert!(
            error.contains("version 1: there is no ONNX Runtime at nowhere.so"),
            "{error}"
        );
        let (status, index) = ask(&operations, Operation::RepositoryIndex, "", true);
        assert_eq!(status, 200);
        assert_eq!(index[0]["state"], "UNAVAILABLE");
        assert!(
            index[0]["reason"].as_str().unwrap().contains("nowhere.so"),
            "{index}"
        );
        let (status, _) = ask(
            &operations,
            Operation::ModelReady,
            r#"{"name":"digits"}"#,
            true,
        );
        assert_eq!(status, 503);
        let (status, body) = ask(&operations, load, r#"{"name":"cats"}"#, true);
        assert_eq!(
            (status, body),
            (
                404,
                json!({"error": "there is no model cats in the repository"})
            )
        );
    }

    #[test]
    fn what_an_operation_does_not_understand_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let operations = operations(dir.path());
        for (operation, subject, wanted, words) in [
            (Operation::ModelReady, "{}", 400, "needs a model's name"),
            (
                Operation::ModelReady,
                r#"{"name":"Not A Name"}"#,
                404,
                "no model Not A Name",
            ),
            (
                Operation::ModelMetadata,
                r#"{"name":"m","version":"new"}"#,
                400,
                "whole numbers",
            ),
            (
                Operation::RepositoryModelLoad,
                r#"{"name":"m","parameters":{"file:1/model.onnx":"AAAA"}}"#,
                400,
                "is not served",
            ),
        ] {
            let (status, body) = ask(&operations, operation, subject, true);
            let error = body["error"].as_str().unwrap();
            assert_eq!(status, wanted, "{subject}");
            assert!(error.contains(words), "{subject}: {error}");
        }
    }
}
