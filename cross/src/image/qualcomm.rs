//! What a board with Qualcomm's ABL is flashed with: `boot.img`, sparse roots, the partition table of the disk that we
//! lay out, and the XML by which EDL tools write them. None of it has been tried on hardware.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use edge_hal::Board;
use edge_hal::board::PartitionContent;

use super::disk::SlotFiles;
use super::filesystem;
use super::kernel::Kernel;
use super::recipe::Recipe;
use super::table::{self, Placed};
use super::{Epoch, ImageError, io_error};
use crate::shell;

/// The unit that holds the root and the data, which is laid out here. The others keep Qualcomm's tables.
const OUR_LUN: u8 = 0;

/// Sectors of the primary table: the protective MBR, the header, and 128 entries of 128 bytes.
const PRIMARY_SECTORS: u64 = 6;
/// Sectors of the backup table: the entries, and the header.
const BACKUP_SECTORS: u64 = 5;

/// Kernel, device tree and initramfs.
const BOOT: &str = "boot.img";
/// The root, as an Android sparse image.
const ROOT: &str = "root.img";

/// Writes the files into `folder`; returns them.
///
/// # Errors
/// When something does not fit, or a tool fails.
pub fn write(
    board: &Board,
    recipe: &Recipe,
    kernel: &Kernel,
    slot: &SlotFiles<'_>,
    folder: &Path,
    epoch: Epoch,
) -> Result<Vec<PathBuf>, ImageError> {
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let mut files = vec![];
    let mut file = |name: &str| {
        let path = folder.join(name);
        files.push(path.clone());
        path
    };
    boot_image(recipe, kernel, slot, &file(BOOT), epoch, folder)?;
    let root = file(ROOT);
    shell::output(Command::new("img2simg").arg(slot.root).arg(&root))?;
    let provisioning = file("provisioning.img");
    let config = super::recipe::partition(board, PartitionContent::Provisioning);
    let size = config.map_or(16 << 20, |partition| partition.size_bytes);
    let sector_bytes = board.storage.sector_bytes;
    filesystem::fat(&provisioning, "EDGE-SETUP", size, sector_bytes, &[])?;

    let (placed, bytes) = table::lay_out(board, OUR_LUN);
    let disk = folder.join("table");
    table::write(board, OUR_LUN, &placed, bytes, &disk)?;
    let sector = u64::from(sector_bytes);
    let cuts = [
        ("gpt_main0.bin", 0, PRIMARY_SECTORS),
        (
            "gpt_backup0.bin",
            bytes / sector - BACKUP_SECTORS,
            BACKUP_SECTORS,
        ),
    ];
    for (name, first, count) in cuts {
        cut(&disk, first * sector, count * sector, &file(name))?;
    }
    fs::remove_file(&disk).map_err(io_error("remove", &disk))?;
    for (name, text) in [
        ("rawprogram0.xml", rawprogram(board, &placed)),
        ("patch0.xml", patch(board, &placed)),
    ] {
        let path = file(name);
        fs::write(&path, text).map_err(io_error("write", &path))?;
    }
    let manifest = folder.join("flash.toml");
    let text = bundle(board, &folder.join(BOOT), &folder.join(ROOT))?;
    fs::write(&manifest, text).map_err(io_error("write", &manifest))?;
    files.push(manifest);
    Ok(files)
}

/// The manifest by which `edgectl flash` takes the folder: both slots get the same system, and A starts. Provisioning is
/// left out, since its owner changes it: it is flashed by itself.
fn bundle(board: &Board, boot: &Path, root: &Path) -> Result<String, ImageError> {
    let mut text = format!(
        "# For `edgectl flash --image FOLDER --to fastboot`.\n\
         format = 1\nboard = \"{}\"\nactive_slot = \"a\"\n",
        board.name
    );
    for (content, file) in [
        (PartitionContent::Kernel, boot),
        (PartitionContent::Root, root),
    ] {
        let name = super::recipe::partition(board, content).map(|partition| &partition.name);
        let name = name.ok_or_else(|| ImageError::NotDescribed {
            board: board.name.clone(),
            missing: "partition for kernel or root",
        })?;
        let sum = sha256(file)?;
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        for slot in ["a", "b"] {
            text += &format!(
                "\n[[partition]]\nname = \"{name}_{slot}\"\nfile = \"{file}\"\nsha256 = \"{sum}\"\n"
            );
        }
    }
    Ok(text)
}

fn sha256(path: &Path) -> Result<String, ImageError> {
    let sum = shell::output(Command::new("sha256sum").arg("--").arg(path))?;
    Ok(sum.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Kernel and device tree as ABL takes them (compressed, the tree behind the kernel), and the initramfs.
fn boot_image(
    recipe: &Recipe,
    kernel: &Kernel,
    slot: &SlotFiles<'_>,
    path: &Path,
    epoch: Epoch,
    folder: &Path,
) -> Result<(), ImageError> {
    let tree = recipe
        .device_tree
        .as_ref()
        .ok_or_else(|| ImageError::NotDescribed {
            board: recipe.board.clone(),
            missing: "boot.device_tree",
        })?;
    let tree = kernel.device_trees.join(tree);
    let packed = folder.join("kernel.gz");
    let script = "gzip --no-name -9 -c \"$1\" > \"$3\" && cat \"$2\" >> \"$3\"";
    let mut pack = Command::new("sh");
    pack.args(["-c", script, "sh"]);
    shell::output(pack.arg(slot.kernel).arg(&tree).arg(&packed))?;
    let mut mkbootimg = Command::new("mkbootimg");
    mkbootimg
        .env("SOURCE_DATE_EPOCH", epoch.0.to_string())
        .arg("--kernel")
        .arg(&packed)
        .arg("--ramdisk")
        .arg(slot.initramfs)
        .args(["--pagesize", "4096", "--base", "0x80000000", "--cmdline"])
        .arg(&recipe.kernel_arguments)
        .arg("--output")
        .arg(path);
    shell::output(&mut mkbootimg)?;
    fs::remove_file(&packed).map_err(io_error("remove", &packed))
}

fn cut(from: &Path, start: u64, length: u64, to: &Path) -> Result<(), ImageError> {
    let read = || {
        let mut source = File::open(from)?;
        source.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        source.take(length).read_to_end(&mut bytes)?;
        fs::write(to, bytes)
    };
    read().map_err(io_error("write", to))
}

/// What is written where: the form that Qualcomm's tools and linux-msm/qdl read.
fn rawprogram(board: &Board, placed: &[Placed<'_>]) -> String {
    let sector = u64::from(board.storage.sector_bytes);
    let mut xml = String::from("<?xml version=\"1.0\" ?>\n<data>\n");
    let mut line = |label: &str, file: &str, start: &str, sectors: u64, sparse: bool| {
        // Writing to a string cannot fail.
        let _written = writeln!(
            xml,
            "  <program SECTOR_SIZE_IN_BYTES=\"{sector}\" file_sector_offset=\"0\" filename=\"{file}\" \
             label=\"{label}\" num_partition_sectors=\"{sectors}\" physical_partition_number=\"{OUR_LUN}\" \
             sparse=\"{sparse}\" start_sector=\"{start}\"/>"
        );
    };
    for partition in placed {
        let (file, sparse) = match partition.config.content {
            PartitionContent::Root => (ROOT, true),
            PartitionContent::Provisioning => ("provisioning.img", false),
            _ => continue,
        };
        let start = (partition.start / sector).to_string();
        line(
            &partition.name,
            file,
            &start,
            partition.config.size_bytes / sector,
            sparse,
        );
    }
    line("PrimaryGPT", "gpt_main0.bin", "0", PRIMARY_SECTORS, false);
    let backup = format!("NUM_DISK_SECTORS-{BACKUP_SECTORS}.");
    line(
        "BackupGPT",
        "gpt_backup0.bin",
        &backup,
        BACKUP_SECTORS,
        false,
    );
    xml.push_str("</data>\n");
    xml
}

/// What the tool corrects once it knows the disk's size: the last partition grows, both headers say where the other one
/// is, and their checksums follow (UEFI 2.10, tables 5.5 and 5.6).
fn patch(board: &Board, placed: &[Placed<'_>]) -> String {
    let sector = u64::from(board.storage.sector_bytes);
    let mut xml = String::from("<?xml version=\"1.0\" ?>\n<patches>\n");
    let mut line = |what: &str, start: &str, offset: u64, bytes: u64, value: &str| {
        // Writing to a string cannot fail.
        let _written = writeln!(
            xml,
            "  <patch SECTOR_SIZE_IN_BYTES=\"{sector}\" byte_offset=\"{offset}\" filename=\"DISK\" \
             physical_partition_number=\"{OUR_LUN}\" size_in_bytes=\"{bytes}\" start_sector=\"{start}\" \
             value=\"{value}\" what=\"{what}\"/>"
        );
    };
    let end = |back: u64| format!("NUM_DISK_SECTORS-{back}.");
    let last = placed.last().filter(|partition| partition.config.grow);
    if let Some(partition) = last {
        let entry = (u64::from(partition.number) - 1) * 128;
        let what = format!("end of {}", partition.name);
        let usable = end(BACKUP_SECTORS + 1);
        line(
            &what,
            &(2 + entry / sector).to_string(),
            entry % sector + 40,
            8,
            &usable,
        );
        // The backup's entries begin BACKUP_SECTORS before the end.
        let start = end(BACKUP_SECTORS - entry / sector);
        line(&what, &start, entry % sector + 40, 8, &usable);
    }
    let (primary, backup) = ("1".to_owned(), end(1));
    for header in [&primary, &backup] {
        line(
            "last usable sector",
            header,
            48,
            8,
            &end(BACKUP_SECTORS + 1),
        );
    }
    line("place of the backup header", &primary, 32, 8, &end(1));
    line("place of the backup header itself", &backup, 24, 8, &end(1));
    line("place of the primary header", &backup, 32, 8, "1");
    line(
        "place of the backup entries",
        &backup,
        72,
        8,
        &end(BACKUP_SECTORS),
    );
    let entries = 128 * 128;
    line(
        "sum of the entries",
        &primary,
        88,
        4,
        &format!("CRC32(2,{entries})"),
    );
    let moved = end(BACKUP_SECTORS);
    line(
        "sum of the entries",
        &backup,
        88,
        4,
        &format!("CRC32({moved},{entries})"),
    );
    for (header, place) in [(&primary, "1".to_owned()), (&backup, end(1))] {
        line("no sum of the header", header, 16, 4, "0");
        line(
            "sum of the header",
            header,
            16,
            4,
            &format!("CRC32({place},92)"),
        );
    }
    xml.push_str("</patches>\n");
    xml
}
