//! The words that `edgectl` understands.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{
    ca::CaArgs, flash::FlashArgs, provision::ProvisionArgs, sense::SenseArgs,
    sim_fastboot::SimFastbootArgs,
};

/// Work with Aethir Edge boxes from a terminal or a script.
#[derive(Debug, Parser)]
#[command(
    name = "edgectl",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 all done, 1 some of it failed, 2 wrong command line or unusable file or target,
3 broker or board not reached. `edgectl COMMAND --help` has examples.
Set RUST_LOG=edgectl=debug to see what happens on the wire."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write an image to a file, a disk or a board.
    Flash(Box<FlashArgs>),
    /// Tell a box where it belongs, before its first start: writes into an image or onto a disk.
    Provision(Box<ProvisionArgs>),
    /// Play a sensor: send readings to a model, check the answers, measure.
    Sense(Box<SenseArgs>),
    /// Say who belongs to a region: make its certificate authority, tokens and certificates, approve and revoke.
    Ca(Box<CaArgs>),
    /// Play a board in fastboot mode, to try `flash` without one.
    SimFastboot(SimFastbootArgs),
    /// Print the completion script for a shell.
    #[command(after_help = "\
Examples:
  edgectl completions bash > ~/.local/share/bash-completion/completions/edgectl
  edgectl completions fish > ~/.config/fish/completions/edgectl.fish")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}
