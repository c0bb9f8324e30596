//! The provisioning partition, mounted by systemd: two files that anybody may have written. It must not know what
//! they mean.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use edge_protocol::provisioning::{FILE, FILE_MAX_BYTES, UNFINISHED_FILE, UPDATE_ROOT_FILE};
use nix::fcntl::OFlag;

/// Both files as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) provisioning: Vec<u8>,
    pub(super) update_root: Option<Vec<u8>>,
}

/// What lies on the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The files, not understood yet.
    Files(Files),
    /// No file, and why, in words that follow a colon.
    Nothing(String),
    /// A file that cannot be read, in the same way.
    Unreadable(String),
}

/// Reads what lies in `folder`.
pub(super) fn read(folder: &Path) -> Found {
    let provisioning = match read_file(&folder.join(FILE)) {
        Ok(Some(bytes)) => bytes,
        Ok(None) if folder.join(UNFINISHED_FILE).exists() => {
            return Found::Unreadable(format!("writing {FILE} was cut short; write it again"));
        }
        Ok(None) if is_mounted(folder) => {
            return Found::Nothing(format!("the partition \"provisioning\" has no {FILE}"));
        }
        Ok(None) => {
            return Found::Nothing(
                "the partition \"provisioning\" is missing or damaged".to_owned(),
            );
        }
        Err(error) => return Found::Unreadable(format!("{FILE} cannot be read: {error}")),
    };
    match read_file(&folder.join(UPDATE_ROOT_FILE)) {
        Ok(update_root) => Found::Files(Files {
            provisioning,
            update_root,
        }),
        Err(error) => Found::Unreadable(format!("{UPDATE_ROOT_FILE} cannot be read: {error}")),
    }
}

/// A file's bytes, one more than it may have at most; none where there is no file.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_MAX_BYTES + 1).map_err(io::Error::other)?;
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Whether another file system than that around it lies there.
fn is_mounted(folder: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let around = folder.parent().and_then(device);
    device(folder).is_some_and(|inside| around.is_some_and(|around| inside != around))
}
