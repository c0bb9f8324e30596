//! Exit codes: what a script learns from `edgectl` without reading its words.

use std::process::ExitCode;

use crate::{
    commands::flash::{Mismatch, NotConfirmed},
    flash::{
        bundle::BundleError,
        fastboot::{client::ClientError, job::JobError, transport::TransportError},
        guard::Refusal,
        medium::MediumError,
        source::SourceError,
        write::WriteError,
    },
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
    /// A wrong command line (also clap's own code), or a file or target that cannot be used.
    Usage = 2,
    /// The broker or board was not reached, or refused.
    Unreachable = 3,
}

impl Exit {
    /// The code for an error that ended the program.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        let is_unusable = error.is::<DatasetError>()
            || error.is::<WireError>()
            || error.is::<SourceError>()
            || error.is::<MediumError>()
            || error.is::<Refusal>()
            || error.is::<BundleError>()
            || error.is::<Mismatch>()
            || error.is::<NotConfirmed>()
            || matches!(error.downcast_ref(), Some(WriteError::TooLarge { .. }));
        if is_unusable {
            Self::Usage
        } else if error.is::<LinkError>() || is_unreachable(error) {
            Self::Unreachable
        } else {
            Self::Failed
        }
    }
}

/// Whether a board was not there at all.
fn is_unreachable(error: &anyhow::Error) -> bool {
    let transport = match error.downcast_ref() {
        Some(JobError::Client(ClientError::Transport(error))) => Some(error),
        _ => error.downcast_ref(),
    };
    matches!(
        transport,
        Some(
            TransportError::Unreachable { .. }
                | TransportError::NoBoard(_)
                | TransportError::NoFastboot { .. }
                | TransportError::Usb { .. }
                | TransportError::Silent { .. }
        )
    )
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
