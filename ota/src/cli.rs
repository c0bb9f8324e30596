//! The words that `edge-ota` understands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use edge_hal::slots::Slot;

/// Keep the two systems of an Aethir Edge box: see which one runs, confirm it, go back to the other.
#[derive(Debug, Parser)]
#[command(
    name = "edge-ota",
    version,
    arg_required_else_help = true,
    after_help = "\
A box has two slots, A and B, with a system in each. A new system starts on trial: the boot loader counts its starts,
and returns to the other slot when they are used up and nobody confirmed it. On the image, edge-ota-confirm.service
confirms once the agent has served for a minute.

Exit codes: 0 done, 1 storage failed, 2 wrong command line or a board without slots, 3 refused: nothing was changed.
All but `completions` need root."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show both slots as the boot loader would find them now.
    #[command(after_help = "\
Examples:
  edge-ota status
  edge-ota status --json | jq -r .running")]
    Status {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Where the slots are.
        #[command(flatten)]
        place: Place,
    },
    /// Record that the running system works; its starts are counted no more.
    ///
    /// Also tidies up what a power cut left of an earlier change. Where all that is done already, nothing is written.
    #[command(after_help = "\
Examples:
  edge-ota confirm
  edge-ota confirm --slot B    only if slot B is the one that runs")]
    Confirm {
        /// Refuse unless this slot runs.
        #[arg(long, value_enum)]
        slot: Option<SlotName>,
        /// Where the slots are.
        #[command(flatten)]
        place: Place,
    },
    /// Let the other system start next; a restart does it.
    ///
    /// Where the running system is confirmed, the other one starts on trial and this one stays to return to. Where it is
    /// not, it is given up. Refused where the other slot holds no system that ever worked.
    #[command(after_help = "\
Examples:
  edge-ota rollback
  edge-ota rollback --reboot")]
    Rollback {
        /// Restart the box at once.
        #[arg(long)]
        reboot: bool,
        /// Where the slots are.
        #[command(flatten)]
        place: Place,
    },
    /// Print the completion script for a shell.
    #[command(after_help = "\
Example:
  edge-ota completions bash > ~/.local/share/bash-completion/completions/edge-ota")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Where the slots are.
#[derive(Debug, Args)]
pub struct Place {
    /// Board, by name or as a path to its file [default: as the device tree says; host-sim without one].
    #[arg(long, env = "EDGE_BOARD", value_name = "NAME|FILE")]
    pub board: Option<String>,
    /// Folder that stands for /: devices, /boot and /proc are looked for below it.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Where the journal of changes is kept; it must outlive power cuts.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-ota")]
    pub state: PathBuf,
}

/// A slot by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SlotName {
    /// The first.
    #[value(name = "A", alias = "a")]
    A,
    /// The second.
    #[value(name = "B", alias = "b")]
    B,
}

impl From<SlotName> for Slot {
    fn from(name: SlotName) -> Self {
        match name {
            SlotName::A => Self::A,
            SlotName::B => Self::B,
        }
    }
}
