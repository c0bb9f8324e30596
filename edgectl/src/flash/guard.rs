//! What must not be written to: disks that are in use. Decides by [`Blocks`] alone; the kernel's own refusal, when the
//! device is opened, comes on top.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::sys::stat::{major, minor};

use super::blocks::{Blocks, BlocksError, DeviceNumber, Use};

/// Why a device is not written to.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The system runs from it.
    #[error(
        "{target} is the disk that this system runs from ({what}); it is not written to, whatever is asked"
    )]
    SystemDisk {
        /// What was asked for.
        target: String,
        /// Which part of the system.
        what: String,
    },
    /// A file system of it is mounted.
    #[error(
        "{target} is in use: {device} is mounted on {point}; unmount it (`umount {point:?}`) and repeat the command"
    )]
    Mounted {
        /// What was asked for.
        target: String,
        /// The mounted device.
        device: String,
        /// Where.
        point: String,
    },
    /// Another device lies on it.
    #[error("{target} is in use: {device} is part of {by}; take {by} down and repeat the command")]
    Held {
        /// What was asked for.
        target: String,
        /// The part in use.
        device: String,
        /// Who uses it.
        by: String,
    },
    /// A file that plays a disk now.
    #[error("{} is the file behind /dev/{device}; detach it (`losetup -d /dev/{device}`), or write to that", file.display())]
    BackingFile {
        /// The file.
        file: PathBuf,
        /// The loop device.
        device: String,
    },
    /// It cannot be written.
    #[error("{target} is write-protected; look for a switch on the card or its adapter")]
    ReadOnly {
        /// What was asked for.
        target: String,
    },
    /// It is there, and has no size.
    #[error("there is no medium in {target}")]
    NoMedium {
        /// What was asked for.
        target: String,
    },
    /// Nobody knows it.
    #[error(
        "{target} is none of this system's block devices (/sys/block does not have it), so nothing tells whether it is in use"
    )]
    Unknown {
        /// What was asked for.
        target: String,
    },
    /// The system does not tell.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// The target.
    #[error("cannot examine {}", path.display())]
    Examine {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Whether `target`, a file or a block device that may be absent, can be written without harm to this system.
///
/// # Errors
/// [`Refusal`].
pub fn check(blocks: &Blocks, target: &Path) -> Result<(), Refusal> {
    let examine = |source| Refusal::Examine {
        path: target.to_owned(),
        source,
    };
    let metadata = match fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(examine)?,
    };
    if metadata.file_type().is_block_device() {
        return check_device(blocks, number_of(&metadata), &target.display().to_string());
    }
    check_file(blocks, &fs::canonicalize(target).map_err(examine)?)
}

/// The number of a device node.
#[must_use]
pub fn number_of(node: &fs::Metadata) -> DeviceNumber {
    (major(node.rdev()), minor(node.rdev()))
}

/// Whether a file is none that plays a disk.
///
/// # Errors
/// [`Refusal::BackingFile`].
pub fn check_file(blocks: &Blocks, file: &Path) -> Result<(), Refusal> {
    let disk = blocks
        .disks
        .iter()
        .find(|disk| disk.backing_file.as_deref() == Some(file));
    match disk {
        Some(disk) => Err(Refusal::BackingFile {
            file: file.to_owned(),
            device: disk.node.name.clone(),
        }),
        None => Ok(()),
    }
}

/// Whether the block device with this number is free; `target` names it in messages.
///
/// # Errors
/// [`Refusal`].
pub fn check_device(blocks: &Blocks, number: DeviceNumber, target: &str) -> Result<(), Refusal> {
    let target = || target.to_owned();
    let (disk, node) = blocks
        .find(number)
        .ok_or_else(|| Refusal::Unknown { target: target() })?;
    let of_disk = blocks.uses_of_disk(disk);
    if let Some(system) = of_disk.iter().find(|used| used.is_of_system()) {
        let what = match system {
            Use::Mounted { device, point } => format!("{point} is on {device}"),
            Use::Swap { device } | Use::Held { device, .. } => format!("it swaps to {device}"),
        };
        return Err(Refusal::SystemDisk {
            target: target(),
            what,
        });
    }
    // A partition stands for itself, a disk for all of its partitions.
    let is_whole = node.number == disk.node.number;
    let uses = if is_whole { of_disk } else { blocks.uses(node) };
    match uses.into_iter().next() {
        Some(Use::Mounted { device, point }) => {
            return Err(Refusal::Mounted {
                target: target(),
                device,
                point,
            });
        }
        Some(Use::Held { device, by }) => {
            return Err(Refusal::Held {
                target: target(),
                device,
                by,
            });
        }
        Some(Use::Swap { .. }) | None => {}
    }
    if disk.read_only {
        return Err(Refusal::ReadOnly { target: target() });
    }
    if node.size_bytes == 0 {
        return Err(Refusal::NoMedium { target: target() });
    }
    Ok(())
}
