//! All partitions of an image, sent to a board piece by piece. A piece that was cut off is sent again on a fresh
//! connection, without anybody touching the board; a piece that the board refused is not.
//!
//! The slot that starts next is chosen last, so that a board that was left half flashed does not start from it.

use std::{thread, time::Duration};

use serde::Serialize;

use super::client::{Client, ClientError, read_number};
use crate::flash::{
    bundle::Part,
    pieces::{Piece, PiecesError},
    progress::Progress,
    stop::Stop,
};

/// How often a piece is sent before it is given up.
const ATTEMPTS: u32 = 3;
/// What a board takes at a time that does not say: less than any takes.
const DOWNLOAD_BYTES_UNSAID: u32 = 16 << 20;

/// What is asked for beside the partitions.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The slot that starts next.
    pub active_slot: Option<String>,
    /// Whether the board starts anew at the end.
    pub reboot: bool,
    /// How long a board is given to come back before a piece is sent again.
    pub pause: Duration,
}

/// What a board says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoardFacts {
    /// Its product name.
    pub product: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Bytes that it takes at a time.
    pub max_download_bytes: u32,
}

/// A partition that the board acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acknowledged {
    /// The partition.
    pub name: String,
    /// Bytes of its content.
    pub image_bytes: u64,
    /// Bytes that were sent for it, repeats included.
    pub sent_bytes: u64,
    /// Pieces that it was sent in.
    pub pieces: usize,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flashed {
    /// The board.
    pub board: BoardFacts,
    /// Its partitions, in the order of flashing.
    pub partitions: Vec<Acknowledged>,
    /// How often something had to be sent again.
    pub repeats: u32,
}

/// Why a board was not flashed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Before anything was sent, or between partitions.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A partition.
    #[error(
        "partition {partition} was not flashed (piece {piece} of {of}, {attempts} attempts); the board stays in fastboot \
         mode, so repeat the command"
    )]
    Partition {
        /// Which.
        partition: String,
        /// Which piece, from 1.
        piece: usize,
        /// How many there are.
        of: usize,
        /// How often it was sent.
        attempts: u32,
        /// Why not.
        #[source]
        source: Box<ClientError>,
    },
    /// A file that cannot be cut.
    #[error("cannot cut the content of partition {partition} into pieces")]
    Pieces {
        /// Which.
        partition: String,
        /// Why not.
        #[source]
        source: PiecesError,
    },
    /// Larger than the board's partition.
    #[error(
        "partition {partition} needs {image} bytes and has {room} on the board; nothing was flashed"
    )]
    TooLarge {
        /// Which.
        partition: String,
        /// Bytes of the content.
        image: u64,
        /// Bytes of the partition.
        room: u64,
    },
    /// A boot loader that writes nothing.
    #[error(
        "the board's boot loader is locked; unlock it first (`fastboot flashing unlock`), which erases the board"
    )]
    Locked,
    /// Another board answers now.
    #[error(
        "the board that came back is another one ({found} instead of {expected}); look at the cables"
    )]
    OtherBoard {
        /// Serial number before.
        expected: String,
        /// Serial number now.
        found: String,
    },
    /// The user stopped it.
    #[error(
        "stopped while partition {partition} was flashed; the board stays in fastboot mode, so repeat the command"
    )]
    Stopped {
        /// Which.
        partition: String,
    },
}

/// Asks a board what it is, and whether it will take these parts.
///
/// # Errors
/// [`JobError`]; nothing was sent then.
pub fn look(client: &mut Client<'_>, parts: &[Part]) -> Result<BoardFacts, JobError> {
    let facts = BoardFacts {
        product: client.variable("product")?,
        serial: client.variable("serialno")?,
        max_download_bytes: client
            .variable("max-download-size")?
            .and_then(|text| read_number(&text))
            .map_or(DOWNLOAD_BYTES_UNSAID, |bytes| {
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }),
    };
    if client
        .variable("unlocked")?
        .is_some_and(|unlocked| unlocked == "no")
    {
        return Err(JobError::Locked);
    }
    for part in parts {
        let room = client.variable(&format!("partition-size:{}", part.name))?;
        // Boards write this number without its `0x` too.
        let room = room.and_then(|text| {
            read_number(&text).or_else(|| u64::from_str_radix(text.trim(), 16).ok())
        });
        if let Some(room) = room.filter(|room| *room > 0 && *room < part.layout.image_bytes) {
            return Err(JobError::TooLarge {
                partition: part.name.clone(),
                image: part.layout.image_bytes,
                room,
            });
        }
    }
    Ok(facts)
}

/// Flashes all parts, in order.
///
/// # Errors
/// [`JobError`]; the slot that starts next is then the one that it was.
pub fn flash(
    client: &mut Client<'_>,
    parts: &[Part],
    wishes: &Wishes,
    progress: &Progress,
    stop: &Stop,
) -> Result<Flashed, JobError> {
    let board = look(client, parts)?;
    let mut job = Job {
        client,
        board,
        wishes,
        progress,
        stop,
        repeats: 0,
        sent: 0,
    };
    let cut = |part: &Part| {
        let pieces = part.layout.cut(job.board.max_download_bytes);
        pieces.map_err(|source| JobError::Pieces {
            partition: part.name.clone(),
            source,
        })
    };
    let pieces = parts.iter().map(cut).collect::<Result<Vec<_>, _>>()?;
    let total = pieces
        .iter()
        .flatten()
        .map(|piece| u64::from(piece.bytes()))
        .sum();
    progress.begin("flashing", total);
    let mut partitions = Vec::new();
    for (part, pieces) in parts.iter().zip(&pieces) {
        partitions.push(job.partition(part, pieces)?);
    }
    if let Some(slot) = &wishes.active_slot {
        job.client.set_active(slot)?;
    }
    if wishes.reboot {
        job.client.reboot()?;
    }
    Ok(Flashed {
        board: job.board,
        partitions,
        repeats: job.repeats,
    })
}

struct Job<'a, 'b> {
    client: &'a mut Client<'b>,
    board: BoardFacts,
    wishes: &'a Wishes,
    progress: &'a Progress,
    stop: &'a Stop,
    repeats: u32,
    /// Bytes of pieces that are through.
    sent: u64,
}

impl Job<'_, '_> {
    fn partition(&mut self, part: &Part, pieces: &[Piece]) -> Result<Acknowledged, JobError> {
        let mut sent_bytes = 0;
        for (index, piece) in pieces.iter().enumerate() {
            let mut attempts = 0;
            loop {
                if self.stop.is_set() {
                    return Err(JobError::Stopped {
                        partition: part.name.clone(),
                    });
                }
                attempts += 1;
                sent_bytes += u64::from(piece.bytes());
                let Err(source) = self.piece(part, piece) else {
                    break;
                };
                if !source.is_passing() || attempts == ATTEMPTS {
                    return Err(JobError::Partition {
                        partition: part.name.clone(),
                        piece: index + 1,
                        of: pieces.len(),
                        attempts,
                        source: Box::new(source),
                    });
                }
                self.progress.say(&format!(
                    "{source}; trying again ({attempts} of {})",
                    ATTEMPTS - 1
                ));
                self.repeats += 1;
                self.come_back()?;
            }
            self.sent += u64::from(piece.bytes());
        }
        Ok(Acknowledged {
            name: part.name.clone(),
            image_bytes: part.layout.image_bytes,
            sent_bytes,
            pieces: pieces.len(),
        })
    }

    fn piece(&mut self, part: &Part, piece: &Piece) -> Result<(), ClientError> {
        let mut at = self.sent;
        self.progress.at(at);
        self.client.download(piece.bytes(), &mut |send| {
            piece.read(&part.file, &mut |bytes| {
                send(bytes)?;
                at += bytes.len() as u64;
                self.progress.at(at);
                Ok(())
            })
        })?;
        self.client.flash(&part.name)
    }

    /// A fresh connection to the same board.
    fn come_back(&mut self) -> Result<(), JobError> {
        let mut attempt = 1;
        loop {
            thread::sleep(self.wishes.pause * attempt);
            match self.client.reopen() {
                Ok(()) => break,
                Err(error) if !error.is_passing() || attempt == ATTEMPTS => {
                    return Err(error.into());
                }
                Err(_) => attempt += 1,
            }
        }
        let found = self.client.variable("serialno")?;
        if found == self.board.serial {
            return Ok(());
        }
        let said = |serial: &Option<String>| {
            serial
                .clone()
                .unwrap_or_else(|| "no serial number".to_owned())
        };
        Err(JobError::OtherBoard {
            expected: said(&self.board.serial),
            found: said(&found),
        })
    }
}
