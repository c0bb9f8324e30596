//! A bundle: the partitions of a board that is flashed one by one, with a manifest that says which file is which.
//!
//! It is a folder, or a tar of one (compressed or not), with `flash.toml` in it:
//!
//! ```toml
//! format = 1
//! board = "qrb5165-rb5"       # a board of this program; its file names the partitions
//! active_slot = "a"           # optional: the slot that starts next, once all is flashed
//!
//! [[partition]]               # flashed in this order
//! name = "boot_a"
//! file = "boot.img"           # beside flash.toml; as it is, or an Android sparse image
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! ```
//!
//! Every file is checked against its sum before anything is sent. Nothing here knows of fastboot.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use edge_hal::{Board, BoardError, board::PartitionConfig};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{
    checksum::{self, ChecksumError, Sha256Sum},
    pieces::{Layout, PiecesError},
    progress::Progress,
    source::{Compression, Source, SourceError, read_full},
};

/// Name of the manifest.
pub const MANIFEST: &str = "flash.toml";
/// The only format so far.
const FORMAT: u32 = 1;
const MANIFEST_MAX_BYTES: u64 = 64 << 10;
/// More than a board has.
const PARTITIONS_MAX: usize = 64;
/// Files in a tar: partitions, and what else an image brings.
const FILES_MAX: usize = 256;
/// Where a tar says that it is one, and how (POSIX.1-2024, pax, ustar interchange format).
const USTAR: std::ops::Range<usize> = 257..262;
/// Bytes that are summed at a time.
const READ_BYTES: usize = 1 << 20;

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// Name of the board that it is for.
    pub board: String,
    /// The slot that starts next, `a` or `b`.
    pub active_slot: Option<String>,
    /// What is flashed, in this order.
    #[serde(rename = "partition")]
    pub partitions: Vec<PartitionFile>,
}

/// A partition and its file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionFile {
    /// Its name, with the slot's suffix.
    pub name: String,
    /// Name of its file, without a folder.
    pub file: String,
    /// Sum of the file.
    pub sha256: Sha256Sum,
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Its form.
    #[error("{0}")]
    Syntax(Box<toml::de::Error>),
    /// A format of the future.
    #[error("format {0} is not known; a newer edgectl may know it")]
    Format(u32),
    /// No board.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// A slot of another name.
    #[error("active_slot is `{0}`; it can be `a` or `b`")]
    Slot(String),
    /// None at all, or too many.
    #[error("it has {0} partitions; 1 to {PARTITIONS_MAX} are possible")]
    Count(usize),
    /// Not of that board.
    #[error("partition `{name}`: board {board} has no such; it has {known}")]
    Unknown {
        /// As the manifest calls it.
        name: String,
        /// The board.
        board: String,
        /// Those that there are.
        known: String,
    },
    /// Twice.
    #[error("partition `{0}` is there twice")]
    Twice(String),
    /// A path where a name belongs.
    #[error("partition `{name}`: file `{file}` is no plain file name")]
    File {
        /// The partition.
        name: String,
        /// Its file.
        file: String,
    },
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self =
            toml::from_str(text).map_err(|error| ManifestError::Syntax(Box::new(error)))?;
        if manifest.format != FORMAT {
            return Err(ManifestError::Format(manifest.format));
        }
        if let Some(slot) = manifest
            .active_slot
            .as_ref()
            .filter(|slot| !["a", "b"].contains(&slot.as_str()))
        {
            return Err(ManifestError::Slot(slot.clone()));
        }
        let count = manifest.partitions.len();
        if !(1..=PARTITIONS_MAX).contains(&count) {
            return Err(ManifestError::Count(count));
        }
        let board = Board::builtin(&manifest.board)?;
        let mut seen = BTreeSet::new();
        for PartitionFile { name, file, .. } in &manifest.partitions {
            if room(&board, name).is_none() {
                return Err(ManifestError::Unknown {
                    name: name.clone(),
                    board: manifest.board.clone(),
                    known: names(&board).join(", "),
                });
            }
            if !seen.insert(name) {
                return Err(ManifestError::Twice(name.clone()));
            }
            let mut parts = Path::new(file).components();
            let is_plain =
                matches!(parts.next(), Some(Component::Normal(first)) if first == file.as_str());
            if !is_plain || parts.next().is_some() {
                let (name, file) = (name.clone(), file.clone());
                return Err(ManifestError::File { name, file });
            }
        }
        Ok(manifest)
    }
}

/// The partitions of a board as fastboot knows them, with slots.
#[must_use]
pub fn names(board: &Board) -> Vec<String> {
    board.storage.partitions.iter().flat_map(copies).collect()
}

fn copies(partition: &PartitionConfig) -> Vec<String> {
    if partition.slotted {
        ["a", "b"]
            .map(|slot| format!("{}_{slot}", partition.name))
            .into()
    } else {
        vec![partition.name.clone()]
    }
}

/// Bytes of a partition of a board; none where it has no such.
#[must_use]
pub fn room(board: &Board, name: &str) -> Option<u64> {
    let mut partitions = board.storage.partitions.iter();
    partitions
        .find(|partition| copies(partition).iter().any(|copy| copy == name))
        .map(|partition| {
            if partition.grow {
                u64::MAX
            } else {
                partition.size_bytes
            }
        })
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// No manifest.
    #[error("{} is no bundle: it has no {MANIFEST}", path.display())]
    NoManifest {
        /// Which.
        path: PathBuf,
    },
    /// A manifest that says something wrong.
    #[error("{} is wrong", path.display())]
    Manifest {
        /// Which.
        path: PathBuf,
        /// What.
        #[source]
        source: ManifestError,
    },
    /// A file.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file's content.
    #[error("cannot use {} for partition {name}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Of which partition.
        name: String,
        /// Why not.
        #[source]
        source: PiecesError,
    },
    /// Larger than its partition.
    #[error("{} stands for {image} bytes; partition {name} of board {board} has {room}", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its partition.
        name: String,
        /// The board.
        board: String,
        /// Bytes of the content.
        image: u64,
        /// Bytes of the partition.
        room: u64,
    },
    /// The tar.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file is not what the manifest says.
    #[error(transparent)]
    Checksum(#[from] ChecksumError),
    /// What a tar must not have.
    #[error("{} holds {entry}, which no bundle has", path.display())]
    Entry {
        /// Which tar.
        path: PathBuf,
        /// The entry.
        entry: String,
    },
    /// Temporary files.
    #[error("cannot unpack the bundle to {}; set TMPDIR to a folder with room for it", folder.display())]
    Unpack {
        /// Where.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A partition's content, ready to be sent.
#[derive(Debug)]
pub struct Part {
    /// The partition.
    pub name: String,
    /// The file.
    pub file: File,
    /// What it holds.
    pub layout: Layout,
}

/// A bundle, checked.
#[derive(Debug)]
pub struct Bundle {
    /// The board that it is for.
    pub board: Board,
    /// The slot that starts next.
    pub active_slot: Option<String>,
    /// What is flashed, in this order.
    pub parts: Vec<Part>,
}

impl Bundle {
    /// Whether `path` is a bundle, by its content.
    ///
    /// # Errors
    /// [`BundleError::Source`] when it cannot be read.
    pub fn is_at(path: &Path) -> Result<bool, BundleError> {
        if path.is_dir() {
            return Ok(true);
        }
        let mut first = [0; 512];
        Source::open(path)?.fill(&mut first)?;
        Ok(first.get(USTAR) == Some(b"ustar"))
    }

    /// Opens the folder or tar at `path`, and checks every file.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(path: &Path, progress: &Progress) -> Result<Self, BundleError> {
        if path.is_dir() {
            return Self::read(path, progress);
        }
        // Its files stay readable while they are open, also when the folder is gone.
        Self::read(unpack(path, progress)?.path(), progress)
    }

    fn read(folder: &Path, progress: &Progress) -> Result<Self, BundleError> {
        let path = folder.join(MANIFEST);
        let failed = |operation| file_error(operation, &path);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BundleError::NoManifest {
                    path: folder.to_owned(),
                });
            }
            other => other.map_err(failed("open"))?,
        };
        let mut text = String::new();
        file.take(MANIFEST_MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(failed("read"))?;
        let wrong = |source| BundleError::Manifest {
            path: path.clone(),
            source,
        };
        let manifest = Manifest::parse(&text).map_err(wrong)?;
        let board = Board::builtin(&manifest.board).map_err(|error| wrong(error.into()))?;
        let parts = manifest.partitions.iter();
        Ok(Self {
            parts: parts
                .map(|part| open_part(folder, &board, part, progress))
                .collect::<Result<_, _>>()?,
            active_slot: manifest.active_slot,
            board,
        })
    }
}

/// Says of an I/O error what was attempted, with which file.
fn file_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> BundleError + use<> {
    let path = path.to_owned();
    move |source| BundleError::File {
        operation,
        path,
        source,
    }
}

fn open_part(
    folder: &Path,
    board: &Board,
    part: &PartitionFile,
    progress: &Progress,
) -> Result<Part, BundleError> {
    let path = folder.join(&part.file);
    let failed = |operation| file_error(operation, &path);
    let mut file = File::open(&path).map_err(failed("open"))?;
    let found = sum_of(&mut file, progress).map_err(failed("read"))?;
    checksum::compare(&path, part.sha256, found)?;
    let name = part.name.clone();
    let layout = Layout::read(&mut file).map_err(|source| BundleError::Content {
        path: path.clone(),
        name: name.clone(),
        source,
    })?;
    // The manifest was checked against the board.
    let room = room(board, &name).unwrap_or(u64::MAX);
    if layout.image_bytes > room {
        return Err(BundleError::TooLarge {
            path,
            name,
            board: board.name.clone(),
            image: layout.image_bytes,
            room,
        });
    }
    Ok(Part { name, file, layout })
}

fn sum_of(file: &mut File, progress: &Progress) -> io::Result<Sha256Sum> {
    progress.begin("checking", file.metadata()?.len());
    let mut sum = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut done = 0;
    loop {
        let read = read_full(file, &mut buffer)?;
        if read == 0 {
            return Ok(Sha256Sum(sum.finalize().into()));
        }
        sum.update(buffer.get(..read).unwrap_or_default());
        done += read as u64;
        progress.at(done);
    }
}

/// Unpacks a tar into a folder that goes with the value.
fn unpack(path: &Path, progress: &Progress) -> Result<TempDir, BundleError> {
    let at = std::env::temp_dir();
    let failed = |source| BundleError::Unpack {
        folder: at.clone(),
        source,
    };
    let folder = tempfile::tempdir().map_err(failed)?;
    stream(path, progress, |stream| {
        unpack_entries(path, folder.path(), stream)?;
        // What follows the last entry counts for the sum.
        io::copy(stream, &mut io::sink()).map(drop).map_err(failed)
    })?;
    Ok(folder)
}

/// Hands an image's stream to `take`, which reads all of it, and checks its sum.
fn stream(
    path: &Path,
    progress: &Progress,
    take: impl FnOnce(&mut Summed<'_>) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    let mut source = Source::open(path)?;
    progress.begin("unpacking", source.facts().stored_bytes);
    let mut stream = Summed {
        source: &mut source,
        sum: Sha256::new(),
        error: None,
        progress,
    };
    let taken = take(&mut stream);
    // What is wrong with the image explains more than what its reader made of it.
    if let Some(error) = stream.error.take() {
        return Err(error.into());
    }
    taken?;
    let sum = Sha256Sum(stream.sum.finalize().into());
    Ok(source.check(sum)?)
}

fn unpack_entries(path: &Path, folder: &Path, stream: &mut Summed<'_>) -> Result<(), BundleError> {
    let failed = |source| BundleError::Unpack {
        folder: folder.to_owned(),
        source,
    };
    let odd = |entry: String| BundleError::Entry {
        path: path.to_owned(),
        entry,
    };
    let mut archive = tar::Archive::new(stream);
    for (index, entry) in archive.entries().map_err(failed)?.enumerate() {
        if index >= FILES_MAX {
            return Err(odd(format!("more than {FILES_MAX} files")));
        }
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.into_owned();
        let kind = entry.header().entry_type();
        let mut parts = name.components().filter(|part| *part != Component::CurDir);
        match (parts.next(), parts.next()) {
            // The folder itself, which `tar -C FOLDER .` writes.
            (None, None) if kind.is_dir() => {}
            (Some(Component::Normal(name)), None) if kind.is_file() => {
                let mut file = File::create_new(folder.join(name)).map_err(failed)?;
                io::copy(&mut entry, &mut file).map_err(failed)?;
            }
            _ => return Err(odd(name.display().to_string())),
        }
    }
    Ok(())
}

/// An image's stream for whoever wants to read it, summed on the way.
struct Summed<'a> {
    source: &'a mut Source,
    sum: Sha256,
    error: Option<SourceError>,
    progress: &'a Progress,
}

impl Read for Summed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.source.fill(buffer) {
            Ok(read) => read,
            Err(error) => {
                self.error.get_or_insert(error);
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        self.sum.update(buffer.get(..read).unwrap_or_default());
        self.progress.at(self.source.position());
        Ok(read)
    }
}

/// A single image for one partition. A compressed one is unpacked first: a board wants to know sizes before it takes
/// bytes.
///
/// # Errors
/// [`BundleError`].
pub fn single(path: &Path, name: &str, progress: &Progress) -> Result<Part, BundleError> {
    let facts = Source::open(path)?.facts().clone();
    let mut file = if facts.compression == Compression::None {
        let failed = |operation| file_error(operation, path);
        let mut file = File::open(path).map_err(failed("open"))?;
        if let Some(expected) = facts.expected {
            let found = sum_of(&mut file, progress).map_err(failed("read"))?;
            checksum::compare(path, expected, found)?;
        }
        file
    } else {
        let failed = |source| BundleError::Unpack {
            folder: std::env::temp_dir(),
            source,
        };
        let mut file = tempfile::tempfile().map_err(failed)?;
        stream(path, progress, |stream| {
            io::copy(stream, &mut file).map(drop).map_err(failed)
        })?;
        file
    };
    let layout = Layout::read(&mut file).map_err(|source| BundleError::Content {
        path: path.to_owned(),
        name: name.to_owned(),
        source,
    })?;
    Ok(Part {
        name: name.to_owned(),
        file,
        layout,
    })
}
