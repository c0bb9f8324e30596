//! File systems in files: the read-only root (erofs, not compressed, so that deltas stay small) and FAT, which boot
//! loaders read.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use sha2::{Digest, Sha256};

use super::recipe::Recipe;
use super::{Epoch, ImageError, io_error};
use crate::shell;

/// Writes the tar's content as an erofs into `path`.
///
/// # Errors
/// When it is larger than its partition, or a tool fails.
pub fn read_only(
    tar: &Path,
    path: &Path,
    recipe: &Recipe,
    epoch: Epoch,
    scratch: &Path,
) -> Result<(), ImageError> {
    let tree = scratch.join("root");
    fs::create_dir(&tree).map_err(io_error("create", &tree))?;
    let _old = fs::remove_file(path);
    let identifier = identifier(&recipe.board, "root");
    // Owners are only kept by root, or by somebody who plays root.
    let script = "tar -xf \"$1\" -C \"$2\" --numeric-owner --same-permissions && \
                  mkfs.erofs --quiet -x-1 -T \"$3\" -U \"$4\" -E noinline_data \"$5\" \"$2\"";
    let mut command = if nix::unistd::geteuid().is_root() {
        Command::new("sh")
    } else {
        let mut fakeroot = Command::new("fakeroot");
        fakeroot.arg("sh");
        fakeroot
    };
    command.args(["-c", script, "sh"]);
    command.arg(tar).arg(&tree).arg(epoch.0.to_string());
    command.arg(identifier).arg(path);
    shell::output(&mut command)?;
    fs::remove_dir_all(&tree).map_err(io_error("remove", &tree))?;
    let needed = fs::metadata(path).map_err(io_error("read", path))?.len();
    if needed > recipe.root_bytes {
        return Err(ImageError::TooLarge {
            what: format!("the root of {}", recipe.board),
            partition: "root".to_owned(),
            needed,
            size: recipe.root_bytes,
        });
    }
    Ok(())
}

/// A file in a FAT.
#[derive(Debug, Clone)]
pub struct FatFile {
    /// Its name, without folder.
    pub name: String,
    /// Its content.
    pub content: Content,
}

/// Where bytes come from.
#[derive(Debug, Clone)]
pub enum Content {
    /// A file of this machine.
    File(PathBuf),
    /// These.
    Bytes(Vec<u8>),
}

/// Writes a FAT of `size` bytes with `files` into `path`. Its sectors are those of the disk, `sector_bytes`: Linux mounts
/// none with smaller ones.
///
/// # Errors
/// When the files do not fit.
pub fn fat(
    path: &Path,
    label: &str,
    size: u64,
    sector_bytes: u32,
    files: &[FatFile],
) -> Result<(), ImageError> {
    let failed = || io_error("make a FAT file system in", path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .and_then(|file| file.set_len(size).map(|()| file))
        .map_err(failed())?;
    let mut name = [b' '; 11];
    for (place, byte) in name.iter_mut().zip(label.bytes()) {
        *place = byte.to_ascii_uppercase();
    }
    let number = Sha256::digest(label.as_bytes());
    let number = number
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let mut options = FormatVolumeOptions::new()
        .bytes_per_sector(u16::try_from(sector_bytes).unwrap_or(u16::MAX))
        .volume_id(number)
        .volume_label(name);
    if size >= 64 << 20 {
        options = options.fat_type(FatType::Fat32);
    }
    fatfs::format_volume(&file, options).map_err(failed())?;
    let options = FsOptions::new().time_provider(&FIRST_DAY);
    let volume = FileSystem::new(&file, options).map_err(failed())?;
    for item in files {
        let mut target = volume
            .root_dir()
            .create_file(&item.name)
            .map_err(failed())?;
        match &item.content {
            Content::Bytes(bytes) => target.write_all(bytes).map_err(failed())?,
            Content::File(from) => {
                let source = File::open(from).map_err(io_error("read", from))?;
                let mut source = BufReader::with_capacity(1 << 20, source);
                std::io::copy(&mut source, &mut target).map_err(failed())?;
            }
        }
        target.flush().map_err(failed())?;
    }
    volume.unmount().map_err(failed())?;
    Ok(())
}

/// FAT's first day, for every file: nobody reads the times there, and they must not differ between two builds.
#[derive(Debug)]
struct FirstDay;

static FIRST_DAY: FirstDay = FirstDay;

impl fatfs::TimeProvider for FirstDay {
    fn get_current_date(&self) -> fatfs::Date {
        fatfs::Date {
            year: 1980,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> fatfs::DateTime {
        fatfs::DateTime {
            date: self.get_current_date(),
            time: fatfs::Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

/// A UUID that belongs to a name, of version 8 (RFC 9562, section 5.8): the same in every build.
#[must_use]
pub fn identifier(board: &str, part: &str) -> String {
    let digest = Sha256::digest(format!("aethir-edge/{board}/{part}").as_bytes());
    let mut bytes: [u8; 16] = digest.first_chunk().copied().unwrap_or_default();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_of_version_8_and_stay() {
        let one = identifier("qemu-virt", "root_a");
        assert_eq!(one, identifier("qemu-virt", "root_a"));
        assert_ne!(one, identifier("qemu-virt", "root_b"));
        assert_eq!(one.as_bytes()[14], b'8');
    }
}
