//! Debian's kernel for boxes, its drivers and device trees, and the small programs of the first moments: BusyBox, and
//! U-Boot for the emulated board. Fetched once and kept unpacked in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::debian::kernel_package;
use super::recipe::{Recipe, SUITE};
use super::{ImageError, io_error};
use crate::cache::Cache;
use crate::setup::apt::Apt;
use crate::shell;

/// Raised when more is taken out of the packages.
const VERSION: &str = "1";

/// Debian's kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as the folder of its drivers is called.
    pub release: String,
    /// The kernel itself, as boot loaders take it.
    pub image: PathBuf,
    /// The folder that holds the folder of its drivers.
    pub drivers: PathBuf,
    /// The folder of device trees.
    pub device_trees: PathBuf,
    /// BusyBox, static.
    pub busybox: PathBuf,
    /// U-Boot for the emulated board.
    pub u_boot: PathBuf,
}

/// The newest kernel of the image's release, as it was when it was fetched.
///
/// # Errors
/// When it cannot be fetched.
pub fn ensure(cache: &Cache) -> Result<Kernel, ImageError> {
    let folder = cache.kernel(SUITE);
    if !cache.is_done("kernel", VERSION, &folder) {
        shell::step("Debian's kernel, BusyBox and U-Boot", || {
            cache.finish("kernel", VERSION, &folder, |scratch| {
                let apt = Apt::foreign(cache, SUITE, "arm64")?;
                let product = scratch.join("kernel");
                let packages = [
                    (kernel_package(&apt)?, "linux"),
                    ("busybox-static".to_owned(), "busybox"),
                    ("u-boot-qemu".to_owned(), "u-boot"),
                ];
                for (package, name) in packages {
                    let download = scratch.join(name);
                    fs::create_dir(&download).map_err(io_error("create", &download))?;
                    let unpacked = apt.unpack(&package, None, &download)?;
                    let place = product.join(name);
                    fs::create_dir_all(&product)
                        .and_then(|()| fs::rename(&unpacked, &place))
                        .map_err(io_error("move", &place))?;
                }
                Ok::<_, ImageError>(product)
            })
        })?;
    }
    Kernel::in_folder(&folder)
}

impl Kernel {
    fn in_folder(folder: &Path) -> Result<Self, ImageError> {
        let linux = folder.join("linux");
        let drivers = linux.join("usr/lib/modules");
        let mut releases = fs::read_dir(&drivers).map_err(io_error("read", &drivers))?;
        let release = releases.next().and_then(Result::ok);
        let release = release.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let release = release.ok_or_else(|| ImageError::Missing {
            package: "kernel".to_owned(),
            file: "usr/lib/modules".to_owned(),
        })?;
        Ok(Self {
            image: linux.join(format!("boot/vmlinuz-{release}")),
            device_trees: linux.join(format!("usr/lib/linux-image-{release}")),
            busybox: folder.join("busybox/usr/bin/busybox"),
            u_boot: folder.join("u-boot/usr/lib/u-boot/qemu_arm64/u-boot.bin"),
            drivers,
            release,
        })
    }

    /// Copies the drivers that boxes have below `root`, and lists what needs what.
    ///
    /// # Errors
    /// When a file cannot be copied, or `depmod` fails.
    pub fn copy_drivers(&self, root: &Path) -> Result<PathBuf, ImageError> {
        let from = self.drivers.join(&self.release);
        let to = root.join("usr/lib/modules").join(&self.release);
        copy_folder(&from, &to, &from)?;
        // depmod looks below lib.
        let lib = root.join("lib");
        std::os::unix::fs::symlink("usr/lib", &lib).map_err(io_error("link", &lib))?;
        let depmod = shell::which("depmod").unwrap_or_else(|| PathBuf::from("depmod"));
        shell::output(Command::new(depmod).arg("-b").arg(root).arg(&self.release))?;
        Ok(to)
    }
}

fn copy_folder(from: &Path, to: &Path, top: &Path) -> Result<(), ImageError> {
    fs::create_dir_all(to).map_err(io_error("create", to))?;
    let entries = fs::read_dir(from).map_err(io_error("read", from))?;
    let mut entries: Vec<_> = entries
        .collect::<io::Result<_>>()
        .map_err(io_error("read", from))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let below = path.strip_prefix(top).unwrap_or(&path).to_string_lossy();
        let kind = entry.file_type().map_err(io_error("read", &path))?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            if !Recipe::leaves_out_driver(&format!("{below}/")) {
                copy_folder(&path, &target, top)?;
            }
        } else if kind.is_file() && !Recipe::leaves_out_driver(&below) {
            fs::copy(&path, &target).map_err(io_error("copy", &path))?;
        }
    }
    Ok(())
}
