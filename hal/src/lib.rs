//! The board: what it is, and what its hardware says.
//!
//! - [`board`]: the files of `board-configs/`, read and checked
//! - [`cpu`], [`memory`], [`storage`], [`thermal`], [`system`]: one kind of reading each, as a trait named for the
//!   hardware, with Linux and simulated implementations
//! - [`sim`]: readings that a test or a demonstration sets, and makes fail
//! - [`sensors`]: all readings of one board together
//!
//! Nothing here knows of MQTT, models or telemetry, and nothing is read but below the root folder that the caller
//! names, so that a fixture tree stands in for a machine.

pub mod board;
pub mod cpu;
mod kernel_file;
pub mod memory;
pub mod sensors;
pub mod sim;
pub mod storage;
pub mod system;
pub mod thermal;

pub use board::{Board, BoardError};
pub use kernel_file::{KernelFile, KernelFileError};
pub use sensors::{Readings, Sensors};
