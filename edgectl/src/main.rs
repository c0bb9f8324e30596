//! `edgectl`: reads the command line, runs the command, prints an error once.

use std::{io, process::ExitCode};

use clap::Parser;
use edgectl::{
    cli::{Cli, Command},
    commands::{ca, completions, flash, provision, sense, sim_fastboot},
    exit::Exit,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .init();
    let result = match cli.command {
        Command::Flash(args) => flash::run(&args),
        Command::Provision(args) => provision::run(*args),
        Command::Sense(args) => sense::run(*args),
        Command::Ca(args) => ca::run(*args),
        Command::SimFastboot(args) => sim_fastboot::run(args),
        Command::Completions { shell } => Ok(completions::run(shell)),
    };
    result
        .unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Exit::of(&error)
        })
        .into()
}
