//! `cargo xtask build`: the programs of a box for its processor, small, with their symbols apart.
//!
//! Knows Cargo, the linker and `objcopy`; not what goes into an image.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use cargo_metadata::MetadataCommand;
use edge_hal::Board;
use serde::Serialize;

use crate::setup::rust_library::{RustLibrary, Target};
use crate::shell::{self, CommandError};

/// The daemon.
pub const AGENT: &str = "edge-agent";
/// What a box runs, all of it.
pub const PROGRAMS: [&str; 2] = [AGENT, "edge-ota"];

/// Cargo's profile for boxes.
pub const PROFILE: &str = "dist";

/// Folder of what is not built for this machine, in Cargo's target folder.
pub const BUILD_FOLDER: &str = "build-std";

/// Prefix of the GNU tools for boxes, as Debian names them.
const GNU: &str = "aarch64-linux-gnu";

/// The programs could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The board is played by any machine.
    #[error(
        "{board} is no machine of its own, so there is nothing to build for it: `cargo build --release` makes the \
         programs that play it here"
    )]
    NoMachine {
        /// The board.
        board: String,
    },
    /// Cargo does not say where it builds.
    #[error("could not read the workspace")]
    Workspace(#[from] cargo_metadata::Error),
    /// Cargo, the compiler or a tool.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file of the result.
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
    /// Two builds of one commit on two machines would differ.
    #[error(
        "{} names a folder of this machine ({folder}); a program that is shipped must not: remap it in cross/src/build.rs",
        path.display()
    )]
    NamesMachine {
        /// The program.
        path: PathBuf,
        /// What it names.
        folder: String,
    },
}

/// A program as it is shipped.
#[derive(Debug, Clone, Serialize)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The stripped program.
    pub path: PathBuf,
    /// Its symbols, found by a debugger through the program's debug link.
    pub symbols: PathBuf,
    /// Size of the stripped program.
    pub bytes: u64,
}

/// Builds the programs of `board` below `target_folder`, and strips them.
///
/// # Errors
/// When the board is no machine, or a step fails.
pub fn run(board: &Board, library: &RustLibrary) -> Result<Vec<Program>, BuildError> {
    if board.compatible.is_empty() {
        let board = board.name.clone();
        return Err(BuildError::NoMachine { board });
    }
    let mut metadata = MetadataCommand::new();
    let metadata = metadata.current_dir(crate::repository()).no_deps().exec()?;
    let target_folder = metadata.target_directory.into_std_path_buf();

    let mut cargo = shell::cargo();
    cargo.args(["build", "--profile", PROFILE, "--bins"]);
    for program in PROGRAMS {
        cargo.args(["--package", program]);
    }
    let folders = for_boxes(&mut cargo, library, &target_folder)?;
    shell::visibly(&mut cargo)?;

    let built = target_folder.join(BUILD_FOLDER);
    let built = built.join(Target::Box.triple()).join(PROFILE);
    let shipped = target_folder.join("boards").join(Target::Box.triple());
    fs::create_dir_all(&shipped).map_err(|source| BuildError::Io {
        operation: "create",
        path: shipped.clone(),
        source,
    })?;
    PROGRAMS
        .into_iter()
        .map(|name| ship(name, &built.join(name), &shipped, &folders))
        .collect()
}

/// Makes a Cargo command one for boxes: library, linker, C compiler, and what stands in programs instead of this machine's
/// folders, which are returned.
///
/// # Errors
/// When the repository's folder has no path.
pub fn for_boxes(
    cargo: &mut Command,
    library: &RustLibrary,
    target_folder: &Path,
) -> Result<Vec<(PathBuf, &'static str)>, BuildError> {
    let folders = machine_folders(target_folder, library)?;
    library.apply(cargo, Target::Box, &target_folder.join(BUILD_FOLDER));
    let gcc = format!("{GNU}-gcc");
    cargo
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", &gcc)
        .env("CC_aarch64_unknown_linux_gnu", &gcc)
        .env("AR_aarch64_unknown_linux_gnu", format!("{GNU}-ar"));
    remap(cargo, &folders);
    Ok(folders)
}

/// Folders of this machine that compilers write into programs, the longest first, with what stands there instead.
fn machine_folders(
    target_folder: &Path,
    library: &RustLibrary,
) -> Result<Vec<(PathBuf, &'static str)>, BuildError> {
    let repository = crate::repository();
    let repository = repository.canonicalize().map_err(|source| BuildError::Io {
        operation: "find",
        path: repository.to_path_buf(),
        source,
    })?;
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let mut folders = vec![
        (target_folder.to_path_buf(), "target"),
        (repository, "aethir-edge"),
    ];
    folders.extend(cargo_home.map(|folder| (folder, "cargo")));
    if let RustLibrary::Source(folder) = library {
        folders.push((folder.clone(), "rust"));
    }
    folders.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.as_os_str().len()));
    Ok(folders)
}

/// Tells rustc and gcc what to write instead of this machine's folders.
fn remap(cargo: &mut Command, folders: &[(PathBuf, &str)]) {
    let mut rust = String::new();
    let mut c = String::new();
    // The last that fits counts for rustc, so the longest comes last.
    for (folder, instead) in folders.iter().rev() {
        let folder = folder.display();
        let separator = if rust.is_empty() { "" } else { "\u{1f}" };
        rust.push_str(&format!(
            "{separator}--remap-path-prefix={folder}={instead}"
        ));
        c.push_str(&format!("-ffile-prefix-map={folder}={instead} "));
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", rust)
        .env("CFLAGS_aarch64_unknown_linux_gnu", c.trim_end());
}

/// Parts symbols and program, and looks for folders of this machine in what is shipped.
fn ship(
    name: &'static str,
    built: &Path,
    shipped: &Path,
    folders: &[(PathBuf, &str)],
) -> Result<Program, BuildError> {
    let path = shipped.join(name);
    let symbols = shipped.join(format!("{name}.debug"));
    let objcopy = || Command::new(format!("{GNU}-objcopy"));
    shell::output(objcopy().arg("--only-keep-debug").args([built, &symbols]))?;
    let link = format!("--add-gnu-debuglink={}", symbols.display());
    shell::output(objcopy().args(["--strip-all", &link]).args([built, &path]))?;
    let bytes = fs::read(&path).map_err(|source| BuildError::Io {
        operation: "read",
        path: path.clone(),
        source,
    })?;
    for (folder, _) in folders {
        let folder = folder.display().to_string();
        if contains(&bytes, folder.as_bytes()) {
            return Err(BuildError::NamesMachine { path, folder });
        }
    }
    let bytes = bytes.len() as u64;
    Ok(Program {
        name,
        path,
        symbols,
        bytes,
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
