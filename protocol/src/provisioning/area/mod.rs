//! The provisioning partition: a FAT file system with the owner's files at its top, which any computer edits. Written so
//! that a power cut at any moment leaves the old file, the new one, or none, but never a mixture.
//!
//! FAT has no journal, and a rename over a file is not atomic in it. So the changes are made in memory (`staged`) and
//! written in steps, each of which is on the medium before the next begins:
//!
//! 1. what an earlier cut left is removed;
//! 2. the new files are written under other names;
//! 3. names are exchanged: this changes entries of the folder alone, which lie in one sector as long as it holds few
//!    files. Where they do not, the old files are removed first, and the new ones' entries come last;
//! 4. what has another name is removed.
//!
//! Nothing is opened here: the caller hands in the partition.

mod staged;

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    panic::{self, AssertUnwindSafe},
};

use fatfs::{
    Dir, FatType, FileSystem, FormatVolumeOptions, FsOptions, FsStatusFlags, format_volume,
};

use self::staged::{Order, Staged};
use super::{FILE, FILE_MAX_BYTES, UNFINISHED_FILE, UPDATE_ROOT_FILE};

/// A file under its own name, its name while it is written, and that of its predecessor until it is removed.
struct Name {
    file: &'static str,
    new: &'static str,
    old: &'static str,
}

const NAMES: [Name; 2] = [
    Name {
        file: FILE,
        new: UNFINISHED_FILE,
        old: "provisioning.old",
    },
    Name {
        file: UPDATE_ROOT_FILE,
        new: "update-root.new",
        old: "update-root.old",
    },
];

/// The label of the partition's file system, as PCs show it.
pub const LABEL: [u8; 11] = *b"EDGE-SETUP ";

/// The owner's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `provisioning.toml`.
    pub provisioning: Vec<u8>,
    /// `update-root.json`; none where updates have no trusted root of the owner's.
    pub update_root: Option<Vec<u8>>,
}

/// What lies on a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// `FAT12`, `FAT16` or `FAT32`.
    pub file_system: &'static str,
    /// `provisioning.toml`, one byte more than it may have at most; none where there is no such file.
    pub provisioning: Option<Vec<u8>>,
    /// `update-root.json`, in the same way.
    pub update_root: Option<Vec<u8>>,
    /// Whether writing was cut short once; writing again tidies up.
    pub unfinished: bool,
}

/// Why a partition cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    /// Not a FAT file system, or a damaged one.
    #[error(
        "the provisioning partition holds no FAT file system; writing a provisioning makes one"
    )]
    NoFat,
    /// Its structures contradict each other.
    #[error(
        "the FAT file system of the provisioning partition is damaged; repair it with fsck.fat, or fill its first \
         sector with zeros, and write the provisioning again"
    )]
    Damaged,
    /// The file system does not let something be done.
    #[error(
        "cannot {operation} the provisioning partition (where it is damaged, fsck.fat mends it)"
    )]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> AreaError {
    move |source| AreaError::Io { operation, source }
}

/// Reads what lies on the partition.
///
/// # Errors
/// [`AreaError`].
pub fn read<D: Read + Write + Seek>(device: D, sector_bytes: u32) -> Result<Content, AreaError> {
    let mut staged = Staged::new(device, sector_bytes).map_err(failed("read"))?;
    if !is_fat(&mut staged)? {
        return Err(AreaError::NoFat);
    }
    on_fat(&mut staged, "read", |fs| {
        let top = fs.root_dir();
        let [provisioning, update_root] = NAMES.map(|name| read_file(&top, name.file));
        let mut unfinished = false;
        for name in &NAMES {
            unfinished |= exists(&top, name.new)? || exists(&top, name.old)?;
        }
        Ok(Content {
            file_system: match fs.fat_type() {
                FatType::Fat12 => "FAT12",
                FatType::Fat16 => "FAT16",
                FatType::Fat32 => "FAT32",
            },
            provisioning: provisioning?,
            update_root: update_root?,
            unfinished,
        })
    })
}

/// Writes `files` in place of those that are there; other files stay. Makes a file system where there is none, and
/// says whether it did. `flush` of the device must wait until all is on the medium. `sector_bytes` is what the medium
/// writes whole, 512 or 4,096.
///
/// # Errors
/// [`AreaError`]. The partition then holds the old files, the new ones, or a folder without `provisioning.toml`.
pub fn write<D: Read + Write + Seek>(
    device: D,
    sector_bytes: u32,
    files: &Files,
) -> Result<bool, AreaError> {
    let mut staged = Staged::new(device, sector_bytes).map_err(failed("read"))?;
    let is_new = !is_fat(&mut staged)?;
    let contents = [Some(&files.provisioning), files.update_root.as_ref()];
    if is_new {
        // Nothing counts until the first sector does, which comes last.
        staged.erase_first().map_err(failed("write"))?;
        make(&mut staged, sector_bytes).map_err(failed("make a file system on"))?;
        on_top(&mut staged, |top| {
            present(contents, |name, content| create(top, name.file, content))
        })?;
        staged.commit(Order::Descending).map_err(failed("write"))?;
        return Ok(true);
    }
    // An entry goes before the space that it names, and comes after it: no cut leaves an entry to space that is free.
    let leftovers = |top: &Dir<'_, &mut Staged<D>>| {
        NAMES.iter().try_for_each(|name| {
            remove(top, name.new)?;
            remove(top, name.old)
        })
    };
    on_top(&mut staged, leftovers)?;
    staged.commit(Order::Descending).map_err(failed("write"))?;
    on_top(&mut staged, |top| {
        present(contents, |name, content| create(top, name.new, content))
    })?;
    staged.commit(Order::Ascending).map_err(failed("write"))?;
    on_top(&mut staged, |top| {
        for (name, content) in NAMES.iter().zip(contents) {
            if exists(top, name.file)? {
                top.rename(name.file, top, name.old)?;
            }
            if content.is_some() {
                top.rename(name.new, top, name.file)?;
            }
        }
        Ok(())
    })?;
    if staged.changes().map_err(failed("read"))?.len() > 1 {
        // Not one sector: a cut could leave two names for the same space.
        staged.forget();
        replace(&mut staged, contents)?;
    }
    staged.commit(Order::Ascending).map_err(failed("write"))?;
    on_top(&mut staged, leftovers)?;
    staged.commit(Order::Descending).map_err(failed("write"))?;
    Ok(false)
}

/// Removes the old files, then makes the new ones: in between there are none. The folder's entries stay in memory.
fn replace<D: Read + Write + Seek>(
    staged: &mut Staged<D>,
    contents: [Option<&Vec<u8>>; 2],
) -> Result<(), AreaError> {
    on_top(staged, |top| {
        NAMES.iter().try_for_each(|name| remove(top, name.file))
    })?;
    staged.commit(Order::Descending).map_err(failed("write"))?;
    // A file without content changes the folder alone, which shows where it lies.
    on_top(staged, |top| {
        present(contents, |name, _| create(top, name.file, &[]))
    })?;
    let folder = staged.changes().map_err(failed("read"))?;
    on_top(staged, |top| {
        present(contents, |name, content| create(top, name.file, content))
    })?;
    staged.commit_but(&folder).map_err(failed("write"))
}

/// Whether there is a FAT file system.
fn is_fat<D: Read + Write + Seek>(staged: &mut Staged<D>) -> Result<bool, AreaError> {
    // The library reads past a boot sector whose signature is wrong; so does no computer.
    let mut signature = [0; 2];
    staged.allow();
    staged
        .seek(SeekFrom::Start(510))
        .and_then(|_| staged.read_exact(&mut signature))
        .map_err(failed("read"))?;
    if signature != [0x55, 0xaa] {
        return Ok(false);
    }
    match on_fat(staged, "read", |_| Ok(())) {
        Ok(()) => Ok(true),
        Err(AreaError::Io { source, .. }) if source.raw_os_error().is_some() => {
            Err(AreaError::Io {
                operation: "read",
                source,
            })
        }
        Err(_) => Ok(false),
    }
}

/// Does something on the file system in memory.
fn on_fat<D: Read + Write + Seek, T>(
    staged: &mut Staged<D>,
    operation: &'static str,
    work: impl FnOnce(&FileSystem<&mut Staged<D>>) -> io::Result<T>,
) -> Result<T, AreaError> {
    staged.rewind().map_err(failed(operation))?;
    staged.allow();
    // The library computes with what it reads and may panic over contradictions. Nothing of it is kept then.
    let done = panic::catch_unwind(AssertUnwindSafe(|| {
        let fs = FileSystem::new(&mut *staged, FsOptions::new())?;
        let done = work(&fs)?;
        let _flags: FsStatusFlags = fs.read_status_flags()?;
        fs.unmount()?;
        Ok(done)
    }));
    match done {
        Ok(done) => done.map_err(failed(operation)),
        Err(_) => {
            staged.forget();
            Err(AreaError::Damaged)
        }
    }
}

/// Makes a FAT16 file system; FAT12 where the partition has too few sectors for it.
fn make<D: Read + Write + Seek>(staged: &mut Staged<D>, sector_bytes: u32) -> io::Result<()> {
    staged.rewind()?;
    staged.allow();
    let sector = u16::try_from(sector_bytes).map_err(io::Error::other)?;
    let options = FormatVolumeOptions::new()
        .bytes_per_sector(sector)
        .volume_label(LABEL);
    format_volume(staged, options)
}

fn on_top<D: Read + Write + Seek>(
    staged: &mut Staged<D>,
    work: impl FnOnce(&Dir<'_, &mut Staged<D>>) -> io::Result<()>,
) -> Result<(), AreaError> {
    on_fat(staged, "write", |fs| work(&fs.root_dir()))
}

/// Does something with each file that there is to write.
fn present(
    contents: [Option<&Vec<u8>>; 2],
    work: impl Fn(&Name, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    NAMES
        .iter()
        .zip(contents)
        .filter_map(|(name, content)| Some((name, content?)))
        .try_for_each(|(name, content)| work(name, content))
}

fn create<D: Read + Write + Seek>(
    top: &Dir<'_, &mut Staged<D>>,
    name: &str,
    content: &[u8],
) -> io::Result<()> {
    let mut file = top.create_file(name)?;
    file.write_all(content)?;
    file.flush()
}

fn exists<D: Read + Write + Seek>(top: &Dir<'_, &mut Staged<D>>, name: &str) -> io::Result<bool> {
    match top.open_file(name) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove<D: Read + Write + Seek>(top: &Dir<'_, &mut Staged<D>>, name: &str) -> io::Result<()> {
    if exists(top, name)? {
        top.remove(name)?;
    }
    Ok(())
}

fn read_file<D: Read + Write + Seek>(
    top: &Dir<'_, &mut Staged<D>>,
    name: &str,
) -> io::Result<Option<Vec<u8>>> {
    let file = match top.open_file(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_MAX_BYTES + 1).map_err(io::Error::other)?;
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
