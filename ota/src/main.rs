//! `edge-ota`: reads the command line, opens the board's slots, runs the command, prints an error once.

use std::{
    error::Error,
    io::{self, Write as _},
    process::{self, ExitCode},
};

use clap::{CommandFactory as _, Parser as _};
use edge_hal::{
    Board, BoardError,
    board::Choice,
    slots::{self, SlotControl as _, SlotError, Slots},
};
use edge_ota::{
    cli::{Cli, Command, Place},
    confirm::confirm,
    exit::Exit,
    report::Report,
    rollback::{RollbackError, Step, roll_back},
};

/// Why the program ended without having done what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The board.
    #[error("cannot tell what board this is")]
    Board(#[source] BoardError),
    /// A board without slots.
    #[error("board {0} has one system and no slots; name another board with --board")]
    NoSlots(String),
    /// The slots.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// No going back.
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// The restart.
    #[error("cannot restart the box with systemctl reboot; restart it by hand: the slot is chosen")]
    Reboot(#[source] io::Error),
    /// Nobody reads the output.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::Board(_) | Self::NoSlots(_) => Exit::Usage,
            Self::Slots(error) | Self::Rollback(RollbackError::Slots(error)) => Exit::of(error),
            Self::Rollback(RollbackError::NeverWorked(_)) => Exit::Refused,
            Self::Reboot(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            let mut message = failure.to_string();
            let mut cause = failure.source();
            while let Some(error) = cause {
                message.push_str(": ");
                message.push_str(&error.to_string());
                cause = error.source();
            }
            eprintln!("edge-ota: {message}");
            failure.exit().into()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let mut output = io::stdout();
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "edge-ota", &mut output);
        }
        Command::Status { json, place } => {
            let (mut slots, board, how) = open(&place)?;
            let report = Report::new(&board.name, &how, &slots.status()?);
            if json {
                let json = serde_json::to_string(&report).map_err(io::Error::from)?;
                writeln!(output, "{json}")?;
            } else {
                write!(output, "{}", report.text())?;
            }
        }
        Command::Confirm { slot, place } => {
            let (mut slots, ..) = open(&place)?;
            let confirmed = confirm(&mut slots, slot.map(Into::into))?;
            if confirmed.repaired {
                writeln!(output, "a change that was cut short is tidied up")?;
            }
            let slot = confirmed.slot;
            if confirmed.was_good {
                writeln!(output, "slot {slot} runs and was confirmed before")?;
            } else {
                writeln!(output, "slot {slot} runs and is confirmed")?;
            }
        }
        Command::Rollback { reboot, place } => {
            let (mut slots, ..) = open(&place)?;
            let rollback = roll_back(&mut slots)?;
            let (to, from) = (rollback.to, rollback.to.other());
            match rollback.step {
                Step::Already => writeln!(output, "slot {to} starts next already")?,
                Step::Arm => writeln!(
                    output,
                    "slot {to} starts next, on trial; slot {from} stays to return to"
                )?,
                Step::GiveUp => writeln!(output, "slot {from} is given up; slot {to} starts next")?,
            }
            if reboot {
                output.flush()?;
                restart().map_err(Failure::Reboot)?;
            } else {
                writeln!(output, "a restart does it: systemctl reboot")?;
            }
        }
    }
    Ok(())
}

fn open(place: &Place) -> Result<(Slots, Board, String), Failure> {
    let Choice { board, how } =
        Choice::new(place.board.as_deref(), &place.root).map_err(Failure::Board)?;
    let Some(config) = &board.slots else {
        return Err(Failure::NoSlots(board.name));
    };
    let slots = slots::open(config, &board.storage, &place.root, &place.state)?;
    Ok((slots, board, how))
}

fn restart() -> io::Result<()> {
    let status = process::Command::new("systemctl").arg("reboot").status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(status.to_string()))
    }
}
