//! Debian's packages as a root file system: `mmdebstrap`, whose result is kept in the cache.
//!
//! The packages' own scripts run as on any Debian, under the emulator where this machine is no ARM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::recipe::{KERNEL, PACKAGES, SUITE};
use super::{Epoch, ImageError, io_error};
use crate::cache::Cache;
use crate::setup::{apt, emulator};
use crate::shell;

/// Raised when the way in which the root is made changes.
const VERSION: u32 = 2;

/// Where the kernel looks for emulators of foreign programs.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// Debian's root file system.
#[derive(Debug, Clone)]
pub struct DebianRoot {
    /// The tar.
    pub tar: PathBuf,
    /// Its packages with versions, a line each.
    pub packages: PathBuf,
}

/// The root file system, made anew when the list of packages or our users changed.
///
/// # Errors
/// When it cannot be made.
pub fn ensure(cache: &Cache, epoch: Epoch) -> Result<DebianRoot, ImageError> {
    let folder = cache.debian(SUITE);
    let users = crate::repository().join("edge-agent/systemd/edge-agent.sysusers");
    let users_text = fs::read_to_string(&users).map_err(io_error("read", &users))?;
    let pin = format!("{VERSION}\n{SUITE}\n{}\n{users_text}", PACKAGES.join(" "));
    let pin = Sha256::digest(pin.as_bytes());
    let pin: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
    let root = DebianRoot {
        tar: folder.join("root.tar"),
        packages: folder.join("packages"),
    };
    if cache.is_done("debian", &pin, &folder) {
        return Ok(root);
    }
    let sources = apt::sources_of(SUITE)?;
    shell::step(&format!("Debian {SUITE} for arm64: minutes, once"), || {
        let emulator = emulator::ensure(cache).map_err(|source| ImageError::Io {
            operation: "find an emulator:",
            path: PathBuf::from(source.to_string()),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let _registered = Registered::ensure(&emulator)?;
        cache.finish("debian", &pin, &folder, |scratch| {
            let product = scratch.join("debian");
            fs::create_dir(&product).map_err(io_error("create", &product))?;
            bootstrap(&sources, &users, &product, epoch)?;
            Ok::<_, ImageError>(product)
        })
    })?;
    Ok(root)
}

fn bootstrap(
    sources: &[String],
    users: &Path,
    product: &Path,
    epoch: Epoch,
) -> Result<(), ImageError> {
    let packages = product.join("packages");
    let mut command = Command::new("mmdebstrap");
    command
        .env("SOURCE_DATE_EPOCH", epoch.0.to_string())
        .env("LC_ALL", "C.UTF-8")
        .args(["--arch=arm64", "--variant=essential", "--skip=check/qemu"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        // Users of our units get their numbers here: the root is read-only on the box.
        .arg(format!(
            "--customize-hook=upload {} /usr/lib/sysusers.d/edge-agent.conf",
            users.display()
        ))
        .arg("--customize-hook=chroot \"$1\" systemd-sysusers")
        .arg(format!(
            "--customize-hook=chroot \"$1\" dpkg-query --show > '{}'",
            packages.display()
        ))
        .arg(SUITE)
        .arg(product.join("root.tar"))
        .args(sources);
    shell::output(&mut command)?;
    Ok(())
}

/// The emulator, registered with the kernel for as long as this lives.
struct Registered {
    name: Option<&'static str>,
}

impl Registered {
    fn ensure(emulator: &Path) -> Result<Self, ImageError> {
        if std::env::consts::ARCH == "aarch64" || is_registered() {
            return Ok(Self { name: None });
        }
        let register = Path::new(BINFMT).join("register");
        if !register.exists() {
            let mut mount = Command::new("mount");
            shell::output(mount.args(["-t", "binfmt_misc", "binfmt_misc", BINFMT]))?;
        }
        // The header of an ELF file for aarch64. `F` opens the emulator now, so that it works in a chroot too.
        let line = format!(
            r":edge-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{}:F",
            emulator.display()
        );
        fs::write(&register, line).map_err(io_error(
            "register an emulator of ARM programs (as root, or install Debian's qemu-user-binfmt) with",
            &register,
        ))?;
        Ok(Self {
            name: Some("edge-aarch64"),
        })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            // What stays registered harms nobody.
            let _removed = fs::write(Path::new(BINFMT).join(name), "-1");
        }
    }
}

/// Whether the kernel runs programs for aarch64 already.
fn is_registered() -> bool {
    let entries = fs::read_dir(BINFMT).into_iter().flatten();
    entries.flatten().any(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        text.starts_with("enabled")
            && text.contains("magic 7f454c460201010000000000000000000200b700")
    })
}

/// The kernel's package, whatever its version is.
pub(super) fn kernel_package(apt: &apt::Apt) -> Result<String, ImageError> {
    let dependencies = apt.dependencies(KERNEL)?;
    let prefix = "linux-image-";
    dependencies
        .into_iter()
        .find(|name| name.starts_with(prefix) && name.ends_with("-arm64"))
        .ok_or_else(|| ImageError::Missing {
            package: KERNEL.to_owned(),
            file: "dependency on a kernel".to_owned(),
        })
}
