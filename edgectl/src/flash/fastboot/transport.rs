//! What carries fastboot's messages to a board and back. It must not know what they mean.

use std::{io, time::Duration};

/// The longest answer that we take (AOSP: 256 bytes; older boards send 64).
pub const ANSWER_MAX_BYTES: usize = 4096;

/// A way to a board.
pub trait Transport {
    /// The board's name in messages.
    fn name(&self) -> String;

    /// Sends a command, or a part of the data that a board asked for.
    ///
    /// # Errors
    /// [`TransportError`].
    fn send(&mut self, bytes: &[u8]) -> Result<(), TransportError>;

    /// Waits for one answer.
    ///
    /// # Errors
    /// [`TransportError`]; after [`TransportError::Silent`] an answer may still come, so only
    /// [`Transport::reopen`] makes the transport usable again.
    fn receive(&mut self, wait: Duration) -> Result<Vec<u8>, TransportError>;

    /// Brings the board back to where it takes commands, without anybody touching it.
    ///
    /// # Errors
    /// [`TransportError`].
    fn reopen(&mut self) -> Result<(), TransportError>;
}

/// Why a message did not get through.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nobody there.
    #[error("cannot reach {board}; is it in fastboot mode, and its address right?")]
    Unreachable {
        /// Which board.
        board: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else there.
    #[error("{board} does not speak fastboot: it greeted with {greeting:?}")]
    NoFastboot {
        /// Which board.
        board: String,
        /// What it sent, made printable.
        greeting: String,
    },
    /// No answer.
    #[error("{board} did not answer within {} s", waited.as_secs())]
    Silent {
        /// Which board.
        board: String,
        /// How long we waited.
        waited: Duration,
    },
    /// The connection ended.
    #[error("the connection to {board} was lost")]
    Lost {
        /// Which board.
        board: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// An answer that is too long to be one.
    #[error("{board} sent an answer of {bytes} bytes; fastboot has none over {ANSWER_MAX_BYTES}")]
    TooLong {
        /// Which board.
        board: String,
        /// As its length field says.
        bytes: u64,
    },
    /// No board on USB.
    #[error("{0}")]
    NoBoard(String),
    /// USB itself.
    #[error("cannot {operation} {board}{hint}")]
    Usb {
        /// What was attempted.
        operation: &'static str,
        /// Which board.
        board: String,
        /// What to do, from "; " on; empty where nobody knows.
        hint: &'static str,
        /// Why not.
        #[source]
        source: nusb::Error,
    },
}
