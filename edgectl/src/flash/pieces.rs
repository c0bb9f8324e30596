//! A partition's content, cut into pieces that fit into the memory of a board. Plans are pure; only reading a piece
//! touches the file.
//!
//! A piece is a sparse image of the whole partition that cares for a part of it: boards take such images one after the
//! other, as `fastboot` sends them. Offsets are our own because those of `android-sparse-image` 0.1.3 overflow at 4 GiB
//! (`split_raw`); headers are that crate's.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
};

use android_sparse_image::{
    CHUNK_HEADER_BYTES_LEN, ChunkHeader, ChunkType, DEFAULT_BLOCKSIZE, FILE_HEADER_BYTES_LEN,
    FileHeader,
};

use super::{
    medium::read_at,
    source::read_full,
    sparse::{self, SparseError},
};

/// More chunks than an image has; each costs memory here.
const CHUNKS_MAX: u32 = 1 << 18;
/// Bytes that are sent at a time.
const SEND_BYTES: usize = 1 << 20;
const FILE_HEADER_BYTES: u64 = FILE_HEADER_BYTES_LEN as u64;
const CHUNK_HEADER_BYTES: u64 = CHUNK_HEADER_BYTES_LEN as u64;

/// What a run of blocks holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Bytes of the file, from this one on.
    File(u64),
    /// Four bytes over and over.
    Fill([u8; 4]),
    /// Nothing that matters.
    Skip,
}

/// A run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// How many.
    pub blocks: u32,
    /// What they hold.
    pub content: Content,
}

/// What a partition shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the partition's content.
    pub image_bytes: u64,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// All blocks, in order.
    pub extents: Vec<Extent>,
}

/// A piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The file as it is.
    Whole {
        /// Its size.
        bytes: u32,
    },
    /// A sparse image made of a part of it.
    Part {
        /// Its header.
        header: FileHeader,
        /// Its chunks, each with what they hold.
        chunks: Vec<(ChunkHeader, Content)>,
        /// Its size.
        bytes: u32,
    },
}

/// Why a partition cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum PiecesError {
    /// The file.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// Its sparse image.
    #[error(transparent)]
    Sparse(#[from] SparseError),
    /// Too many chunks.
    #[error("its sparse image has {0} chunks; up to {CHUNKS_MAX} are taken")]
    Chunks(u32),
    /// Too large.
    #[error("it stands for {0} bytes, which is more than a sparse image can hold")]
    TooLarge(u64),
    /// The board takes too little at a time.
    #[error("the board takes only {0} bytes at a time, which is not enough for a block")]
    MemoryTooSmall(u32),
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
}

impl Layout {
    /// Reads what a file holds: an Android sparse image by its chunks, any other as it is.
    ///
    /// # Errors
    /// [`PiecesError`].
    pub fn read(file: &mut File) -> Result<Self, PiecesError> {
        let file_bytes = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        let mut first = [0; FILE_HEADER_BYTES_LEN];
        let read = read_full(file, &mut first)?;
        if read == 0 {
            return Err(PiecesError::Empty);
        }
        if !first.starts_with(&sparse::MAGIC) {
            return Self::plain(file_bytes);
        }
        let header = sparse::header(&first)?;
        if header.chunks > CHUNKS_MAX {
            return Err(PiecesError::Chunks(header.chunks));
        }
        let mut extents = Vec::new();
        let (mut at, mut blocks) = (FILE_HEADER_BYTES, 0_u64);
        for index in 0..header.chunks {
            let mut bytes = [0; CHUNK_HEADER_BYTES_LEN];
            file.read_exact_at(&mut bytes, at)?;
            let chunk = sparse::chunk(&bytes, index, header.block_size)?;
            let data_at = at + CHUNK_HEADER_BYTES;
            at += u64::from(chunk.total_size);
            if at > file_bytes {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let content = match chunk.chunk_type {
                ChunkType::Raw => Content::File(data_at),
                ChunkType::DontCare => Content::Skip,
                ChunkType::Fill => {
                    let mut fill = [0; 4];
                    file.read_exact_at(&mut fill, data_at)?;
                    Content::Fill(fill)
                }
                ChunkType::Crc32 => continue,
            };
            blocks += u64::from(chunk.chunk_size);
            if chunk.chunk_size > 0 {
                extents.push(Extent {
                    blocks: chunk.chunk_size,
                    content,
                });
            }
        }
        if blocks != u64::from(header.blocks) {
            return Err(SparseError::Blocks {
                said: header.blocks,
                found: blocks,
            }
            .into());
        }
        Ok(Self {
            file_bytes,
            image_bytes: sparse::image_bytes(&header),
            block_bytes: header.block_size,
            extents,
        })
    }

    fn plain(file_bytes: u64) -> Result<Self, PiecesError> {
        let blocks = file_bytes.div_ceil(DEFAULT_BLOCKSIZE.into());
        let blocks = u32::try_from(blocks).map_err(|_| PiecesError::TooLarge(file_bytes))?;
        Ok(Self {
            file_bytes,
            image_bytes: file_bytes,
            block_bytes: DEFAULT_BLOCKSIZE,
            extents: vec![Extent {
                blocks,
                content: Content::File(0),
            }],
        })
    }

    /// Cuts it into pieces of at most `most` bytes.
    ///
    /// # Errors
    /// [`PiecesError::MemoryTooSmall`].
    pub fn cut(&self, most: u32) -> Result<Vec<Piece>, PiecesError> {
        if let Some(bytes) = u32::try_from(self.file_bytes)
            .ok()
            .filter(|bytes| *bytes <= most)
        {
            return Ok(vec![Piece::Whole { bytes }]);
        }
        let total: u64 = self
            .extents
            .iter()
            .map(|extent| u64::from(extent.blocks))
            .sum();
        let total = u32::try_from(total).map_err(|_| PiecesError::TooLarge(self.image_bytes))?;
        let mut cutter = Cutter {
            block_bytes: self.block_bytes.into(),
            total,
            most: most.into(),
            at: 0,
            bytes: 0,
            chunks: Vec::new(),
            is_useful: false,
            pieces: Vec::new(),
        };
        cutter.open();
        for extent in &self.extents {
            cutter.add(*extent, most)?;
        }
        cutter.close();
        Ok(cutter.pieces)
    }
}

struct Cutter {
    block_bytes: u64,
    total: u32,
    most: u64,
    /// The next block.
    at: u32,
    /// Size of the open piece.
    bytes: u64,
    chunks: Vec<(ChunkHeader, Content)>,
    /// Whether the open piece holds more than gaps.
    is_useful: bool,
    pieces: Vec<Piece>,
}

impl Cutter {
    fn open(&mut self) {
        self.bytes = FILE_HEADER_BYTES;
        self.is_useful = false;
        if self.at > 0 {
            self.push(ChunkHeader::new_dontcare(self.at), Content::Skip);
        }
    }

    fn push(&mut self, header: ChunkHeader, content: Content) {
        self.bytes += u64::from(header.total_size);
        self.chunks.push((header, content));
    }

    fn close(&mut self) {
        let mut chunks = std::mem::take(&mut self.chunks);
        if !self.is_useful {
            return;
        }
        let rest = self.total - self.at;
        if rest > 0 {
            let header = ChunkHeader::new_dontcare(rest);
            self.bytes += u64::from(header.total_size);
            chunks.push((header, Content::Skip));
        }
        self.pieces.push(Piece::Part {
            header: FileHeader {
                block_size: self.block_bytes_u32(),
                blocks: self.total,
                // As many as extents and cuts at most.
                chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX),
                checksum: 0,
            },
            chunks,
            // Bounded by `most`.
            bytes: u32::try_from(self.bytes).unwrap_or(u32::MAX),
        });
    }

    fn block_bytes_u32(&self) -> u32 {
        u32::try_from(self.block_bytes).unwrap_or(u32::MAX)
    }

    /// Bytes left for the data of one more chunk, if a gap follows it up to the end.
    fn room(&self) -> u64 {
        self.most
            .saturating_sub(self.bytes + 2 * CHUNK_HEADER_BYTES)
    }

    fn add(&mut self, extent: Extent, most: u32) -> Result<(), PiecesError> {
        let mut left = extent;
        while left.blocks > 0 {
            let fits = match left.content {
                Content::File(_) => {
                    u32::try_from(self.room() / self.block_bytes).unwrap_or(u32::MAX)
                }
                Content::Fill(_) if self.room() >= 4 => left.blocks,
                Content::Skip if self.most >= self.bytes + 2 * CHUNK_HEADER_BYTES => left.blocks,
                Content::Fill(_) | Content::Skip => 0,
            };
            let blocks = left.blocks.min(fits);
            if blocks == 0 {
                if !self.is_useful && self.chunks.len() <= 1 {
                    return Err(PiecesError::MemoryTooSmall(most));
                }
                self.close();
                self.open();
                continue;
            }
            let header = match left.content {
                Content::File(_) => ChunkHeader::new_raw(blocks, self.block_bytes_u32()),
                Content::Fill(_) => ChunkHeader::new_fill(blocks),
                Content::Skip => ChunkHeader::new_dontcare(blocks),
            };
            self.push(header, left.content);
            self.is_useful |= left.content != Content::Skip;
            self.at += blocks;
            left.blocks -= blocks;
            if let Content::File(offset) = &mut left.content {
                *offset += u64::from(blocks) * self.block_bytes;
            }
        }
        Ok(())
    }
}

impl Piece {
    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        match self {
            Self::Whole { bytes } | Self::Part { bytes, .. } => *bytes,
        }
    }

    /// Hands the piece's bytes over, in order; what the file lacks of its last block is zeros.
    ///
    /// # Errors
    /// What the file or `take` says.
    pub fn read<E: From<io::Error>>(
        &self,
        file: &File,
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Whole { bytes } => copy(file, 0, (*bytes).into(), 1, take),
            Self::Part { header, chunks, .. } => {
                let mut small = header.to_bytes().to_vec();
                for (chunk, content) in chunks {
                    small.extend(chunk.to_bytes());
                    match content {
                        Content::Skip => {}
                        Content::Fill(fill) => small.extend(fill),
                        Content::File(offset) => {
                            take(&std::mem::take(&mut small))?;
                            let bytes = chunk.data_size() as u64;
                            copy(file, *offset, bytes, header.block_size, take)?;
                        }
                    }
                }
                if small.is_empty() {
                    Ok(())
                } else {
                    take(&small)
                }
            }
        }
    }
}

fn copy<E: From<io::Error>>(
    file: &File,
    mut offset: u64,
    mut left: u64,
    block_bytes: u32,
    take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; SEND_BYTES];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(SEND_BYTES).min(SEND_BYTES);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let held = read_at(file, offset, part)?;
        // Only a plain file's last block may end early.
        if wanted - held >= usize::try_from(block_bytes).unwrap_or(usize::MAX) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(rest) = part.get_mut(held..) {
            rest.fill(0);
        }
        take(part)?;
        offset += wanted as u64;
        left -= wanted as u64;
    }
    Ok(())
}
