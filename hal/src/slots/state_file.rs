//! Small files that keep state over power cuts. Tests put a file here that loses power.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Longest state file that is read: the owner's provisioning, two files of 64 KiB, is the longest that there is.
const MAX_BYTES: u64 = 256 * 1024;

/// A small file, read and written whole.
pub trait StateFile {
    /// Its content; none where there is no file.
    ///
    /// # Errors
    /// What the system says; also for a file of over 256 KiB.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>>;

    /// Writes it and waits until it is on the medium.
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Removes it, and waits until that is on the medium. Nothing happens where there is no file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&mut self) -> io::Result<()>;
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let count = file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(count).is_ok_and(|count| count <= MAX_BYTES) {
        Ok(Some(bytes))
    } else {
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "over 256 KiB long",
        ))
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file that is replaced by a rename: readers find the old or the new content. For file systems with a journal. Only
/// its user can read it.
#[derive(Debug)]
pub struct ReplacedFile(pub PathBuf);

impl StateFile for ReplacedFile {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        read(&self.0)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut new = self.0.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        fs::rename(&new, &self.0)?;
        sync_folder(&self.0)
    }

    fn remove(&mut self) -> io::Result<()> {
        remove(&self.0)
    }
}

/// A file whose content is overwritten where it lies, without truncating it. For FAT, where a rename is not atomic:
/// content that keeps its size changes one sector and no structure of the file system. It may be torn all the same.
#[derive(Debug)]
pub struct OverwrittenFile(pub PathBuf);

impl StateFile for OverwrittenFile {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        read(&self.0)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let new = !self.0.exists();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.0)?;
        file.write_all_at(bytes, 0)?;
        let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
        }
        file.sync_all()?;
        if new {
            sync_folder(&self.0)?;
        }
        Ok(())
    }

    fn remove(&mut self) -> io::Result<()> {
        remove(&self.0)
    }
}
