//! Fastboot over TCP: each side greets with its version, then every message follows its length.
//!
//! AOSP, `system/core/fastboot/README.md`, "TCP Protocol v1": the greeting is `FB` and two digits, the lower version
//! counts; a message is 8 bytes of length, big endian, and that many bytes.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use super::transport::{ANSWER_MAX_BYTES, Transport, TransportError};

/// Our greeting, version 1.
pub const GREETING: &[u8; 4] = b"FB01";
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A board that takes no data for so long is gone: one that writes to its storage does so after a download, not in it.
const SEND_MAX: Duration = Duration::from_secs(60);

/// A connection to a board.
#[derive(Debug)]
pub struct Tcp {
    host: String,
    port: u16,
    name: String,
    stream: TcpStream,
}

impl Tcp {
    /// Connects and greets. `name` is the board's in messages.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] and [`TransportError::NoFastboot`].
    pub fn connect(host: &str, port: u16, name: String) -> Result<Self, TransportError> {
        let stream = connect(host, port, &name)?;
        Ok(Self {
            host: host.to_owned(),
            port,
            name,
            stream,
        })
    }

    fn lost(&self, source: io::Error) -> TransportError {
        TransportError::Lost {
            board: self.name.clone(),
            source,
        }
    }

    /// Fills `buffer` before `deadline`; none when that passes.
    fn read_before(&mut self, deadline: Instant, buffer: &mut [u8]) -> io::Result<Option<()>> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(rest) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                // Which of the two it is depends on the system.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(()))
    }
}

fn connect(host: &str, port: u16, name: &str) -> Result<TcpStream, TransportError> {
    let unreachable = |source| TransportError::Unreachable {
        board: name.to_owned(),
        source,
    };
    let mut last = io::Error::from(io::ErrorKind::HostUnreachable);
    for address in (host, port).to_socket_addrs().map_err(unreachable)? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(stream) => return greet(stream, name),
            Err(error) => last = error,
        }
    }
    Err(unreachable(last))
}

fn greet(mut stream: TcpStream, name: &str) -> Result<TcpStream, TransportError> {
    let mut theirs = [0; 4];
    let greeted = (|| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_MAX))?;
        stream.set_write_timeout(Some(SEND_MAX))?;
        stream.write_all(GREETING)?;
        stream.read_exact(&mut theirs)
    })();
    greeted.map_err(|source| TransportError::Unreachable {
        board: name.to_owned(),
        source,
    })?;
    // Any version will do: a later one answers to version 1, which is the lower.
    match theirs {
        [b'F', b'B', b'0'..=b'9', b'0'..=b'9'] if theirs != *b"FB00" => Ok(stream),
        _ => Err(TransportError::NoFastboot {
            board: name.to_owned(),
            greeting: theirs.escape_ascii().to_string(),
        }),
    }
}

impl Transport for Tcp {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let length = (bytes.len() as u64).to_be_bytes();
        let sent = if bytes.len() <= ANSWER_MAX_BYTES {
            // In one packet: a boot loader's TCP may take each packet for a message.
            self.stream.write_all(&[&length, bytes].concat())
        } else {
            self.stream
                .write_all(&length)
                .and_then(|()| self.stream.write_all(bytes))
        };
        sent.map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => TransportError::Silent {
                board: self.name.clone(),
                waited: SEND_MAX,
            },
            _ => self.lost(source),
        })
    }

    fn receive(&mut self, wait: Duration) -> Result<Vec<u8>, TransportError> {
        let deadline = Instant::now() + wait;
        let silent = TransportError::Silent {
            board: self.name.clone(),
            waited: wait,
        };
        let mut length = [0; 8];
        let read = self.read_before(deadline, &mut length);
        let Some(()) = read.map_err(|source| self.lost(source))? else {
            return Err(silent);
        };
        let bytes = u64::from_be_bytes(length);
        let size = usize::try_from(bytes)
            .ok()
            .filter(|size| *size <= ANSWER_MAX_BYTES);
        let Some(size) = size else {
            return Err(TransportError::TooLong {
                board: self.name.clone(),
                bytes,
            });
        };
        let mut answer = vec![0; size];
        let read = self.read_before(deadline, &mut answer);
        match read.map_err(|source| self.lost(source))? {
            Some(()) => Ok(answer),
            None => Err(silent),
        }
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        // A board serves one connection at a time, so the old one must be gone first.
        let _closed = self.stream.shutdown(std::net::Shutdown::Both);
        self.stream = connect(&self.host, self.port, &self.name)?;
        Ok(())
    }
}
