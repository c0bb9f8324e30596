//! A request on its way to a model.

use std::time::Instant;

use bytes::Bytes;
use edge_protocol::{Id, Status, oip::Encoding};

use crate::outcome::Outcome;

/// A request on its way to a model.
pub struct Job {
    /// Who sent it.
    pub client: Id,
    /// The request, encoded.
    pub body: Bytes,
    /// How it is encoded.
    pub encoding: Encoding,
    /// When it arrived.
    pub arrived: Instant,
    /// When its answer is of no use any more.
    pub deadline: Instant,
    /// Takes the outcome.
    pub reply: Reply,
}

/// Takes the outcome of a [`Job`], exactly one: dropped unanswered, it answers with 500, so that a bug costs one
/// request and not the place of those behind it.
pub struct Reply {
    encoding: Encoding,
    send: Option<Box<dyn FnOnce(Outcome) + Send>>,
}

impl Reply {
    /// A reply that calls `send` with the outcome.
    pub fn new(encoding: Encoding, send: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self {
            encoding,
            send: Some(Box::new(send)),
        }
    }

    /// How the answer is to be encoded.
    pub(super) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Answers.
    pub fn send(mut self, outcome: Outcome) {
        if let Some(send) = self.send.take() {
            send(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            let why = "the inference thread ended before it had an answer";
            send(Outcome::failure(Status::RuntimeFailed, why, self.encoding));
        }
    }
}
