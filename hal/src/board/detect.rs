//! Which board this is: the device tree says.

use std::{fs::File, io::Read, path::Path};

use super::{Board, BoardError};

/// The device tree's names of this machine, below the root folder.
const COMPATIBLE_FILE: &str = "proc/device-tree/compatible";

/// Most bytes of it that are read; real ones have under 200.
const MAX_COMPATIBLE_BYTES: u64 = 4096;

/// A board, and how it was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The board.
    pub board: Board,
    /// The `compatible` string that board and machine share.
    pub compatible: String,
}

impl Board {
    /// The board of the program that this machine is, by `/proc/device-tree/compatible` below `root`.
    ///
    /// # Errors
    /// [`BoardError::NoDeviceTree`] where the kernel shows none, [`BoardError::NotDetected`] when no board has one of
    /// the machine's names; both say how to name a board instead.
    pub fn detect(root: &Path) -> Result<Detected, BoardError> {
        let path = root.join(COMPATIBLE_FILE);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_COMPATIBLE_BYTES).read_to_end(&mut bytes))
            .map_err(|source| BoardError::NoDeviceTree { path, source })?;
        let machine = compatible_strings(&bytes);
        let boards = Self::builtin_names()
            .map(Self::builtin)
            .collect::<Result<Vec<_>, _>>()?;
        match choose(&machine, &boards) {
            Some((board, compatible)) => Ok(Detected {
                board: board.clone(),
                compatible: compatible.to_owned(),
            }),
            None => Err(BoardError::NotDetected { machine }),
        }
    }
}

/// The strings of a device tree's `compatible`: each ends with a zero byte, the most specific comes first
/// (Devicetree Specification 0.4, section 2.3.1).
#[must_use]
pub fn compatible_strings(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|string| !string.is_empty())
        .map(|string| String::from_utf8_lossy(string).into_owned())
        .collect()
}

/// The board with the most specific of the machine's names, and that name. A board of one's own with the same name as
/// an earlier one loses: the first wins.
#[must_use]
pub fn choose<'a>(machine: &'a [String], boards: &'a [Board]) -> Option<(&'a Board, &'a str)> {
    machine.iter().find_map(|name| {
        boards
            .iter()
            .find(|board| board.compatible.contains(name))
            .map(|board| (board, name.as_str()))
    })
}
