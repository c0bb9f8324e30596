//! The simulated board: parts behind the same traits as the real ones, and what happens to them.
//!
//! - [`reading`]: one reading that somebody sets, and makes fail
//! - [`thermal_model`]: how load, air and fan become temperatures (pure)
//! - [`board`]: all simulated parts of one board, moved on in time together
//! - `life`: what happens to them as time passes
//! - [`script`]: what is to happen when, from a TOML file
//! - [`trial`]: the loop closed over a simulated board, and the oracle

pub mod board;
mod life;
pub mod reading;
pub mod script;
pub mod thermal_model;
pub mod trial;

pub use self::{
    board::{PowerState, ResetReason, SimBoard, SimBoardError},
    reading::{SimFault, SimReading},
    script::{Event, Script, ScriptError, Step},
    thermal_model::{Loads, ThermalModel},
};
