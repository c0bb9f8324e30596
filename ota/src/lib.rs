//! The updater on a box, as a library for its binary and its tests. Today it keeps the boot slots: it confirms a system
//! that works and goes back to the one before. It must not need the agent, a network or the clock.
//!
//! - [`cli`]: the words that it understands
//! - [`confirm`]: the running slot proved itself
//! - [`rollback`]: back to the other slot; what to do is decided over plain values
//! - [`report`]: the slots, for people and programs
//! - [`exit`]: exit codes

pub mod cli;
pub mod confirm;
pub mod exit;
pub mod report;
pub mod rollback;
