//! The command line of owners, sensor makers and fleet admins.
//!
//! - [`cli`]: the words that it understands
//! - [`commands`]: a file for each command
//! - [`exit`]: exit codes
//! - [`own_identity`]: a certificate and its key, as `edgectl ca issue` writes them
//! - [`flash`]: images onto files, disks and boards
//! - [`provisioning`]: a disk's provisioning partition, and what is written there
//! - [`sensor`]: what `edgectl sense` plays

pub mod cli;
pub mod commands;
pub mod exit;
pub mod flash;
pub mod own_identity;
pub mod provisioning;
pub mod sensor;
