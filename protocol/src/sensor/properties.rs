//! What the MQTT properties of an answer say, in plain values.

use core::time::Duration;

use crate::property;

/// The properties of an answer that this protocol knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a> {
    /// Content type of the body.
    pub content_type: Option<&'a str>,
    /// Bytes of JSON before the binary tensors.
    pub header_length: Option<usize>,
    /// HTTP status code, see [`crate::Status`].
    pub status: Option<u16>,
    /// What was wrong, in the box's words.
    pub message: &'a str,
    /// When a refused request may be sent again.
    pub retry_after: Option<Duration>,
}

impl<'a> Properties<'a> {
    /// Reads MQTT 5's Content Type and User Properties. Others, and numbers that are none, are skipped.
    pub fn new(
        content_type: Option<&'a str>,
        user_properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut properties = Self {
            content_type,
            ..Self::default()
        };
        for (name, value) in user_properties {
            match name {
                property::STATUS => properties.status = value.parse().ok(),
                property::STATUS_MESSAGE => properties.message = value,
                property::RETRY_AFTER_MS => {
                    properties.retry_after = value.parse().ok().map(Duration::from_millis);
                }
                property::INFERENCE_HEADER_CONTENT_LENGTH => {
                    properties.header_length = value.parse().ok();
                }
                _ => {}
            }
        }
        properties
    }
}
