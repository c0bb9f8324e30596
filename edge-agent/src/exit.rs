//! Exit codes: what systemd and scripts learn from `edge-agent` without reading its words.

use std::process::ExitCode;

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// In order, after it was asked to.
    Done = 0,
    /// It cannot run.
    Failed = 1,
    /// A wrong command line (also clap's own code) or unusable settings: starting it again does not help.
    Usage = 2,
    /// A part of it was stuck: it is to be started again.
    Stuck = 3,
}

impl Exit {
    /// The code as the system knows it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
