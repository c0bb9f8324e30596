//! A sensor: readings from a file, sent as requests, answers judged.
//!
//! - [`dataset`]: the readings
//! - [`wire`]: readings as messages, messages as verdicts
//! - [`pace`] and [`ledger`]: what to send when, and what became of it, as pure state machines
//! - [`link`]: the connection
//! - [`run`]: the loop around them
//! - [`report`]: the figures

pub mod dataset;
pub mod ledger;
pub mod link;
pub mod pace;
pub mod report;
pub mod run;
pub mod wire;
