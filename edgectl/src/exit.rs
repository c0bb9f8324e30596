//! Exit codes: what a script learns from `edgectl` without reading its words.

use std::process::ExitCode;

use crate::{
    provisioning::files::FilesError,
    sensor::{dataset::DatasetError, link::LinkError, wire::WireError},
};

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All was done; every request was answered.
    Done = 0,
    /// Some of it failed.
    Failed = 1,
    /// A wrong command line (also clap's own code) or an unusable file.
    Usage = 2,
    /// The broker was not reached, or refused.
    Unreachable = 3,
}

impl Exit {
    /// The code for an error that ended the program.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        if error.is::<DatasetError>() || error.is::<WireError>() || error.is::<FilesError>() {
            Self::Usage
        } else if error.is::<LinkError>() {
            Self::Unreachable
        } else {
            Self::Failed
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
