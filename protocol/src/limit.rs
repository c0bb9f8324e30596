//! Bounds on what a box accepts from the wire. Sizes are bytes unless the name says otherwise.

/// Largest inference request body; larger ones are answered with 413.
/// Room for a 1920x1080 RGB image as `UINT8` (6.2 MB).
pub const REQUEST_MAX_BYTES: usize = 8 << 20;

/// MQTT Maximum Packet Size of boxes, sensors and the embedded broker. Twice the request limit, so that a request
/// that is too large still reaches the box and is answered instead of being dropped by the broker
/// (MQTT 5, section 3.1.2.11.4: the server drops what is too large for the receiver without telling anyone).
pub const PACKET_MAX_BYTES: u32 = 16 << 20;

/// Longest topic in bytes: the longest request topic has five names of 63 bytes.
pub const TOPIC_MAX_BYTES: usize = 512;

/// Levels of a topic. Brokers end the connection of a client that publishes too deep (Mosquitto: 200).
pub const TOPIC_LEVELS_MAX: usize = 32;

/// Largest body of an answer: with base64 and properties it still fits into [`PACKET_MAX_BYTES`].
pub const ANSWER_MAX_BYTES: usize = 11 << 20;

/// Longest Correlation Data.
pub const CORRELATION_MAX_BYTES: usize = 64;

/// Longest Message Expiry: a box keeps an answer for duplicates this long.
pub const EXPIRY_MAX_S: u32 = 3_600;

/// Inputs, outputs and dimensions of one request.
pub const TENSORS_MAX: usize = 16;

/// Dimensions of one tensor.
pub const DIMENSIONS_MAX: usize = 8;

/// Longest name of a tensor.
pub const TENSOR_NAME_MAX_BYTES: usize = 256;

/// Requests that a box takes unacknowledged on one connection (MQTT Receive Maximum): more than all queue bounds
/// together, because acknowledgements must keep the order of arrival (MQTT 5, section 4.6).
pub const RECEIVE_MAX: u16 = 1_024;

/// Metrics in one Sparkplug payload.
pub const SPARKPLUG_METRICS_MAX: usize = 4_096;

/// Bytes of one Sparkplug payload.
pub const SPARKPLUG_MAX_BYTES: usize = 1 << 20;
