//! Android's sparse images: what their chunks say, checked, and the image that they stand for.
//!
//! Format: AOSP, `system/core/libsparse/sparse_format.h`. A sparse file is a header and chunks; each chunk stands for a
//! number of blocks, either with their bytes, or with four bytes that fill them, or with nothing ("don't care").

use std::io::{self, Read};

use android_sparse_image::{
    CHUNK_HEADER_BYTES_LEN, ChunkHeader, ChunkType, FILE_HEADER_BYTES_LEN, FileHeader,
};

/// The first bytes of a sparse image: the magic, little endian.
pub const MAGIC: [u8; 4] = android_sparse_image::HEADER_MAGIC.to_le_bytes();
/// Larger blocks than anybody makes (libsparse: 4 KiB) would only serve an attacker.
const BLOCK_MAX: u32 = 1 << 20;

/// Why a sparse image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SparseError {
    /// The header.
    #[error("its sparse header is wrong ({0})")]
    Header(String),
    /// Blocks of a strange size.
    #[error("its blocks have {0} bytes; up to 1 MiB in steps of 4 bytes are possible")]
    BlockSize(u32),
    /// A chunk's header.
    #[error("chunk {index} of its sparse image is wrong: {what}")]
    Chunk {
        /// Which, from 0.
        index: u32,
        /// What is wrong.
        what: String,
    },
    /// The chunks do not add up.
    #[error("its chunks hold {found} blocks, the header says {said}")]
    Blocks {
        /// In the header.
        said: u32,
        /// In the chunks.
        found: u64,
    },
}

/// A checked header.
///
/// # Errors
/// [`SparseError::Header`] and [`SparseError::BlockSize`].
pub fn header(bytes: &[u8; FILE_HEADER_BYTES_LEN]) -> Result<FileHeader, SparseError> {
    let header =
        FileHeader::from_bytes(bytes).map_err(|error| SparseError::Header(error.to_string()))?;
    let size = header.block_size;
    if size == 0 || !size.is_multiple_of(4) || size > BLOCK_MAX {
        return Err(SparseError::BlockSize(size));
    }
    Ok(header)
}

/// Size of the image that a sparse file with this header stands for.
#[must_use]
pub fn image_bytes(header: &FileHeader) -> u64 {
    u64::from(header.block_size) * u64::from(header.blocks)
}

/// A checked chunk header.
///
/// # Errors
/// [`SparseError::Chunk`].
pub fn chunk(
    bytes: &[u8; CHUNK_HEADER_BYTES_LEN],
    index: u32,
    block_size: u32,
) -> Result<ChunkHeader, SparseError> {
    let wrong = |what: String| SparseError::Chunk { index, what };
    let chunk = ChunkHeader::from_bytes(bytes).map_err(|error| wrong(error.to_string()))?;
    let data = match chunk.chunk_type {
        ChunkType::Raw => u64::from(chunk.chunk_size) * u64::from(block_size),
        ChunkType::Fill | ChunkType::Crc32 => 4,
        ChunkType::DontCare => 0,
    };
    let expected = data + CHUNK_HEADER_BYTES_LEN as u64;
    if u64::from(chunk.total_size) != expected {
        let said = chunk.total_size;
        return Err(wrong(format!("{said} bytes long instead of {expected}")));
    }
    if chunk.chunk_type == ChunkType::Crc32 && chunk.chunk_size != 0 {
        return Err(wrong("a checksum that holds blocks".to_owned()));
    }
    Ok(chunk)
}

/// The image that a sparse stream stands for. What the image does not care about reads as zeros.
#[derive(Debug)]
pub struct Unsparse<R> {
    inner: R,
    header: FileHeader,
    chunks_read: u32,
    blocks_read: u64,
    /// What is left of the chunk.
    left: u64,
    content: Content,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    Raw,
    /// Four bytes over and over, from this byte of them on.
    Fill([u8; 4], usize),
}

impl<R: Read> Unsparse<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// What `inner` says, and [`SparseError`] as [`io::ErrorKind::InvalidData`].
    pub fn new(mut inner: R) -> io::Result<Self> {
        let mut bytes = [0; FILE_HEADER_BYTES_LEN];
        inner.read_exact(&mut bytes)?;
        Ok(Self {
            inner,
            header: header(&bytes).map_err(invalid)?,
            chunks_read: 0,
            blocks_read: 0,
            left: 0,
            content: Content::Raw,
        })
    }

    /// Size of the image.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        image_bytes(&self.header)
    }

    /// Goes to the next chunk that holds bytes; false at the end.
    fn next_chunk(&mut self) -> io::Result<bool> {
        while self.left == 0 {
            if self.chunks_read == self.header.chunks {
                return if self.blocks_read == u64::from(self.header.blocks) {
                    Ok(false)
                } else {
                    Err(invalid(self.wrong_total()))
                };
            }
            let mut bytes = [0; CHUNK_HEADER_BYTES_LEN];
            self.inner.read_exact(&mut bytes)?;
            let chunk = chunk(&bytes, self.chunks_read, self.header.block_size).map_err(invalid)?;
            self.chunks_read += 1;
            self.blocks_read += u64::from(chunk.chunk_size);
            // Before its bytes are handed out, so that the image is never larger than its header says.
            if self.blocks_read > u64::from(self.header.blocks) {
                return Err(invalid(self.wrong_total()));
            }
            self.left = u64::from(chunk.chunk_size) * u64::from(self.header.block_size);
            self.content = match chunk.chunk_type {
                ChunkType::Raw => Content::Raw,
                ChunkType::DontCare => Content::Fill([0; 4], 0),
                ChunkType::Fill | ChunkType::Crc32 => {
                    let mut fill = [0; 4];
                    self.inner.read_exact(&mut fill)?;
                    Content::Fill(fill, 0)
                }
            };
        }
        Ok(true)
    }

    fn wrong_total(&self) -> SparseError {
        SparseError::Blocks {
            said: self.header.blocks,
            found: self.blocks_read,
        }
    }
}

impl<R: Read> Read for Unsparse<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.next_chunk()? {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(most);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let read = match &mut self.content {
            Content::Raw => {
                let read = self.inner.read(part)?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                read
            }
            Content::Fill(fill, phase) => {
                if *fill == [0; 4] {
                    part.fill(0);
                } else {
                    for (byte, value) in part.iter_mut().zip(fill.iter().cycle().skip(*phase)) {
                        *byte = *value;
                    }
                }
                *phase = (*phase + wanted) % fill.len();
                wanted
            }
        };
        self.left -= read as u64;
        Ok(read)
    }
}

fn invalid(error: SparseError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(block_size: u32, blocks: u32, chunks: &[(ChunkHeader, &[u8])]) -> Vec<u8> {
        let count = u32::try_from(chunks.len()).unwrap();
        let header = FileHeader {
            block_size,
            blocks,
            chunks: count,
            checksum: 0,
        };
        let mut bytes = header.to_bytes().to_vec();
        for (chunk, data) in chunks {
            bytes.extend(chunk.to_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    fn expand(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut image = Vec::new();
        Unsparse::new(bytes)?.read_to_end(&mut image)?;
        Ok(image)
    }

    #[test]
    fn every_kind_of_chunk_is_expanded() {
        let sum = ChunkHeader {
            chunk_type: ChunkType::Crc32,
            chunk_size: 0,
            total_size: 16,
        };
        let image = expand(&file(
            8,
            4,
            &[
                (ChunkHeader::new_raw(1, 8), b"12345678"),
                (ChunkHeader::new_fill(2), b"abcd"),
                (sum, b"...."),
                (ChunkHeader::new_dontcare(1), b""),
            ],
        ));
        assert_eq!(image.unwrap(), b"12345678abcdabcdabcdabcd\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn chunks_must_add_up() {
        let too_few = file(8, 4, &[(ChunkHeader::new_dontcare(3), b"")]);
        let too_many = file(8, 4, &[(ChunkHeader::new_dontcare(5), b"")]);
        for bytes in [too_few, too_many] {
            assert_eq!(
                expand(&bytes).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
        let mut lies = ChunkHeader::new_raw(1, 8);
        lies.total_size += 1;
        let lies = file(8, 1, &[(lies, b"12345678")]);
        assert!(
            expand(&lies)
                .unwrap_err()
                .to_string()
                .contains("21 bytes long instead of 20")
        );
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let whole = file(8, 2, &[(ChunkHeader::new_raw(2, 8), b"1234567812345678")]);
        for length in 0..whole.len() {
            assert!(expand(&whole[..length]).is_err(), "{length}");
        }
    }
}
