//! Exit codes: what systemd and scripts learn from `edge-ota` without reading its words.

use std::process::ExitCode;

use edge_hal::slots::SlotError;

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done, or was so already.
    Done = 0,
    /// Storage or system failed; it may be tried again.
    Failed = 1,
    /// A wrong command line (also clap's own code), or no board that has slots.
    Usage = 2,
    /// It would leave the box without a way back, or the wrong slot runs. Nothing was changed.
    Refused = 3,
}

impl Exit {
    /// The code for slots that could not be read or changed.
    #[must_use]
    pub fn of(error: &SlotError) -> Self {
        match error {
            SlotError::Refused(_) | SlotError::BootLun { .. } | SlotError::TypeGuid { .. } => {
                Self::Refused
            }
            SlotError::SectorBytes { .. } | SlotError::Tries { .. } | SlotError::CommitDisk => {
                Self::Usage
            }
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
