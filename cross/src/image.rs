//! `cargo xtask image`: from Debian's packages and our programs to what a board is flashed with.
//!
//! In the order in which an image comes to be:
//!
//! - [`recipe`]: what goes into a board's image, as values
//! - [`debian`]: Debian's packages as a root file system, in a tar
//! - [`kernel`]: Debian's kernel, its drivers and device trees
//! - [`root`]: Debian's root with our programs and settings, in a tar
//! - [`initramfs`]: the first program of a slot
//! - [`filesystem`]: the read-only root, and FAT
//! - [`table`]: where partitions lie, and the GPT that says so
//! - [`disk`]: a disk that U-Boot starts
//! - [`qualcomm`]: what fastboot and EDL write
//! - [`contents`]: what takes the room
//!
//! Every step takes what it needs as files and values, and makes the same bytes of the same input: times are those of
//! [`Epoch`], names and sizes those of the board file, identifiers hashes of names.

pub mod contents;
pub mod debian;
pub mod disk;
pub mod filesystem;
pub mod initramfs;
pub mod kernel;
pub mod qualcomm;
pub mod recipe;
pub mod root;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use edge_hal::Board;
use serde::Serialize;

use crate::build::{self, BuildError};
use crate::cache::{Arch, Cache, CacheError};
use crate::setup::apt::AptError;
use crate::setup::rust_library::RustLibrary;
use crate::shell::{self, CommandError};

use contents::Share;
use recipe::Recipe;

/// An image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The board file does not say enough.
    #[error("there is no image for {board}: its board file has no {missing}")]
    NotDescribed {
        /// The board.
        board: String,
        /// What is missing.
        missing: &'static str,
    },
    /// The programs.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A program that this uses.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Debian's packages.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// The cache folder.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something does not fit its partition.
    #[error(
        "{what} needs {needed} bytes, and the board file gives the partition {partition} {size}: make it larger there"
    )]
    TooLarge {
        /// What was put in.
        what: String,
        /// The partition.
        partition: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        size: u64,
    },
    /// A package does not have what it is known for.
    #[error("Debian's {package} has no {file}")]
    Missing {
        /// The package.
        package: String,
        /// The file.
        file: String,
    },
    /// The partition table.
    #[error("could not write the partition table of {}", path.display())]
    Table {
        /// The image.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: gpt::GptError,
    },
}

/// Turns an I/O error into one that says what was attempted.
pub(crate) fn io_error<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::Io {
        operation,
        path: path.to_path_buf(),
        source,
    }
}

/// Seconds since 1970 that stand as the time of every file: `SOURCE_DATE_EPOCH`, else that of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The time for this checkout.
    #[must_use]
    pub fn of_checkout() -> Self {
        let given = env::var("SOURCE_DATE_EPOCH").ok();
        let committed = || {
            let mut git = Command::new("git");
            git.current_dir(crate::repository());
            shell::output(git.args(["log", "-1", "--format=%ct"])).ok()
        };
        let text = given.or_else(committed).unwrap_or_default();
        Self(text.trim().parse().unwrap_or_default())
    }
}

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// The board.
    pub board: String,
    /// What to flash: a disk, or a folder with a manifest.
    pub path: PathBuf,
    /// The files in the order in which they were made, and their sizes.
    pub files: Vec<(PathBuf, u64)>,
    /// The list of Debian packages with versions.
    pub packages: PathBuf,
    /// What takes the room in the root.
    pub shares: Vec<Share>,
}

/// Fetches and unpacks what images are made of: minutes the first time, nothing later.
///
/// # Errors
/// When a package cannot be fetched or unpacked.
pub fn fetch(cache: &Cache) -> Result<(), ImageError> {
    debian::ensure(cache, Epoch::of_checkout())?;
    kernel::ensure(cache)?;
    Ok(())
}

/// Makes the image of `board` in `folder`.
///
/// # Errors
/// The first step that fails.
pub fn run(
    cache: &Cache,
    board: &Board,
    library: &RustLibrary,
    folder: &Path,
) -> Result<Image, ImageError> {
    let recipe = Recipe::of(board)?;
    let epoch = Epoch::of_checkout();
    let programs = build::run(board, library)?;
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;

    let debian = debian::ensure(cache, epoch)?;
    let kernel = kernel::ensure(cache)?;
    let scratch = tempfile::Builder::new()
        .prefix("image-")
        .tempdir_in(folder)
        .map_err(io_error("create a folder in", folder))?;
    let scratch = scratch.path();

    let tree = root::Tree {
        debian: &debian.tar,
        kernel: &kernel,
        programs: &programs,
        onnxruntime: &cache.onnxruntime(Arch::Aarch64),
        recipe: &recipe,
        epoch,
    };
    let root_tar = scratch.join("root.tar");
    let packages = folder.join(format!("{}.packages", board.name));
    fs::copy(&debian.packages, &packages).map_err(io_error("write", &packages))?;
    let root_file = folder.join(format!("{}.root", board.name));
    let shares = shell::step("root file system", || {
        let shares = tree.write(&root_tar, scratch)?;
        filesystem::read_only(&root_tar, &root_file, &recipe, epoch, scratch)?;
        Ok::<_, ImageError>(shares)
    })?;
    let initramfs = scratch.join("initrd.img");
    initramfs::write(&kernel, &recipe, &initramfs, scratch)?;
    let slot = disk::SlotFiles {
        kernel: &kernel.image,
        initramfs: &initramfs,
        root: &root_file,
    };
    let (path, mut files) = if recipe.is_started_by_u_boot {
        let path = folder.join(format!("{}.img", board.name));
        shell::step("disk", || {
            disk::write(board, &recipe, &slot, &path, epoch, scratch)
        })?;
        (path.clone(), vec![path])
    } else {
        let path = folder.join(&board.name);
        let files = shell::step("files for fastboot and EDL", || {
            qualcomm::write(board, &recipe, &kernel, &slot, &path, epoch)
        })?;
        (path, files)
    };
    files.push(root_file);
    let files = files
        .into_iter()
        .map(|path| {
            let metadata = fs::metadata(&path).map_err(io_error("read", &path))?;
            Ok((path, metadata.len()))
        })
        .collect::<Result<_, ImageError>>()?;
    Ok(Image {
        board: board.name.clone(),
        path,
        files,
        packages,
        shares,
    })
}

impl Image {
    /// For people: what was made, and what takes the room.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        for (path, bytes) in &self.files {
            text += &format!("{:8.1} MB  {}\n", megabytes(*bytes), path.display());
        }
        let all: u64 = self.shares.iter().map(|share| share.bytes).sum();
        text += "\nin the root:\n";
        for share in &self.shares {
            let percent = share.bytes as f64 * 100.0 / all.max(1) as f64;
            text += &format!(
                "{:8.1} MB {percent:5.1} %  {}\n",
                megabytes(share.bytes),
                share.part
            );
        }
        text + &format!(
            "\nDebian's packages and versions: {}\n",
            self.packages.display()
        )
    }
}
