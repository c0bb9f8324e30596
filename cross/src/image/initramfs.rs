//! The first program of a slot: BusyBox, the drivers of the disk, and `cross/image/init`, in a compressed cpio.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use cpio::{NewcBuilder, newc};

use super::kernel::Kernel;
use super::recipe::Recipe;
use super::{ImageError, io_error};
use crate::shell;

const INIT: &str = include_str!("../../image/init");

/// What `init` calls.
const APPLETS: &[&str] = &[
    "sh",
    "cat",
    "echo",
    "grep",
    "insmod",
    "mount",
    "sed",
    "sleep",
    "switch_root",
    "umount",
];

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// Writes the initramfs of `recipe`.
///
/// # Errors
/// When a driver is missing, or a file cannot be written.
pub fn write(
    kernel: &Kernel,
    recipe: &Recipe,
    path: &Path,
    scratch: &Path,
) -> Result<(), ImageError> {
    let drivers = scratch.join("boot-drivers");
    let drivers = kernel.copy_drivers(&drivers)?;
    let order = load_order(&drivers, recipe)?;

    // By path, so that folders come before what is in them and the order is always the same.
    let mut entries: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
    for folder in ["bin", "dev", "modules", "proc", "root", "sys"] {
        entries.insert(folder.to_owned(), (FOLDER, vec![]));
    }
    entries.insert("init".to_owned(), (PROGRAM, INIT.as_bytes().to_vec()));
    let busybox = fs::read(&kernel.busybox).map_err(io_error("read", &kernel.busybox))?;
    entries.insert("bin/busybox".to_owned(), (PROGRAM, busybox));
    for applet in APPLETS {
        entries.insert(format!("bin/{applet}"), (LINK, b"busybox".to_vec()));
    }
    let mut list = String::new();
    for driver in order {
        let file = driver.rsplit('/').next().unwrap_or(&driver);
        let plain = file.trim_end_matches(".xz");
        let bytes = unpacked(&drivers.join(&driver), scratch)?;
        entries.insert(format!("modules/{plain}"), (FILE, bytes));
        list.push_str(plain);
        list.push('\n');
    }
    entries.insert("modules/order".to_owned(), (FILE, list.into_bytes()));
    entries.insert("modules/root-type".to_owned(), (FILE, b"erofs\n".to_vec()));

    let archive = scratch.join("initrd.cpio");
    let mut bytes = Vec::new();
    for (number, (name, (mode, content))) in (1..).zip(&entries) {
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let builder = NewcBuilder::new(name).ino(number).mode(*mode).nlink(1);
        let written = (|| {
            let mut writer = builder.write(&mut bytes, size);
            std::io::Write::write_all(&mut writer, content)?;
            writer.finish().map(|_| ())
        })();
        written.map_err(io_error("write", &archive))?;
    }
    newc::trailer(&mut bytes).map_err(io_error("write", &archive))?;
    fs::write(&archive, bytes).map_err(io_error("write", &archive))?;
    let mut zstd = Command::new("zstd");
    zstd.args(["--quiet", "--force", "-19", "--no-progress"]);
    shell::output(zstd.arg(&archive).arg("-o").arg(path))?;
    Ok(())
}

/// The drivers that `init` loads, each after those that it needs.
fn load_order(drivers: &Path, recipe: &Recipe) -> Result<Vec<String>, ImageError> {
    let read = |name: &str| {
        let path = drivers.join(name);
        fs::read_to_string(&path).map_err(io_error("read", &path))
    };
    let needs = read("modules.dep")?;
    let needs: BTreeMap<&str, Vec<&str>> = needs
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(driver, needs)| (driver, needs.split_whitespace().collect()))
        .collect();
    let built_in = read("modules.builtin")?;
    let named = |path: &str, name: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        let stem = file.split(".ko").next().unwrap_or(file);
        stem.replace('-', "_") == name.replace('-', "_")
    };
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in recipe.boot_drivers {
        let Some((driver, needed)) = needs.iter().find(|(path, _)| named(path, name)) else {
            if built_in.lines().any(|path| named(path, name)) {
                continue;
            }
            return Err(ImageError::Missing {
                package: "kernel".to_owned(),
                file: format!("driver {name}"),
            });
        };
        // modules.dep lists the nearest first.
        for path in needed.iter().rev().chain([driver]) {
            if seen.insert(*path) {
                order.push((*path).to_owned());
            }
        }
    }
    Ok(order)
}

/// A driver as the kernel takes it.
fn unpacked(path: &Path, scratch: &Path) -> Result<Vec<u8>, ImageError> {
    if path.extension().is_none_or(|end| end != "xz") {
        return fs::read(path).map_err(io_error("read", path));
    }
    let copy = scratch.join("driver.ko.xz");
    fs::copy(path, &copy).map_err(io_error("copy", path))?;
    shell::output(
        Command::new("xz")
            .args(["--decompress", "--force"])
            .arg(&copy),
    )?;
    let plain = scratch.join("driver.ko");
    fs::read(&plain).map_err(io_error("read", &plain))
}
