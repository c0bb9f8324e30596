//! What became of a request.

use std::time::Duration;

use crate::inference::Times;
use edge_protocol::{
    Status,
    oip::{self, Body, Encoding},
    text::is_forbidden,
};

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// HTTP code.
    pub status: Status,
    /// What was wrong; empty with 200.
    pub message: String,
    /// When to try again, with 429 and 503.
    pub retry_after: Option<Duration>,
    /// The answer's body.
    pub body: Body,
    /// How long it took, where it ran.
    pub times: Option<Times>,
}

/// Longest status message. A user property holds 65,535 bytes (MQTT 5, section 1.5.4); people read less.
const MESSAGE_MAX_CHARS: usize = 1_000;

impl Outcome {
    /// The request was answered.
    #[must_use]
    pub fn success(body: Body) -> Self {
        Self {
            status: Status::Ok,
            message: String::new(),
            retry_after: None,
            body,
            times: None,
        }
    }

    /// The request failed; its body follows the request's encoding.
    #[must_use]
    pub fn failure(status: Status, message: &str, encoding: Encoding) -> Self {
        let message: String = message
            .chars()
            .take(MESSAGE_MAX_CHARS)
            .map(|c| if is_forbidden(c) { ' ' } else { c })
            .collect();
        Self {
            status,
            body: oip::encode_failure(&message, encoding),
            message,
            retry_after: None,
            times: None,
        }
    }

    /// The request may succeed after this time.
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// `retry_after` in whole milliseconds.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.retry_after
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}
