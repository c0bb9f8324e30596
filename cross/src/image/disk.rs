//! A whole disk that U-Boot starts: the table, U-Boot's script, and the same system in both slots.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use edge_hal::Board;
use edge_hal::board::{PartitionContent, SlotsConfig};
use edge_hal::slots::uboot::{TEXT_BOOT_SCRIPT, text::TextState};
use edge_hal::slots::{Slot, SlotState, SlotTable};

use super::filesystem::{self, Content, FatFile};
use super::recipe::Recipe;
use super::table::{self, Placed};
use super::{Epoch, ImageError, io_error};
use crate::shell;

const HEAD: &str = include_str!("../../image/boot_head.cmd");
const TAIL: &str = include_str!("../../image/boot_tail.cmd");

/// Number of the first record; its top bit is always set.
const FIRST_COUNT: u32 = 0x8000_0000;

/// What a slot holds.
#[derive(Debug, Clone, Copy)]
pub struct SlotFiles<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// Its first program.
    pub initramfs: &'a Path,
    /// The root file system.
    pub root: &'a Path,
}

/// Writes the disk of `board` into `path`.
///
/// # Errors
/// When something does not fit its partition, or a tool fails.
pub fn write(
    board: &Board,
    recipe: &Recipe,
    slot: &SlotFiles<'_>,
    path: &Path,
    epoch: Epoch,
    scratch: &Path,
) -> Result<(), ImageError> {
    let (placed, bytes) = table::lay_out(board, 0);
    table::write(board, 0, &placed, bytes, path)?;
    let sector = board.storage.sector_bytes;
    for partition in &placed {
        let part = scratch.join("partition");
        let size = partition.config.size_bytes;
        match partition.config.content {
            PartitionContent::Bootloader => {
                let script = script(board, scratch, epoch)?;
                let mut files = vec![FatFile {
                    name: "boot.scr".to_owned(),
                    content: Content::File(script),
                }];
                // Both copies, so that the first change writes into a place that is there.
                for (copy, count) in [(0, FIRST_COUNT), (1, FIRST_COUNT + 1)] {
                    files.push(FatFile {
                        name: format!("{}.{copy}", slots_file(board)),
                        content: Content::Bytes(fresh(count).encode()),
                    });
                }
                filesystem::fat(&part, "BOOT", size, sector, &files)?;
                put(&part, partition, path)?;
            }
            PartitionContent::Kernel => {
                let settings = format!("slot_arguments={}\n", recipe.kernel_arguments);
                let files = [
                    FatFile {
                        name: "slot.env".to_owned(),
                        content: Content::Bytes(settings.into_bytes()),
                    },
                    FatFile {
                        name: "vmlinuz".to_owned(),
                        content: Content::File(slot.kernel.to_path_buf()),
                    },
                    FatFile {
                        name: "initrd.img".to_owned(),
                        content: Content::File(slot.initramfs.to_path_buf()),
                    },
                ];
                filesystem::fat(&part, "KERNEL", size, sector, &files)?;
                put(&part, partition, path)?;
            }
            PartitionContent::Root => put(slot.root, partition, path)?,
            PartitionContent::Provisioning => {
                filesystem::fat(&part, "EDGE-SETUP", size, sector, &[])?;
                put(&part, partition, path)?;
            }
            // Empty: the box makes its file system at the first start, as large as its disk allows.
            PartitionContent::Data => {}
        }
    }
    Ok(())
}

/// The record of the slots as U-Boot sees it, from the top of its file system.
fn slots_file(board: &Board) -> &str {
    let file = match &board.slots {
        Some(SlotsConfig::UbootText { file, .. }) => file.as_str(),
        _ => "/boot/slots.env",
    };
    file.rsplit('/').next().unwrap_or(file)
}

/// Both slots are good: they hold the same system, whose bytes are verified as it is flashed, and a box that nobody has
/// provisioned yet could not confirm them.
fn fresh(count: u32) -> TextState {
    let good = SlotState {
        successful: true,
        bootable: true,
        tries_left: 0,
    };
    TextState {
        table: SlotTable {
            first: Some(Slot::A),
            a: good,
            b: good,
        },
        count,
    }
}

/// U-Boot's script, in the form that it runs.
fn script(board: &Board, scratch: &Path, epoch: Epoch) -> Result<std::path::PathBuf, ImageError> {
    let head = HEAD.replace("SLOTS_FILE", slots_file(board));
    let text = [&head, TEXT_BOOT_SCRIPT, TAIL].concat();
    let source = scratch.join("boot.cmd");
    fs::write(&source, text).map_err(io_error("write", &source))?;
    let script = scratch.join("boot.scr");
    let mut mkimage = Command::new("mkimage");
    mkimage.env("SOURCE_DATE_EPOCH", epoch.0.to_string()).args([
        "-A", "arm64", "-T", "script", "-C", "none", "-n", "edge", "-d",
    ]);
    shell::output(mkimage.arg(&source).arg(&script))?;
    Ok(script)
}

/// Copies a file into a partition; zeros stay holes.
fn put(from: &Path, partition: &Placed<'_>, disk: &Path) -> Result<(), ImageError> {
    let needed = fs::metadata(from).map_err(io_error("read", from))?.len();
    let size = partition.config.size_bytes;
    if needed > size {
        return Err(ImageError::TooLarge {
            what: from.display().to_string(),
            partition: partition.name.clone(),
            needed,
            size,
        });
    }
    let copy = || -> io::Result<()> {
        let mut source = File::open(from)?;
        let mut disk = OpenOptions::new().write(true).open(disk)?;
        let mut block = vec![0; 1 << 20];
        let mut place = partition.start;
        loop {
            let count = source.read(&mut block)?;
            let Some(read) = block.get(..count).filter(|read| !read.is_empty()) else {
                return Ok(());
            };
            if read.iter().any(|byte| *byte != 0) {
                disk.seek(SeekFrom::Start(place))?;
                disk.write_all(read)?;
            }
            place += count as u64;
        }
    };
    copy().map_err(io_error("write", disk))
}
