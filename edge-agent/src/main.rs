//! The agent's binary: command line, logging, exit code.

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::{self, ExitCode},
    thread,
    time::Duration,
};

use clap::{CommandFactory, Parser, Subcommand};
use edge_agent::{
    doctor::{self, Asked, Check, Probe, Verdict},
    exit::Exit,
    first_start::{self, FirstStart},
    run,
    settings::{Options, Settings, SettingsError},
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
    /// Check all that the box needs, and say what to do
    #[command(after_help = "\
Exit codes: 0 all good or warnings only, 1 something is bad, 2 wrong command line.
Takes the settings of `run`; with the same file it checks what the agent uses.

Examples:
  edge-agent doctor --config /etc/edge-agent.toml
  edge-agent doctor --config /etc/edge-agent.toml --only broker,indexer
  edge-agent doctor --json | jq -r '.checks[] | select(.verdict != \"good\") | .check'")]
    Doctor(Box<Doctor>),
    /// Take the owner's provisioning, make the box's key and show both; the image runs it at every boot
    #[command(after_help = "\
Reads provisioning.toml and update-root.json out of --area, keeps the last good ones in --state, writes the agent's
settings (agent.toml), SSH keys, time zone and network configuration below /run, and says on console, login prompt
and lights what the box is called and whether it is provisioned. docs/operations.md has the details.

Exit codes: 0 the rest of the system knows what to do, provisioned or not; 1 files below /run cannot be written.")]
    FirstStart(FirstStart),
    /// Make the box's key, for first-start
    #[command(hide = true)]
    OwnKey {
        /// The agent's data folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// The TPM that holds it where there is one
        #[arg(long, value_name = "DEVICE")]
        tpm: PathBuf,
    },
    /// Try one thing that may crash, for doctor
    #[command(hide = true)]
    Probe {
        #[command(subcommand)]
        probe: Probe,
    },
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

#[derive(clap::Args)]
struct Doctor {
    /// Settings file in TOML; its keys are the flags' names with '_' for '-'. Flags win
    #[arg(long, env = "EDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Make only these checks
    #[arg(long, value_name = "CHECK", value_enum, value_delimiter = ',')]
    only: Vec<Check>,
    /// Leave these checks out
    #[arg(long, value_name = "CHECK", value_enum, value_delimiter = ',')]
    skip: Vec<Check>,
    /// Seconds that one thing may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
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
        Command::Doctor(command) => match examine(*command) {
            Ok(Verdict::Good | Verdict::Warning) => ExitCode::SUCCESS,
            Ok(Verdict::Bad) => ExitCode::FAILURE,
            Err(error) => {
                print_chain(&error);
                ExitCode::FAILURE
            }
        },
        Command::FirstStart(command) => match command.run() {
            Ok(report) => {
                eprint!("{}", first_start::log(&report));
                ExitCode::SUCCESS
            }
            Err(error) => {
                print_chain(&error);
                ExitCode::FAILURE
            }
        },
        Command::OwnKey { data, tpm } => match first_start::print_own_key(data, tpm) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                print_chain(&*error);
                ExitCode::FAILURE
            }
        },
        Command::Probe { probe } => match doctor::run_probe(&probe) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                print_chain(&error);
                ExitCode::FAILURE
            }
        },
        Command::Run(command) => {
            start_log(command.log_format);
            match serve(*command) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    print_chain(&*error);
                    match error.downcast_ref::<SettingsError>() {
                        // A card may come back, a misspelt setting does not correct itself.
                        None | Some(SettingsError::Data { .. }) => Exit::Failed.into(),
                        Some(_) => Exit::Usage.into(),
                    }
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
    let ended = runtime.block_on(run::run(settings, end));
    // A hanging sensor's thread is left behind.
    runtime.shutdown_background();
    Ok(ended?)
}

/// Prints what the checks found. Fails where nobody reads it.
fn examine(command: Doctor) -> io::Result<Verdict> {
    let (file, file_error) = match command.config.as_deref().map(Options::from_file) {
        None => (Options::default(), None),
        Some(Ok(file)) => (file, None),
        Some(Err(error)) => (Options::default(), Some(error)),
    };
    let asked = Asked {
        options: command.options.or(file),
        file: command.config,
        file_error,
        only: command.only,
        skip: command.skip,
        limit: Duration::from_secs(command.timeout),
    };
    // Hidden by itself where standard error is no terminal.
    let spinner = indicatif::ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let report = doctor::examine(&asked, |waiting| {
        let names: Vec<&str> = waiting.iter().map(|check| check.name()).collect();
        spinner.set_message(format!("checking {}", names.join(", ")));
    });
    spinner.finish_and_clear();
    let mut output = io::stdout();
    let text = if command.json {
        report.json()
    } else {
        let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        report.text(output.is_terminal() && !wants_none)
    };
    output.write_all(text.as_bytes())?;
    output.flush()?;
    Ok(report.verdict)
}

/// Ends the process while parts of it hang. Libraries may wait for their threads when they are told of the end.
fn end(exit: Exit) {
    let wait = Duration::from_secs(5);
    let code = exit.code().into();
    #[allow(clippy::exit, reason = "this is main.rs; the main thread may hang")]
    let ending = thread::Builder::new().spawn(move || process::exit(code));
    if ending.is_ok() {
        thread::sleep(wait);
    }
    process::abort();
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
