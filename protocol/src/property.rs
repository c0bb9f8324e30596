//! MQTT 5 user properties and content types of requests and answers.

/// Content type of the Open Inference Protocol v2 as JSON.
pub const CONTENT_TYPE_JSON: &str = "application/json";
/// Content type of the binary tensor extension; needs [`INFERENCE_HEADER_CONTENT_LENGTH`].
pub const CONTENT_TYPE_BINARY: &str = "application/octet-stream";
/// Content type of the compact form ([`crate::compact`]).
pub const CONTENT_TYPE_CBOR: &str = "application/cbor";

/// Length in bytes of the JSON that precedes binary tensors; 0 means that the body is one raw tensor.
/// Named as the HTTP header of the binary tensor extension.
pub const INFERENCE_HEADER_CONTENT_LENGTH: &str = "inference-header-content-length";
/// Answer: HTTP status code, see [`crate::Status`].
pub const STATUS: &str = "status";
/// Answer: what was wrong, in words.
pub const STATUS_MESSAGE: &str = "status-message";
/// Answer with 429 or 503: when to try again, in milliseconds.
pub const RETRY_AFTER_MS: &str = "retry-after-ms";
/// Answer: the box that ran the request.
pub const SERVED_BY: &str = "served-by";
