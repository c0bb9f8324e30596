//! The agent's binary: command line, logging, exit code.

use std::{error::Error, io, io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use edge_agent::{
    run,
    settings::{Options, Settings},
};
use tracing_subscriber::EnvFilter;

/// The daemon on an Aethir Edge box: serves inference over MQTT and reports telemetry to its region.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Example:
  edge-agent run --region lab --box-id box-1 --broker mqtt://127.0.0.1:1883 \\
    --models models/ --data data/ --onnxruntime libonnxruntime.so

Logs go to standard error; RUST_LOG chooses what, such as RUST_LOG=edge_agent=debug."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C
    Run(Box<Run>),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Settings file in TOML; its keys are the flags' names with '_' for '-'. Flags win
    #[arg(long, env = "EDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Form of the log
    #[arg(long, env = "EDGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// For machines: one JSON object a line
    Json,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "edge-agent", &mut io::stdout());
            ExitCode::SUCCESS
        }
        Command::Run(command) => {
            start_log(command.log_format);
            match serve(*command) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    print_chain(&*error);
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn serve(command: Run) -> Result<(), Box<dyn Error>> {
    let file = match &command.config {
        Some(path) => Options::from_file(path)?,
        None => Options::default(),
    };
    let settings: Settings = command.options.or(file).check()?;
    // One thread is enough for all that waits; inference has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run::run(settings));
    // A hanging sensor's thread is left behind.
    runtime.shutdown_background();
    Ok(ended?)
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn print_chain(error: &dyn Error) {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("edge-agent: {message}");
}
