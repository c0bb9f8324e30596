//! What the owner sees without a login: lines for the console and the login prompt, and lights. Pure but for the setting
//! of the lights.

use std::path::Path;

use edge_hal::{
    board::{BoardError, Choice, LedMeaning},
    controls::Controls,
    led::{LedError, LedState},
};
use edge_protocol::provisioning::Network;

use super::decide::{Accepted, State};

/// Columns before a value.
const INDENT: usize = 15;
/// Columns of a console that nobody set up.
const WIDTH: usize = 80;
/// Problems that are shown; the journal has all.
const PROBLEMS_SHOWN: usize = 6;

const STARTS: LedState = LedState::Blink {
    on_ms: 500,
    off_ms: 500,
};
/// A short flash: the box waits for its owner.
const WAITS: LedState = LedState::Blink {
    on_ms: 200,
    off_ms: 1_800,
};
/// Hectic: for boards without a light for faults.
const WRONG: LedState = LedState::Blink {
    on_ms: 100,
    off_ms: 100,
};

/// What there is to show.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) box_id: Option<&'a str>,
    /// In groups of four digits.
    pub(super) fingerprint: Option<&'a str>,
    pub(super) accepted: Option<&'a Accepted>,
    pub(super) state: &'a State,
    /// More that went wrong on the way.
    pub(super) faults: &'a [String],
}

/// Where addresses of the box are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// On the console, before there is a network.
    Console,
    /// At the login prompt, where agetty(8) puts addresses in and reads backslashes.
    Prompt,
}

/// The lines.
pub(super) fn lines(shown: &Shown<'_>, place: Where) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    rows.push(("box", shown.box_id.unwrap_or("has no name yet").to_owned()));
    let region = shown.accepted.map(|accepted| {
        let provisioning = &accepted.provisioning;
        format!(
            "region {}, broker {}",
            provisioning.region, provisioning.broker
        )
    });
    let (state, to_do) = match shown.state {
        State::Provisioned => ("provisioned", None),
        State::Kept(_) => (
            "provisioned by the last good file, since the partition's cannot be used",
            Some("write provisioning.toml again when convenient, and restart the box"),
        ),
        State::NotProvisioned(_) => (
            "not provisioned, so it does not serve",
            Some(
                "write provisioning.toml to the partition \"provisioning\", or on a PC: edgectl provision; then restart \
                 the box",
            ),
        ),
        State::Bad(_) => (
            "bad provisioning, so it does not serve",
            Some(
                "correct provisioning.toml on the partition \"provisioning\", then restart the box",
            ),
        ),
    };
    rows.push(("state", state.to_owned()));
    rows.extend(region.map(|region| ("", region)));
    let problems = shown.state.problems().iter().chain(shown.faults);
    let all = problems.clone().count();
    for problem in problems.take(PROBLEMS_SHOWN) {
        rows.extend(problem.lines().map(|line| ("", format!("- {line}"))));
    }
    if all > PROBLEMS_SHOWN {
        rows.push((
            "",
            format!(
                "- and {} more: journalctl -u edge-first-start",
                all - PROBLEMS_SHOWN
            ),
        ));
    }
    rows.extend(to_do.map(|to_do| ("to do", to_do.to_owned())));
    if let Some(fingerprint) = shown.fingerprint {
        // Two lines of eight groups.
        let (first, second) = fingerprint
            .split_at_checked(40)
            .unwrap_or((fingerprint, ""));
        rows.push(("fingerprint", first.trim_end().to_owned()));
        rows.push(("", second.to_owned()));
    }
    let mut text = String::from("\nAethir Edge\n");
    for (label, value) in rows {
        put(&mut text, label, &value, place);
    }
    match (
        place,
        shown
            .accepted
            .map(|accepted| &accepted.provisioning.network),
    ) {
        // agetty's own sequences, so not escaped.
        (Where::Prompt, _) => text.push_str(&format!("  {:12} \\4 \\6\n", "addresses")),
        (Where::Console, Some(Network::Static { address, .. })) => {
            put(&mut text, "addresses", &address.to_string(), place);
        }
        (Where::Console, _) => put(
            &mut text,
            "addresses",
            "by DHCP; the login prompt shows them",
            place,
        ),
    }
    text.push('\n');
    text
}

/// Adds a row, broken between words.
fn put(text: &mut String, label: &str, value: &str, place: Where) {
    let mut end = |line: &str| {
        let line = line.trim_end();
        match place {
            Where::Console => text.push_str(line),
            Where::Prompt => text.push_str(&line.replace('\\', "\\\\")),
        }
        text.push('\n');
    };
    let mut line = format!("  {label:12} ");
    let mut is_start = true;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        let word: String = word.chars().filter(|c| !c.is_control()).collect();
        let columns = line.chars().count() + word.chars().count();
        if !is_start && columns + 1 > WIDTH {
            end(&line);
            line = " ".repeat(INDENT);
            is_start = true;
        }
        if !is_start {
            line.push(' ');
        }
        line.push_str(&word);
        is_start = false;
    }
    end(&line);
}

/// Why the lights do not show the state.
#[derive(Debug, thiserror::Error)]
pub(super) enum LightsError {
    #[error("cannot tell what board this is")]
    Board(#[from] BoardError),
    #[error(transparent)]
    Led(#[from] LedError),
}

/// Shows the state on the board's lights; the agent takes them over when it starts.
pub(super) fn light(state: &State, root: &Path) -> Result<(), LightsError> {
    let board = Choice::new(None, root)?.board;
    let has_fault = board
        .leds
        .iter()
        .any(|led| led.meaning == LedMeaning::Fault);
    let (serving, fault) = match state {
        State::Provisioned | State::Kept(_) => (STARTS, LedState::Off),
        State::NotProvisioned(_) if has_fault => (LedState::Off, WAITS),
        State::Bad(_) if has_fault => (LedState::Off, LedState::On),
        State::NotProvisioned(_) => (WAITS, LedState::Off),
        State::Bad(_) => (WRONG, LedState::Off),
    };
    let mut lights = Controls::open(&board, root).lights;
    let first = lights.show(LedMeaning::Serving, serving);
    lights.show(LedMeaning::Fault, fault)?;
    Ok(first?)
}
