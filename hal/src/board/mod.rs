//! Board files: one TOML in `board-configs/` for each kind of board, and the checks that make one valid.
//!
//! `docs/boards.md` shows how one is written and lists every key; `board-configs/host-sim.toml` is a short example.
//!
//! - `hardware`, `layout`, `work`: what a board is, as types
//! - `builtin`: the files that are part of the program
//! - `tree`: a file whose values know their lines; `inherit`: a file laid over those it inherits
//! - `read`: the tree as types; `checks`: what must hold between keys; `problem`: how what is wrong is said
//! - `detect`, `choice`: which board this machine is

mod builtin;
mod checks;
mod choice;
mod detect;
mod hardware;
mod inherit;
mod layout;
mod problem;
mod read;
#[cfg(feature = "schema")]
mod schema;
mod tree;
mod work;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use self::{
    choice::Choice,
    detect::{Detected, choose, compatible_strings},
    hardware::{
        CpuCluster, CpuRole, FanConfig, FanPoint, FanSource, GpuConfig, GpuSource, HeatedBy,
        LedConfig, LedMeaning, PowerConfig, PowerSource, SimulationConfig, ThermalZoneConfig, Trip,
        TripKind, WatchdogConfig, WatchdogSource, ZoneSource,
    },
    inherit::{MAX_CHAIN, MAX_FILE_BYTES},
    layout::{
        BootConfig, FlashMethod, PartitionConfig, PartitionContent, SlotDisk, SlotsConfig,
        StorageConfig, StorageSource, StorageTechnology, UbootEnvCopy,
    },
    problem::BoardProblem,
    work::{AcceleratorsConfig, ExecutionProvider, RenderingConfig, SimProvider},
};

#[cfg(feature = "schema")]
pub use self::schema::board_file_schema;

/// A valid board file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Name of the board; that of its file.
    pub name: String,
    /// What it is, in a line for people.
    pub description: String,
    /// Device-tree `compatible` strings by which the board is recognised; none for a simulated one.
    pub compatible: Vec<String>,
    /// Keys whose values no public source confirms, such as `gpu.max_khz`.
    #[serde(default)]
    pub unconfirmed: Vec<String>,
    /// Cores that share a clock, slowest first; none where nobody needs to know.
    #[serde(default, rename = "cpu_cluster")]
    pub cpu_clusters: Vec<CpuCluster>,
    /// Places whose temperature is known.
    #[serde(default, rename = "thermal_zone")]
    pub thermal_zones: Vec<ThermalZoneConfig>,
    /// The thermal model's case, for boards with simulated zones.
    pub simulation: Option<SimulationConfig>,
    /// The fan.
    pub fan: Option<FanConfig>,
    /// The GPU.
    pub gpu: Option<GpuConfig>,
    /// Rails and supplies whose power or voltage is known.
    #[serde(default)]
    pub power: Vec<PowerConfig>,
    /// The watchdog.
    pub watchdog: Option<WatchdogConfig>,
    /// Lights, and what they say.
    #[serde(default, rename = "led")]
    pub leds: Vec<LedConfig>,
    /// The storage.
    pub storage: StorageConfig,
    /// How the boot loader keeps which slot to start; none where there is one system.
    pub slots: Option<SlotsConfig>,
    /// What the kernel is started with; none where the project makes no image for it.
    pub boot: Option<BootConfig>,
    /// What runs models.
    pub accelerators: AcceleratorsConfig,
    /// Limits of rendering; none where the box does not render.
    pub rendering: Option<RenderingConfig>,
    /// Ways to flash it, best first.
    #[serde(default)]
    pub flash: Vec<FlashMethod>,
}

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Neither a known name nor a path.
    #[error(
        "no board is called {name:?}; known boards: {known}; a file of your own is named with its path, such as ./{name}.toml",
        known = known()
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file is only there to be inherited.
    #[error("{file} is abstract: other files inherit it, no board is one; known boards: {known}", known = known())]
    Abstract {
        /// The file.
        file: String,
    },
    /// The file cannot be read.
    #[error("cannot read board file {}; known boards without a file: {known}", path.display(), known = known())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is not a valid board.
    #[error("{}", problem::lines(problems))]
    Invalid {
        /// All that is wrong, in the order of the files; at least one, at most 20.
        problems: Vec<BoardProblem>,
    },
    /// The kernel shows no device tree.
    #[error(
        "cannot tell which board this is: {} cannot be read; name one with --board NAME|FILE (known boards: {known})",
        path.display(), known = known()
    )]
    NoDeviceTree {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No board has one of the machine's names.
    #[error(
        "cannot tell which board this is: its device tree says {machine:?}, and no board file has one of these as \
         compatible; name a board with --board NAME|FILE (known boards: {known})",
        known = known()
    )]
    NotDetected {
        /// What the device tree says, most specific first.
        machine: Vec<String>,
    },
}

fn known() -> String {
    Board::builtin_names().collect::<Vec<_>>().join(", ")
}

impl Board {
    /// Names of the boards that are part of the program.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        builtin::board_names()
    }

    /// A board that is part of the program.
    ///
    /// # Errors
    /// [`BoardError::Unknown`] lists the names there are.
    pub fn builtin(name: &str) -> Result<Self, BoardError> {
        let text = builtin::text(name).ok_or_else(|| BoardError::Unknown {
            name: name.to_owned(),
        })?;
        let origin = inherit::Origin::Program(name.to_owned());
        Self::from_merged(&inherit::merge(text, &builtin::file(name), origin)?)
    }

    /// The board that a file describes. It may inherit a board of the program, or a file by a path relative to its
    /// own folder.
    ///
    /// # Errors
    /// [`BoardError::Read`], [`BoardError::Abstract`], or [`BoardError::Invalid`] with file and line of each problem.
    pub fn from_file(path: &Path) -> Result<Self, BoardError> {
        let text = inherit::read(path)?;
        let origin = inherit::Origin::File(path.to_owned());
        Self::from_merged(&inherit::merge(&text, &path.display().to_string(), origin)?)
    }

    /// The board that `text` names: a path when it has a `/` or ends in `.toml`, else a board of the program.
    ///
    /// # Errors
    /// As [`Board::builtin`] and [`Board::from_file`].
    pub fn resolve(text: &str) -> Result<Self, BoardError> {
        if inherit::is_path(text) {
            Self::from_file(Path::new(text))
        } else {
            Self::builtin(text)
        }
    }

    /// The board that `text` describes; `file` names it in errors. It may inherit boards of the program only.
    ///
    /// # Errors
    /// [`BoardError::Abstract`], or [`BoardError::Invalid`] with file and line of each problem.
    pub fn parse(text: &str, file: &str) -> Result<Self, BoardError> {
        let origin = inherit::Origin::Program(String::new());
        Self::from_merged(&inherit::merge(text, file, origin)?)
    }

    /// The cores that run models, by number; none where all do.
    #[must_use]
    pub fn inference_cores(&self) -> Vec<u16> {
        let wanted = &self.accelerators.inference_clusters;
        let clusters = self.cpu_clusters.iter();
        clusters
            .filter(|cluster| wanted.contains(&cluster.name))
            .flat_map(|cluster| cluster.cores.iter().copied())
            .collect()
    }

    fn from_merged(merged: &inherit::Merged) -> Result<Self, BoardError> {
        if merged.is_abstract {
            let file = merged.files.first().cloned().unwrap_or_default();
            return Err(BoardError::Abstract { file });
        }
        read::board(&merged.tree)
            .and_then(|board| {
                let problems = checks::all(&board, &merged.tree);
                if problems.is_empty() {
                    Ok(board)
                } else {
                    Err(problems)
                }
            })
            .map_err(|mut problems| {
                problems.sort_by_key(|(place, _)| (place.file, place.line));
                BoardError::Invalid {
                    problems: problems
                        .into_iter()
                        .map(|(place, text)| merged.problem(place, text))
                        .collect(),
                }
            })
    }
}
