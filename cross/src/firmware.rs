//! The example firmware of a sensor, `protocol/examples/cortex-m4`: built, weighed, and run in an emulated board whose
//! serial line ends at a broker.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::elf::{self, FileHeader32};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, read};

use crate::setup::rust_library::{RustLibrary, Target};
use crate::shell;

const NAME: &str = "sensor-cortex-m4";

/// The firmware could not be weighed.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The file is not there, or not to be read.
    #[error("could not read {}; `cargo xtask test --only thumb` builds it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not an ELF file of 32 bits.
    #[error("{} is not a firmware", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: read::Error,
    },
}

/// What a firmware takes of a microcontroller, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Flash: program, constants and the values that variables begin with.
    pub flash: u64,
    /// RAM of variables; the stack comes on top.
    pub ram: u64,
}

/// `cargo build` of the firmware.
#[must_use]
pub fn build(library: &RustLibrary, target_folder: &Path) -> Command {
    let manifest = Path::new("protocol/examples/cortex-m4/Cargo.toml");
    let mut command = shell::cargo();
    command
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(manifest);
    library.apply(
        &mut command,
        Target::Sensor,
        &target_folder.join("firmware"),
    );
    command
}

/// Where [`build`] leaves it.
#[must_use]
pub fn path(target_folder: &Path) -> PathBuf {
    let folder = target_folder.join("firmware").join(Target::Sensor.triple());
    folder.join("release").join(NAME)
}

/// Weighs a firmware by the segments of its ELF file.
///
/// # Errors
/// [`FirmwareError`] when there is none.
pub fn size(path: &Path) -> Result<Size, FirmwareError> {
    let bytes = std::fs::read(path).map_err(|source| FirmwareError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let weigh = || {
        let bytes = bytes.as_slice();
        let header = FileHeader32::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let mut size = Size { flash: 0, ram: 0 };
        for segment in header.program_headers(endian, bytes)? {
            if segment.p_type(endian) != elf::PT_LOAD {
                continue;
            }
            size.flash += u64::from(segment.p_filesz(endian));
            if (segment.p_flags(endian) & elf::PF_W).0 != 0 {
                size.ram += u64::from(segment.p_memsz(endian));
            }
        }
        Ok(size)
    };
    weigh().map_err(|source| FirmwareError::Elf {
        path: path.to_path_buf(),
        source,
    })
}

/// The program that emulates the board, and its arguments: the serial line is connected to the broker at `port` of this
/// machine, and the firmware's exit code becomes the emulator's.
#[must_use]
pub fn emulator(firmware: &Path, port: u16) -> (PathBuf, Vec<String>) {
    let arguments = [
        "-machine",
        "mps2-an386",
        "-display",
        "none",
        "-monitor",
        "none",
        "-serial",
        &format!("tcp:127.0.0.1:{port}"),
        "-semihosting-config",
        "enable=on,target=native",
        "-kernel",
        &firmware.display().to_string(),
    ];
    let arguments = arguments.map(str::to_owned).to_vec();
    (PathBuf::from("qemu-system-arm"), arguments)
}
