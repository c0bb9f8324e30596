//! The daemon on an Edge box, as a library for its binary and its tests.
//!
//! - [`settings`]: flags and file to one checked set of settings;
//! - [`run`]: the wiring, from start to drained end;
//! - [`inference`]: model repository, ONNX Runtime, the threads that compute;
//! - [`requests`]: the contract of a request, from its arrival to its acknowledgement;
//! - [`outcome`]: what became of a request;
//! - [`link`]: an MQTT connection that is kept up;
//! - [`telemetry`]: what the region gets to know of the box.

pub mod inference;
mod link;
pub mod outcome;
pub mod requests;
pub mod run;
pub mod settings;
mod telemetry;
