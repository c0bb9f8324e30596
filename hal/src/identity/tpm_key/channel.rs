//! Commands to a TPM 2.0 and its answers, through the kernel's resource manager or a socket. Which commands, and what
//! they mean, is not known here.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::Path,
    time::Duration,
};

use tpm2_protocol::{
    TpmWriter,
    basic::TpmHandle,
    constant::TPM_MAX_COMMAND_SIZE,
    data::{TpmRc, TpmRcBase, TpmRh, TpmSt, TpmsAuthCommand},
    frame::{TpmFrame, TpmResponse, TpmUnmarshalBody, tpm_marshal_command},
};

/// Bytes before the body of an answer: tag, size and code (TPM 2.0 Library, part 1, section 18.2).
const HEADER_BYTES: usize = 10;
/// Longest time for one answer over a socket; the kernel bounds its own devices.
const ANSWER: Duration = Duration::from_secs(30);
/// How often a TPM that is busy is asked, and how long it is left alone between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it answers {0}")]
    Refused(TpmRc),
    #[error("its answer is no TPM's: {0}")]
    Form(String),
}

/// A way to a TPM.
pub(super) enum Channel {
    /// `/dev/tpmrm0`: the kernel keeps this program's keys apart from others', and drops them when it is closed.
    Device(File),
    /// A TPM in software.
    Socket(UnixStream),
}

impl Channel {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.metadata()?.file_type().is_socket() {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            return Ok(Self::Socket(stream));
        }
        let device = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self::Device(device))
    }

    /// Asks, with the empty password where the command needs one.
    pub(super) fn ask<R: TpmUnmarshalBody>(
        &mut self,
        command: &impl TpmFrame,
        needs_password: bool,
    ) -> Result<R, ChannelError> {
        let form = |error: tpm2_protocol::TpmError| ChannelError::Form(error.to_string());
        let password = [TpmsAuthCommand {
            session_handle: TpmHandle::new(TpmRh::Pw.value()),
            ..TpmsAuthCommand::default()
        }];
        let (tag, sessions): (_, &[_]) = if needs_password {
            (TpmSt::Sessions, &password)
        } else {
            (TpmSt::NoSessions, &[])
        };
        let mut room = [0; TPM_MAX_COMMAND_SIZE];
        let mut writer = TpmWriter::new(&mut room);
        tpm_marshal_command(command, tag, sessions, &mut writer).map_err(form)?;
        let bytes = writer.as_bytes().to_vec();
        for attempt in 1.. {
            let answer = self.exchange(&bytes)?;
            let answer = TpmResponse::cast(&answer).map_err(form)?;
            match answer.rc().map_err(form)? {
                TpmRc::Fmt0(TpmRcBase::Success) => return answer.unmarshal().map_err(form),
                TpmRc::Warn(TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing)
                    if attempt < TRIES =>
                {
                    std::thread::sleep(PAUSE);
                }
                code => return Err(ChannelError::Refused(code)),
            }
        }
        Err(ChannelError::Form("it gave none".to_owned()))
    }

    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Device(device) => exchange(device, command),
            Self::Socket(stream) => exchange(stream, command),
        }
    }
}

/// One command, which a device wants in one piece, and its whole answer.
fn exchange(stream: &mut (impl Read + Write), command: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(command)?;
    let mut answer = vec![0; TPM_MAX_COMMAND_SIZE];
    let mut filled = 0;
    loop {
        let room = answer.get_mut(filled..).unwrap_or_default();
        let count = stream.read(room)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        let said = answer.get(2..6).and_then(|size| size.try_into().ok());
        let size = usize::try_from(said.map_or(0, u32::from_be_bytes)).unwrap_or(usize::MAX);
        if filled < HEADER_BYTES {
            continue;
        }
        if !(HEADER_BYTES..=TPM_MAX_COMMAND_SIZE).contains(&size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its answer has an impossible size",
            ));
        }
        if filled >= size {
            answer.truncate(size);
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// Answers in pieces of at most `piece` bytes, whatever is asked.
    struct Pieces {
        answer: Cursor<Vec<u8>>,
        piece: usize,
    }

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let room = self.piece.min(buffer.len());
            self.answer.read(buffer.get_mut(..room).unwrap_or_default())
        }
    }

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_read_to_its_end_in_any_pieces(body in proptest::collection::vec(any::<u8>(), 0..200), piece in 1_usize..64) {
            let size = u32::try_from(HEADER_BYTES + body.len()).unwrap();
            let mut answer = vec![0x80, 0x01];
            answer.extend(size.to_be_bytes());
            answer.extend([0; 4]);
            answer.extend(&body);
            let mut stream = Pieces { answer: Cursor::new(answer.clone()), piece };
            prop_assert_eq!(exchange(&mut stream, b"x").unwrap(), answer);
        }

        #[test]
        fn whatever_answers_neither_hangs_nor_panics(answer in proptest::collection::vec(any::<u8>(), 0..64), piece in 1_usize..64) {
            let mut stream = Pieces { answer: Cursor::new(answer), piece };
            let _either = exchange(&mut stream, b"x");
        }
    }
}
