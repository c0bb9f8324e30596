//! The contract of a request over MQTT, from its arrival to its acknowledgement.
//!
//! [`admission`] reads what arrived, [`answers`] runs each request once and remembers its answer, [`exchange`] keeps
//! acknowledgements in order and behind the answers; these three are pure. [`connection`], [`intake`] and
//! [`service`] put them between the broker and the inference threads. [`operations`] is what a box is asked beside
//! inference.

pub mod admission;
pub mod answers;
pub(crate) mod connection;
pub mod exchange;
pub(crate) mod intake;
pub(crate) mod operations;
pub(crate) mod service;
mod slow;
