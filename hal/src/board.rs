//! Board files: one TOML in `board-configs/` for each kind of board, and the checks that make one valid.
//!
//! ```toml
//! [board]
//! name = "bench"                          # a-z, 0-9 and '-'
//! description = "the board on the bench"
//! compatible = ["vendor,board"]           # of the device tree
//!
//! [storage]                               # kind = "linux": the file system of the data folder
//! kind = "linux"
//!
//! [inference]
//! execution_providers = ["cpu"]           # of ONNX Runtime, first choice first
//!
//! [[thermal_zone]]
//! name = "cpu"                            # in telemetry
//! kind = "linux"                          # /sys/class/thermal/thermal_zone* with this type
//! type = "cpu0-thermal"
//!
//! [[thermal_zone]]
//! name = "board"
//! kind = "hwmon"                          # /sys/class/hwmon/hwmon* with name CHIP, file INPUT_input
//! chip = "tmp102"
//! input = "temp1"
//!
//! [[thermal_zone]]
//! name = "gpu"
//! kind = "simulated"
//! base_millicelsius = 36_000              # without load
//! per_load_millicelsius = 24_000          # what full load adds
//! ```

mod file;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use self::file::{BoardFile, Problem};

/// The files of `board-configs/`, part of the program, each under its name without `.toml`.
const BUILTIN: &[(&str, &str)] = &[(
    "host-sim",
    include_str!("../../board-configs/host-sim.toml"),
)];

/// A valid board file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Name of the board; that of its file.
    pub name: String,
    /// What it is, in a line for people.
    pub description: String,
    /// Device-tree `compatible` strings by which the board is recognised; none for a simulated one.
    pub compatible: Vec<String>,
    /// Where the readings of storage come from.
    pub storage: StorageSource,
    /// ONNX Runtime's execution providers that the board has, first choice first.
    pub execution_providers: Vec<ExecutionProvider>,
    /// Places whose temperature is known.
    pub thermal_zones: Vec<ThermalZoneConfig>,
}

/// Where the readings of storage come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageSource {
    /// The file system of the agent's data folder.
    Linux,
    /// Constants.
    Simulated {
        /// Size.
        total_bytes: u64,
        /// Room.
        available_bytes: u64,
    },
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecutionProvider {
    /// The processor.
    Cpu,
}

impl ExecutionProvider {
    /// Name in board files and telemetry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
        }
    }
}

impl std::fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A place whose temperature is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThermalZoneConfig {
    /// Name in telemetry.
    pub name: String,
    /// Where its temperature comes from.
    pub source: ZoneSource,
}

/// Where a temperature comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneSource {
    /// A zone of the kernel's thermal framework.
    Linux {
        /// Content of its `type` file.
        zone_type: String,
    },
    /// An input of a hardware monitoring chip.
    Hwmon {
        /// Content of the chip's `name` file.
        chip: String,
        /// The input, such as `temp1`.
        input: String,
    },
    /// In proportion to the processor's load.
    Simulated {
        /// Temperature without load, in thousandths of a degree Celsius.
        base_millicelsius: i32,
        /// What full load adds.
        per_load_millicelsius: i32,
    },
}

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Neither a known name nor a path.
    #[error(
        "no board is called {name:?}; known boards: {known}; a file of your own is named with its path, such as ./{name}.toml",
        known = Board::builtin_names().collect::<Vec<_>>().join(", ")
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file cannot be read.
    #[error(
        "cannot read board file {}; known boards without a file: {known}", path.display(),
        known = Board::builtin_names().collect::<Vec<_>>().join(", ")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is not a valid board.
    #[error("{file}:{line}: {problem}")]
    Invalid {
        /// The file, or the name of a built-in board.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
}

impl Board {
    /// Names of the boards that are part of the program.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// A board that is part of the program.
    ///
    /// # Errors
    /// [`BoardError::Unknown`] lists the names there are.
    pub fn builtin(name: &str) -> Result<Self, BoardError> {
        let (_, text) = BUILTIN
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| BoardError::Unknown {
                name: name.to_owned(),
            })?;
        Self::parse(text, &format!("board-configs/{name}.toml"))
    }

    /// The board that a file describes.
    ///
    /// # Errors
    /// [`BoardError::Read`], or [`BoardError::Invalid`] with the line.
    pub fn from_file(path: &Path) -> Result<Self, BoardError> {
        let text = fs::read_to_string(path).map_err(|source| BoardError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// The board that `text` names: a path when it has a `/` or ends in `.toml`, else a board of the program.
    ///
    /// # Errors
    /// As [`Board::builtin`] and [`Board::from_file`].
    pub fn resolve(text: &str) -> Result<Self, BoardError> {
        if text.contains('/') || text.ends_with(".toml") {
            Self::from_file(Path::new(text))
        } else {
            Self::builtin(text)
        }
    }

    /// The board that `text` describes; `file` names it in errors.
    ///
    /// # Errors
    /// [`BoardError::Invalid`] with the line.
    pub fn parse(text: &str, file: &str) -> Result<Self, BoardError> {
        let invalid = |problem: Problem| BoardError::Invalid {
            file: file.to_owned(),
            line: line_of(text, problem.offset),
            problem: problem.text,
        };
        let file: BoardFile = toml::from_str(text).map_err(|error| {
            invalid(Problem {
                offset: error.span().map_or(0, |span| span.start),
                text: error.message().trim_end().replace('\n', " "),
            })
        })?;
        file.check().map_err(invalid)
    }
}

/// Line of a byte offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
