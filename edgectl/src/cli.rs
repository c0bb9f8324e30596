//! The words that `edgectl` understands.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{ca::CaArgs, sense::SenseArgs};

/// Work with Aethir Edge boxes from a terminal or a script.
#[derive(Debug, Parser)]
#[command(
    name = "edgectl",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 all done, 1 some of it failed, 2 wrong command line or unusable file,
3 broker not reached. `edgectl COMMAND --help` has examples.
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
    /// Play a sensor: send readings to a model, check the answers, measure.
    Sense(Box<SenseArgs>),
    /// Say who belongs to a region: make its certificate authority, tokens and certificates, approve and revoke.
    Ca(Box<CaArgs>),
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
