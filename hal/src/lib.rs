//! The board: what it is, what its hardware says, and what can be set on it.
//!
//! - [`board`]: the files of `board-configs/`, read and checked
//! - [`cpu`], [`gpu`], [`memory`], [`network`], [`power`], [`pressure`], [`storage`], [`storage_health`], [`system`],
//!   [`thermal`]: one kind of reading each, as a trait named for the hardware, with Linux and simulated implementations
//! - [`sensors`]: all readings of one board together, sampled without allocating
//! - [`fan`], [`watchdog`], [`led`], [`clock`], [`reset`]: one thing each that the agent sets or asks, in the same way
//! - [`controls`]: all that can be set on one board together
//! - [`slots`]: the two systems of a board, and which of them starts; [`gpt`]: where a partition lies
//! - [`governor`]: how much work the temperatures allow (pure)
//! - [`identity`]: the key that tells this box from all others
//! - [`crash_note`]: what a process was doing when a signal killed it; [`heap`]: how it gives memory back
//! - [`sim`]: the simulated board, and what a test or a demonstration lets happen to it
//!
//! Nothing here knows of MQTT, models or telemetry, and nothing is read but below the root folder that the caller
//! names, so that a fixture tree stands in for a machine.

pub mod board;
mod class_folder;
pub mod clock;
pub mod controls;
pub mod cpu;
pub mod crash_note;
pub mod fan;
pub mod governor;
pub mod gpt;
pub mod gpu;
pub mod heap;
pub mod identity;
mod kernel_file;
mod kernel_folder;
mod kernel_setting;
pub mod led;
pub mod memory;
pub mod network;
pub mod power;
pub mod pressure;
pub mod reset;
pub mod sensors;
pub mod sim;
pub mod slots;
pub mod storage;
pub mod storage_health;
pub mod system;
pub mod thermal;
pub mod watchdog;

pub use board::{Board, BoardError};
pub use class_folder::{ClassFileError, MissingFolder};
pub use kernel_file::{KernelFile, KernelFileError};
pub use kernel_setting::{KernelSetting, KernelSettingError};
pub use sensors::{Readings, Sensors};
