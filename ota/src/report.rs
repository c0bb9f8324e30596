//! The slots, as lines for people and as JSON for programs.

use edge_hal::slots::{Slot, SlotState, SlotStatus, Unfinished};
use serde::Serialize;

/// What `edge-ota status` says. Its JSON keeps its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The board's name.
    pub board: String,
    #[serde(skip)]
    chosen: String,
    /// The slot that runs, `A` or `B`; `null` where the kernel's command line does not say.
    pub running: Option<String>,
    /// The slot that starts next; `null` when none would.
    pub next: Option<String>,
    /// What a power cut left behind: `change-counts`, `change-does-not-count`, `copies-differ`, `disks-disagree`.
    pub unfinished: Option<&'static str>,
    /// Both slots.
    pub slots: Slots,
}

/// Both slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub struct Slots {
    /// Slot A.
    pub a: SlotReport,
    /// Slot B.
    pub b: SlotReport,
}

/// One slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SlotReport {
    /// Its state.
    pub state: State,
    /// Starts that are left while it is on trial.
    pub tries_left: u8,
}

/// A slot's state, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It proved itself.
    Good,
    /// Its starts are counted.
    Trial,
    /// It does not start: empty, given up, or out of tries.
    Dead,
}

impl From<SlotState> for SlotReport {
    fn from(slot: SlotState) -> Self {
        let state = if slot.is_good() {
            State::Good
        } else if slot.is_dead() {
            State::Dead
        } else {
            State::Trial
        };
        Self {
            state,
            tries_left: slot.tries_left,
        }
    }
}

impl Report {
    /// The report on `status` of `board`, which was chosen as `chosen` says.
    #[must_use]
    pub fn new(board: &str, chosen: &str, status: &SlotStatus) -> Self {
        let name = |slot: Slot| slot.to_string();
        Self {
            board: board.to_owned(),
            chosen: chosen.to_owned(),
            running: status.running.map(name),
            next: status.next.map(name),
            unfinished: status.unfinished.map(|unfinished| match unfinished {
                Unfinished::Change { committed: true } => "change-counts",
                Unfinished::Change { committed: false } => "change-does-not-count",
                Unfinished::CopiesDiffer => "copies-differ",
                Unfinished::DisksDisagree => "disks-disagree",
            }),
            slots: Slots {
                a: status.table.a.into(),
                b: status.table.b.into(),
            },
        }
    }

    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("board {} ({})\n\n", self.board, self.chosen);
        for (name, slot) in [("A", self.slots.a), ("B", self.slots.b)] {
            let state = match (slot.state, slot.tries_left) {
                (State::Good, _) => "good".to_owned(),
                (State::Trial, 1) => "on trial, 1 start left".to_owned(),
                (State::Trial, left) => format!("on trial, {left} starts left"),
                (State::Dead, _) => "does not start: empty or given up".to_owned(),
            };
            let mut notes = Vec::new();
            if self.running.as_deref() == Some(name) {
                notes.push("runs now");
            }
            if self.next.as_deref() == Some(name) {
                notes.push("starts next");
            }
            let line = format!("  slot {name}  {state:34}  {}", notes.join(", "));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let mut notes: Vec<String> = Vec::new();
        if self.running.is_none() {
            notes.push(
                "which slot runs is not known: the boot loader passed no edge.slot=".to_owned(),
            );
        }
        if self.next.is_none() {
            notes.push(
                "no slot would start: confirm the running one before the next restart".to_owned(),
            );
        }
        if let Some(unfinished) = self.unfinished {
            let what = match unfinished {
                "change-counts" => "a change was cut short, and counts",
                "change-does-not-count" => "a change was cut short, and does not count",
                "copies-differ" => "the two copies of the record differ, or one is damaged",
                _ => "the disks disagree on the slot that comes first",
            };
            notes.push(format!("{what}; edge-ota confirm tidies up"));
        }
        for note in notes {
            text.push_str(&format!("\n{note}\n"));
        }
        text
    }
}
