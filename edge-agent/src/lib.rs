//! The daemon on an Edge box, as a library for its binary and its tests.
//!
//! - [`settings`]: flags and file to one checked set of settings; [`service_url`]: one kind of them;
//! - [`run`]: the wiring, from start to drained end;
//! - [`hardware`]: the thread that owns the board's hardware, and the governor;
//! - [`inference`]: model repository, ONNX Runtime, the threads that compute;
//! - [`requests`]: the contract of a request, from its arrival to its acknowledgement;
//! - [`http`]: the Open Inference Protocol over HTTP, where the settings want it;
//! - [`health`]: which parts make progress, and what is done about those that do not
//! - [`child`]: questions to a process of their own; [`durable`]: files that a power cut leaves whole
//! - [`exit`]: exit codes
//! - [`outcome`]: what became of a request;
//! - [`link`]: an MQTT connection that is kept up;
//! - [`presence`]: who holds the data folder; [`identity`]: the box's key in it;
//! - [`telemetry`]: what the region gets to know of the box;
//! - [`first_start`]: what a box without a screen does before all that, at each boot;
//! - [`doctor`]: whether the box is well, for the owner.

mod chain;
mod child;
pub mod doctor;
mod durable;
pub mod exit;
pub mod first_start;
pub mod hardware;
pub mod health;
mod http;
mod identity;
pub mod inference;
mod link;
pub mod outcome;
mod presence;
pub mod requests;
pub mod run;
pub mod service_url;
pub mod settings;
mod telemetry;
