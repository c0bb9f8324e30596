//! A sensor's side of the wire, for firmware that brings its own MQTT library: a state machine without I/O, clock or
//! allocator. [`Client`] says which request to publish now and which incoming message answers which request; the
//! firmware connects, publishes, subscribes to [`Client::reply_filter`] and tells the time.
//!
//! Quality of service 1 alone does not bring an answer: a box may lose power after it took a request. So a request is
//! published again, with the same correlation, until it is answered or expired ([`Patience`]); the box runs it once
//! and answers repeats from its cache, and the firmware sees exactly one outcome.
//!
//! ```
//! use core::time::Duration;
//! use edge_protocol::sensor::{Answer, Body, Client, Due, Outcome, Patience, Properties, To};
//! use edge_protocol::Id;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Up to two requests wait at a time. The last number is random: it tells this start's answers from earlier ones'.
//! let patience = Patience::until(Duration::from_secs(10));
//! let mut client = Client::<2>::new(Id::new("lab")?, Id::new("probe-7")?, 0x5eed, patience);
//! let digits = Id::new("digits")?;
//! let to = To { model: &digits, box_id: None };
//! # let mut now = Duration::ZERO; // since the firmware started
//!
//! client.link_up(now); // connected, and subscribed to client.reply_filter()
//! let number = client.begin(now)?;
//! let pixels = [0_u8; 4 * 64]; // 64 times FP32, little-endian
//! if let Some(Due::Send(send)) = client.take_due(now) {
//!     let publish = client.publish(send, to, Body::Raw(&pixels));
//!     assert_eq!(publish.topic, "edge/v1/lab/any/infer/digits/probe-7");
//!     assert_eq!(publish.expiry_s, 10);
//!     // mqtt.publish(publish.topic, QoS 1, publish.payload, its properties ...)
//! }
//!
//! // A message came in on the reply topic.
//! let properties = Properties::new(Some("application/octet-stream"), [
//!     ("status", "200"),
//!     ("inference-header-content-length", "2"),
//! ]);
//! let correlation = "0000000000005eed-0";
//! let outcome = client.receive(now, correlation.as_bytes(), &properties, b"{}\x07\0\0\0\0\0\0\0");
//! let Some((answered, Outcome::Answered(Answer::Raw { data, .. }))) = outcome else { panic!("answered") };
//! assert_eq!((answered, data), (number, &[7, 0, 0, 0, 0, 0, 0, 0][..]));
//! # Ok(())
//! # }
//! ```
//!
//! Over MQTT 3.1.1, [`Client::envelope`] and [`Client::receive_envelope`] take the place of `publish` and `receive`.

mod attempt;
mod client;
mod envelope;
mod properties;

pub use attempt::{Attempt, Look, Patience, whole_seconds};
pub use client::{
    Answer, Body, CORRELATION_TEXT_MAX_BYTES, Client, Correlation, Due, Enveloped, Full, Outcome,
    Publish, REPLY_TOPIC_MAX_BYTES, REQUEST_TOPIC_MAX_BYTES, Send, To, Unreadable,
};
pub use envelope::EnvelopeError;
pub use properties::Properties;
