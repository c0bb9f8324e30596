//! Who holds the data folder: the agent locks a file in it while it runs, so that no second agent writes there and
//! `doctor` finds the first. The kernel drops the lock with the process, however that ends.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

/// Name of the file. It stays empty: the lock on it counts, and states its holder's process id.
const FILE: &str = "agent.lock";

/// The data folder is this process's as long as this lives. The lock is lost when the process closes any handle of
/// the file, so nothing else may open it.
#[derive(Debug)]
pub(crate) struct Presence {
    _lock: File,
}

/// Why the data folder is not this process's.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// Another agent runs on it.
    #[error("process {process} is an agent that uses the data directory {}; end it, or give this one another --data", folder.display())]
    Taken {
        /// The other agent.
        process: u32,
        /// The folder.
        folder: PathBuf,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock {}", file.display())]
    Lock {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Presence {
    /// Takes the data folder.
    ///
    /// # Errors
    /// [`PresenceError::Taken`] while another process has it.
    pub(crate) fn claim(folder: &Path) -> Result<Self, PresenceError> {
        let path = folder.join(FILE);
        let error = |source| PresenceError::Lock {
            file: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(error)?;
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => Ok(Self { _lock: file }),
            Err(Errno::EACCES | Errno::EAGAIN) => Err(PresenceError::Taken {
                process: holder(&file).ok().flatten().unwrap_or(0),
                folder: folder.to_owned(),
            }),
            Err(refused) => Err(error(refused.into())),
        }
    }
}

/// Process id of the agent that holds the data folder. Takes nothing itself, not for a moment.
///
/// # Errors
/// When the file exists and cannot be asked.
pub(crate) fn find(folder: &Path) -> Result<Option<u32>, PresenceError> {
    let path = folder.join(FILE);
    let error = |source| PresenceError::Lock {
        file: path.clone(),
        source,
    };
    match File::open(&path) {
        Ok(file) => holder(&file).map_err(error),
        Err(missing)
            if matches!(
                missing.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(refused) => Err(error(refused)),
    }
}

fn holder(file: &File) -> io::Result<Option<u32>> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    let is_free = i32::from(lock.l_type) == libc::F_UNLCK;
    Ok(u32::try_from(lock.l_pid).ok().filter(|_| !is_free))
}

/// A write lock from the file's start to wherever it ends.
fn whole_file() -> libc::flock {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "constants of the C library, which fit their field"
    )]
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // That another process sees the lock is tested with real agents, in cross/tests/doctor.rs.
    #[test]
    fn nobody_is_found_where_nobody_is() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(folder.path()).unwrap(), None);
        assert_eq!(find(&folder.path().join("missing")).unwrap(), None);
        drop(Presence::claim(folder.path()).unwrap());
        assert_eq!(find(folder.path()).unwrap(), None);
        // A file in the folder's place is nobody's data folder.
        assert_eq!(find(&folder.path().join(FILE)).unwrap(), None);
    }

    #[test]
    fn a_folder_that_is_none_cannot_be_claimed() {
        let folder = tempfile::tempdir().unwrap();
        let error = Presence::claim(&folder.path().join("missing")).unwrap_err();
        assert!(error.to_string().contains("missing/agent.lock"), "{error}");
    }
}
