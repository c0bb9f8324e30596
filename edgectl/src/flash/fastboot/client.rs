//! Commands to a board and its answers, one at a time. It must not know what is flashed, nor how messages travel.
//!
//! A command is answered by any number of INFO and TEXT, then by OKAY, FAIL or, to `download`, DATA; then come so many
//! bytes, and again an answer.

use std::time::Duration;

use fastboot_protocol::protocol::{FastBootCommand, FastBootResponse};

use super::transport::{Transport, TransportError};

/// How long a board may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// To answer what it can answer at once.
    pub answer: Duration,
    /// To write a download to its storage, and between two signs of life while it does.
    pub flash: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            flash: Duration::from_secs(180),
        }
    }
}

/// More words than any board has for one command; without an end one could keep us for ever.
const INFO_MAX: usize = 10_000;
/// The longest command (AOSP: 4,096 bytes; U-Boot and ABL: 64).
const COMMAND_MAX_BYTES: usize = 64;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The message did not get through.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The board said no.
    #[error("the board refused `{command}`: {reason}{}", hint(reason))]
    Refused {
        /// The command.
        command: String,
        /// The board's words.
        reason: String,
    },
    /// An answer that has no place there.
    #[error("the board answered `{command}` with {answer:?}, which is no answer to it")]
    Unexpected {
        /// The command.
        command: String,
        /// The answer, made printable.
        answer: String,
    },
    /// A name that does not fit into a command.
    #[error("`{0}` is longer than boards take a command")]
    CommandTooLong(String),
    /// Whoever makes the data failed.
    #[error("cannot read what is to be flashed")]
    Data(#[from] std::io::Error),
}

/// What boards mean by their words.
fn hint(reason: &str) -> &'static str {
    let reason = reason.to_ascii_lowercase();
    let has = |word: &str| reason.contains(word);
    if has("lock") {
        "; the boot loader is locked: unlock it first (`fastboot flashing unlock`), which erases the board"
    } else if has("no such partition")
        || has("partition not found")
        || has("doesn't exist")
        || has("does not exist")
    {
        "; the image is of another board, or the board's partition table is not laid out yet"
    } else if has("too large") || has("size") {
        "; the board's partition or memory is smaller than the image needs"
    } else {
        ""
    }
}

impl ClientError {
    /// Whether the same may succeed on a fresh connection.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Transport(
                TransportError::Silent { .. }
                    | TransportError::Lost { .. }
                    | TransportError::Unreachable { .. }
            ) | Self::Unexpected { .. }
        )
    }
}

/// Hands the parts of a download over, in order.
pub type Data<'a> = dyn FnMut(&mut SendPart<'_>) -> Result<(), ClientError> + 'a;
/// Takes a part of a download.
pub type SendPart<'a> = dyn FnMut(&[u8]) -> Result<(), ClientError> + 'a;

/// A board that is spoken to.
pub struct Client<'a> {
    transport: &'a mut dyn Transport,
    /// Takes what the board says beside its answers.
    says: &'a dyn Fn(&str),
    waits: Waits,
}

impl<'a> Client<'a> {
    /// Speaks through `transport`; what the board says beside its answers goes to `says`.
    pub fn new(transport: &'a mut dyn Transport, says: &'a dyn Fn(&str), waits: Waits) -> Self {
        Self {
            transport,
            says,
            waits,
        }
    }

    /// The board's name in messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.transport.name()
    }

    /// A variable of the board; none where it has no such.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn variable(&mut self, name: &str) -> Result<Option<String>, ClientError> {
        match self.execute(
            &FastBootCommand::GetVar(name).to_string(),
            self.waits.answer,
        ) {
            // Some boards answer all they do not know with nothing.
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(ClientError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends `bytes` bytes, which `data` hands over in parts.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn download(&mut self, bytes: u32, data: &mut Data<'_>) -> Result<(), ClientError> {
        let command = FastBootCommand::<&str>::Download(bytes).to_string();
        self.send(&command)?;
        match self.answer(&command, self.waits.answer)? {
            FastBootResponse::Data(wanted) if wanted == bytes => {}
            other => return Err(unexpected(&command, &other)),
        }
        data(&mut |part| Ok(self.transport.send(part)?))?;
        match self.answer(&command, self.waits.flash)? {
            FastBootResponse::Okay(_) => Ok(()),
            other => Err(unexpected(&command, &other)),
        }
    }

    /// Writes what was downloaded to a partition.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn flash(&mut self, partition: &str) -> Result<(), ClientError> {
        let command = FastBootCommand::Flash(partition).to_string();
        self.execute(&command, self.waits.flash).map(drop)
    }

    /// Lets the slot start next.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_active(&mut self, slot: &str) -> Result<(), ClientError> {
        self.execute(&format!("set_active:{slot}"), self.waits.answer)
            .map(drop)
    }

    /// Starts the board anew.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn reboot(&mut self) -> Result<(), ClientError> {
        let command = FastBootCommand::<&str>::Reboot.to_string();
        self.execute(&command, self.waits.answer).map(drop)
    }

    /// Brings the board back to where it takes commands.
    ///
    /// # Errors
    /// [`ClientError::Transport`].
    pub fn reopen(&mut self) -> Result<(), ClientError> {
        Ok(self.transport.reopen()?)
    }

    fn execute(&mut self, command: &str, wait: Duration) -> Result<String, ClientError> {
        self.send(command)?;
        match self.answer(command, wait)? {
            FastBootResponse::Okay(value) => Ok(value),
            other => Err(unexpected(command, &other)),
        }
    }

    fn send(&mut self, command: &str) -> Result<(), ClientError> {
        if command.len() > COMMAND_MAX_BYTES {
            return Err(ClientError::CommandTooLong(command.to_owned()));
        }
        tracing::debug!(command, "to the board");
        Ok(self.transport.send(command.as_bytes())?)
    }

    /// OKAY or DATA; FAIL is an error. `wait` counts anew with each sign of life.
    fn answer(&mut self, command: &str, wait: Duration) -> Result<FastBootResponse, ClientError> {
        for _ in 0..INFO_MAX {
            let bytes = self.transport.receive(wait)?;
            tracing::debug!(answer = %bytes.escape_ascii(), "from the board");
            match read_answer(&bytes) {
                Some(FastBootResponse::Info(text) | FastBootResponse::Text(text)) => {
                    (self.says)(&printable(&text));
                }
                Some(FastBootResponse::Fail(reason)) => {
                    return Err(ClientError::Refused {
                        command: command.to_owned(),
                        reason: printable(&reason),
                    });
                }
                Some(answer) => return Ok(answer),
                None => {
                    return Err(ClientError::Unexpected {
                        command: command.to_owned(),
                        answer: bytes.escape_ascii().to_string(),
                    });
                }
            }
        }
        Err(ClientError::Unexpected {
            command: command.to_owned(),
            answer: format!("{INFO_MAX} lines of information"),
        })
    }
}

/// An answer; none where the bytes are no answer.
#[must_use]
pub fn read_answer(bytes: &[u8]) -> Option<FastBootResponse> {
    FastBootResponse::from_bytes(bytes).ok()
}

/// A number as boards write it: hexadecimal with `0x`, else decimal.
#[must_use]
pub fn read_number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A board's words, without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.trim().chars().map(visible).collect()
}

fn unexpected(command: &str, answer: &FastBootResponse) -> ClientError {
    ClientError::Unexpected {
        command: command.to_owned(),
        answer: printable(&format!("{answer:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_boards_write_them() {
        assert_eq!(read_number("0x10000000"), Some(1 << 28));
        assert_eq!(read_number(" 268435456\n"), Some(1 << 28));
        assert_eq!(read_number("0x"), None);
        assert_eq!(read_number("-1"), None);
    }

    #[test]
    fn a_board_cannot_move_the_cursor() {
        assert_eq!(printable("\u{1b}[2Jok\r\n"), "\u{fffd}[2Jok");
    }
}
