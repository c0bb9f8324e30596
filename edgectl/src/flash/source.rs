//! The image as a stream of bytes, however it is stored: raw, Android sparse, compressed, in bounded memory.
//!
//! What is stored is recognised by its first bytes, never by its name. Nothing here knows where the image goes.

mod size;

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Cursor, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{
    checksum::{self, ChecksumError, Sha256Sum},
    sparse::{self, Unsparse},
};

pub use self::size::{xz_image_bytes, zstd_image_bytes};

/// The largest window of zstd and dictionary of xz that we hold in memory: what `zstd --long=25` and `xz -8` need.
pub const WINDOW_MAX_BYTES: u32 = 32 << 20;
/// [`WINDOW_MAX_BYTES`] and what a decoder of xz needs besides, in KiB.
const XZ_MEMORY_MAX_KIB: u32 = (WINDOW_MAX_BYTES >> 10) + 1024;
/// Bytes that are read from the file at a time.
const READ_BYTES: usize = 256 << 10;

/// How a file stores its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// Zstandard (RFC 8878).
    Zstd,
    /// The .xz file format 1.2.0.
    Xz,
    /// gzip (RFC 1952).
    Gzip,
}

impl Compression {
    /// By a file's first bytes.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        match first {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, which `pzstd` writes first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            _ => Self::None,
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Gzip => "gzip",
        }
    }
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing in it.
    #[error("{} is empty", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// It is no file.
    #[error("{} is no file; name an image file, or the folder of a bundle", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// The decoder does not go on.
    #[error(
        "{} is damaged or cut short: unpacking it ({kind}) failed after {stored} of {of} bytes; copy or download it again",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
        /// Bytes read so far.
        stored: u64,
        /// Bytes of the file.
        of: u64,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// A window that does not fit.
    #[error(
        "unpacking {} needs more than {} MiB of memory; unpack it first (`{}`), or compress it with `zstd -19` or `xz -6`",
        path.display(),
        WINDOW_MAX_BYTES >> 20,
        match kind { Compression::Xz => "xz -dk", _ => "zstd -d --long=31" }
    )]
    Window {
        /// Which file.
        path: PathBuf,
        /// What it is.
        kind: Compression,
    },
    /// Its checksum file.
    #[error(transparent)]
    Checksum(#[from] ChecksumError),
}

/// What is known of an image before it is read to its end.
#[derive(Debug, Clone)]
pub struct ImageFacts {
    /// The file.
    pub path: PathBuf,
    /// How it is compressed.
    pub compression: Compression,
    /// Whether it is an Android sparse image.
    pub sparse: bool,
    /// Bytes of the file.
    pub stored_bytes: u64,
    /// Bytes of the image, where the file says so; only the end of the stream proves it.
    pub image_bytes: Option<u64>,
    /// What the file beside it, `IMAGE.sha256`, says.
    pub expected: Option<Sha256Sum>,
}

/// An opened image.
pub struct Source {
    facts: ImageFacts,
    reader: Box<dyn Read + Send>,
    stored: StoredFile,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Opens an image, and the checksum file beside it.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let failed = |operation| {
            move |source| SourceError::File {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = File::open(path).map_err(failed("open"))?;
        let metadata = file.metadata().map_err(failed("examine"))?;
        let path = path.to_owned();
        if !metadata.is_file() {
            return Err(SourceError::NoFile { path });
        }
        let stored_bytes = metadata.len();
        if stored_bytes == 0 {
            return Err(SourceError::Empty { path });
        }
        let mut first = [0; 8];
        read_full(&mut file, &mut first).map_err(failed("read"))?;
        let compression = Compression::of(&first);
        let image_bytes = match compression {
            Compression::None => Some(stored_bytes),
            Compression::Xz => size::of_xz_file(&mut file, stored_bytes).map_err(failed("read"))?,
            Compression::Zstd => size::of_zstd_file(&mut file).map_err(failed("read"))?,
            // It keeps its size modulo 4 GiB, and that of the last member only.
            Compression::Gzip => None,
        };
        file.seek(SeekFrom::Start(0)).map_err(failed("read"))?;
        let expected = checksum::beside(&path)?;
        // The bytes of a plain image are hashed anyway, by whoever reads them.
        let plain = compression == Compression::None && !first.starts_with(&sparse::MAGIC);
        let stored = StoredFile::new(file, expected.is_some() && !plain);
        let mut source = Self {
            facts: ImageFacts {
                path,
                compression,
                sparse: false,
                stored_bytes,
                image_bytes,
                expected,
            },
            reader: Box::new(io::empty()),
            stored,
        };
        source.start().map_err(|error| source.explain(error))?;
        Ok(source)
    }

    /// Puts the decoders together, which read the first bytes already.
    fn start(&mut self) -> io::Result<()> {
        let stored = BufReader::with_capacity(READ_BYTES, self.stored.clone());
        let mut decoded: Box<dyn Read + Send> = match self.facts.compression {
            Compression::None => Box::new(self.stored.clone()),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(stored)?;
                decoder.window_log_max(WINDOW_MAX_BYTES.ilog2())?;
                Box::new(decoder)
            }
            Compression::Xz => Box::new(XzReader::new_mem_limit(stored, true, XZ_MEMORY_MAX_KIB)),
            Compression::Gzip => Box::new(MultiGzDecoder::new(stored)),
        };
        let mut first = [0; sparse::MAGIC.len()];
        let read = read_full(&mut decoded, &mut first)?;
        let decoded = Cursor::new(first).take(read as u64).chain(decoded);
        self.facts.sparse = first == sparse::MAGIC;
        self.reader = if self.facts.sparse {
            let image = Unsparse::new(decoded)?;
            self.facts.image_bytes = Some(image.image_bytes());
            Box::new(image)
        } else {
            Box::new(decoded)
        };
        Ok(())
    }

    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> &ImageFacts {
        &self.facts
    }

    /// Bytes of the file that have been read, of [`ImageFacts::stored_bytes`].
    #[must_use]
    pub fn position(&self) -> u64 {
        self.stored.0.lock().position
    }

    /// Fills `buffer`, or as much of it as the image still has.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        read_full(&mut self.reader, buffer).map_err(|error| self.explain(error))
    }

    /// After the end: whether the file is what its checksum file says. `image` is the hash of all that was read, which
    /// is the file's own where it is stored plainly.
    ///
    /// # Errors
    /// [`ChecksumError::Differs`], and [`SourceError::File`] when the rest of the file cannot be read.
    pub fn check(&mut self, image: Sha256Sum) -> Result<(), SourceError> {
        let Some(expected) = &self.facts.expected else {
            return Ok(());
        };
        // Decoders may leave what follows their stream.
        let rest = io::copy(&mut self.stored, &mut io::sink());
        rest.map_err(|error| self.explain(error))?;
        let hash = self.stored.0.lock().hash.take();
        let found = hash.map_or(image, |hash| Sha256Sum(hash.finalize().into()));
        Ok(checksum::compare(&self.facts.path, *expected, found)?)
    }

    fn explain(&self, source: io::Error) -> SourceError {
        let stored = self.stored.0.lock();
        let (path, kind) = (self.facts.path.clone(), self.facts.compression);
        if stored.failed {
            let operation = "read";
            return SourceError::File {
                operation,
                path,
                source,
            };
        }
        // The latter are libzstd's words for `frameParameter_windowTooLarge`, which has no kind of its own here.
        let is_too_large = source.kind() == io::ErrorKind::OutOfMemory
            || source.to_string().contains("requires too much memory");
        if is_too_large {
            return SourceError::Window { path, kind };
        }
        SourceError::Damaged {
            path,
            kind: if self.facts.sparse || kind == Compression::None {
                "Android sparse"
            } else {
                kind.name()
            },
            stored: stored.position,
            of: self.facts.stored_bytes,
            source,
        }
    }
}

/// The file below the decoders: counted, hashed, and asked whether it is the one that failed. Clones share it.
#[derive(Clone)]
struct StoredFile(Arc<Mutex<Stored>>);

struct Stored {
    file: File,
    position: u64,
    failed: bool,
    hash: Option<Sha256>,
}

impl StoredFile {
    fn new(file: File, hashed: bool) -> Self {
        Self(Arc::new(Mutex::new(Stored {
            file,
            position: 0,
            failed: false,
            hash: hashed.then(Sha256::new),
        })))
    }
}

impl Read for StoredFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stored = self.0.lock();
        let read = stored
            .file
            .read(buffer)
            .inspect_err(|_| stored.failed = true)?;
        stored.position += read as u64;
        if let Some(hash) = &mut stored.hash {
            hash.update(buffer.get(..read).unwrap_or_default());
        }
        Ok(read)
    }
}

/// Reads until `buffer` is full or the stream ends.
pub(crate) fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
