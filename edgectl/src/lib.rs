//! The command line of owners, sensor makers and fleet admins.
//!
//! - [`cli`]: the words that it understands
//! - [`commands`]: a file for each command
//! - [`exit`]: exit codes
//! - [`provisioning`]: a disk's provisioning partition, and what is written there
//! - [`sensor`]: what `edgectl sense` plays

pub mod cli;
pub mod commands;
pub mod exit;
pub mod provisioning;
pub mod sensor;
