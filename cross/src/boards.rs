//! `cargo xtask boards`: every board file checked, and what they say side by side.
//!
//! - [`reference`]: the list of keys in `docs/boards.md`, made of the schema

pub mod reference;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use edge_hal::board::{Board, BoardError, FlashMethod, SlotsConfig, StorageTechnology};
use serde_json::{Value, json};

/// Board files that could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the board files in {}", folder.display())]
pub struct ListError {
    folder: PathBuf,
    #[source]
    source: io::Error,
}

/// What the checks of some files found.
#[derive(Debug, Default)]
pub struct Report {
    /// Valid boards, each with its file.
    pub boards: Vec<(PathBuf, Board)>,
    /// Valid as far as it goes: files that are only there to be inherited.
    pub abstract_files: Vec<PathBuf>,
    /// The others, with all that is wrong.
    pub failures: Vec<(PathBuf, BoardError)>,
}

/// All files of `board-configs/`, in the order of their names.
///
/// # Errors
/// [`ListError`] when the folder cannot be read.
pub fn files_of_repository() -> Result<Vec<PathBuf>, ListError> {
    let folder = crate::repository().join("board-configs");
    let failed = |source| ListError {
        folder: folder.clone(),
        source,
    };
    let mut files = fs::read_dir(&folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    files.retain(|path| path.extension().is_some_and(|end| end == "toml"));
    files.sort();
    Ok(files)
}

/// Checks each file.
#[must_use]
pub fn check(files: Vec<PathBuf>) -> Report {
    let mut report = Report::default();
    for file in files {
        match Board::from_file(&shown(&file)) {
            Ok(board) => report.boards.push((file, board)),
            Err(BoardError::Abstract { .. }) => report.abstract_files.push(file),
            Err(error) => report.failures.push((file, error)),
        }
    }
    report
}

/// A file's path as messages show it: relative to the working folder where that is shorter.
fn shown(file: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let whole = file.canonicalize().ok();
    here.and_then(|here| whole?.strip_prefix(here).map(Path::to_path_buf).ok())
        .unwrap_or_else(|| file.to_owned())
}

/// Columns of the table: heading, and what a board has there.
type Column = (&'static str, fn(&Board) -> String);

const COLUMNS: [Column; 11] = [
    ("board", |board| board.name.clone()),
    ("compatible", |board| or_dash(board.compatible.join(" "))),
    ("cores", cores),
    ("held/zones", zones),
    ("gpu", gpu),
    ("fan", |board| yes(board.fan.is_some())),
    ("watchdog", |board| {
        let seconds = board
            .watchdog
            .as_ref()
            .map(|dog| format!("{} s", dog.timeout_s));
        seconds.unwrap_or_else(|| "-".to_owned())
    }),
    ("slots", |board| {
        board.slots.as_ref().map_or("-", mechanism).to_owned()
    }),
    ("storage", storage),
    ("flash", |board| {
        or_dash(board.flash.iter().map(method).collect::<Vec<_>>().join(" "))
    }),
    ("unconfirmed", |board| match board.unconfirmed.len() {
        0 => "-".to_owned(),
        count => count.to_string(),
    }),
];

impl Report {
    /// Boards side by side, and under them the files that are none.
    #[must_use]
    pub fn table(&self) -> String {
        let heading = COLUMNS.map(|(heading, _)| heading.to_owned());
        let rows = self
            .boards
            .iter()
            .map(|(_, board)| COLUMNS.map(|(_, cell)| cell(board)));
        let rows: Vec<[String; 11]> = std::iter::once(heading).chain(rows).collect();
        let mut widths = [0; 11];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        let mut text = String::new();
        let rows = if self.boards.is_empty() {
            &[]
        } else {
            rows.as_slice()
        };
        for row in rows {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            text += cells.join("  ").trim_end();
            text += "\n";
        }
        for file in &self.abstract_files {
            text += &format!("{}: abstract, others inherit it\n", shown(file).display());
        }
        text
    }

    /// What is wrong, one problem a line; empty when nothing is.
    #[must_use]
    pub fn problems(&self) -> String {
        self.failures
            .iter()
            .map(|(_, error)| {
                let cause = std::error::Error::source(error);
                let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                format!("{error}{cause}\n")
            })
            .collect()
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let boards = self.boards.iter().map(|(file, board)| {
            let cells = COLUMNS.iter().map(|(heading, cell)| {
                let value = match *heading {
                    "compatible" => json!(board.compatible),
                    "unconfirmed" => json!(board.unconfirmed),
                    "fan" => json!(board.fan.is_some()),
                    "flash" => json!(board.flash.iter().map(method).collect::<Vec<_>>()),
                    _ => json!(cell(board)),
                };
                ((*heading).to_owned(), value)
            });
            let mut cells: serde_json::Map<String, Value> = cells.collect();
            cells.insert("file".to_owned(), json!(shown(file)));
            Value::Object(cells)
        });
        let problems = self.failures.iter().flat_map(|(file, error)| match error {
            BoardError::Invalid { problems } => problems
                .iter()
                .map(|p| json!({"file": p.file, "line": p.line, "problem": p.problem}))
                .collect(),
            other => vec![json!({"file": shown(file), "problem": other.to_string()})],
        });
        json!({
            "boards": boards.collect::<Vec<_>>(),
            "abstract": self.abstract_files.iter().map(|file| shown(file)).collect::<Vec<_>>(),
            "problems": problems.collect::<Vec<_>>(),
        })
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "-" }.to_owned()
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

/// `4+3+1`: cores of each cluster.
fn cores(board: &Board) -> String {
    let counts = board
        .cpu_clusters
        .iter()
        .map(|cluster| cluster.cores.len().to_string());
    or_dash(counts.collect::<Vec<_>>().join("+"))
}

/// How many zones the governor holds, of how many there are.
fn zones(board: &Board) -> String {
    let held = board
        .thermal_zones
        .iter()
        .filter(|zone| zone.target_millicelsius.is_some());
    match board.thermal_zones.len() {
        0 => "-".to_owned(),
        all => format!("{}/{all}", held.count()),
    }
}

fn gpu(board: &Board) -> String {
    board
        .gpu
        .as_ref()
        .map_or_else(|| "-".to_owned(), |gpu| gpu.name.clone())
}

const fn mechanism(slots: &SlotsConfig) -> &'static str {
    match slots {
        SlotsConfig::QualcommAbl { .. } => "qualcomm-abl",
        SlotsConfig::UbootText { .. } => "uboot-text",
        SlotsConfig::UbootBinary { .. } => "uboot-binary",
        SlotsConfig::Simulated { .. } => "simulated",
    }
}

fn storage(board: &Board) -> String {
    let technology = match board.storage.technology {
        StorageTechnology::Ufs => "ufs",
        StorageTechnology::Emmc => "emmc",
        StorageTechnology::Disk => "disk",
    };
    match board.storage.partitions.len() {
        0 => technology.to_owned(),
        parts => format!("{technology}/{} {parts} parts", board.storage.sector_bytes),
    }
}

const fn method(method: &FlashMethod) -> &'static str {
    match method {
        FlashMethod::Disk => "disk",
        FlashMethod::Fastboot { .. } => "fastboot",
        FlashMethod::Edl { .. } => "edl",
    }
}
