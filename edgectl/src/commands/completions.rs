//! `edgectl completions SHELL`.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, exit::Exit};

/// Writes the completion script for `shell` to standard output.
#[must_use]
pub fn run(shell: Shell) -> Exit {
    clap_complete::generate(shell, &mut Cli::command(), "edgectl", &mut io::stdout());
    Exit::Done
}
