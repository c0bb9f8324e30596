//! The commands. Each takes its arguments, wires the parts together and prints what came out.

pub mod ca;
pub mod completions;
pub mod flash;
pub mod provision;
pub mod sense;
pub mod sim_fastboot;
