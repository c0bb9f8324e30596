//! Which board this machine is: as somebody said, else as its device tree says.

use std::path::Path;

use super::{Board, BoardError};

/// Board of a machine without a device tree: a real machine that plays a box.
const WITHOUT_DEVICE_TREE: &str = "host-sim";

/// A board, and how it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The board.
    pub board: Board,
    /// How, in words.
    pub how: String,
}

impl Choice {
    /// The board that `named` names (a name or a path), else the one that the device tree below `root` names. A
    /// machine with a device tree that no board has is refused: its hardware would be driven by a wrong description.
    ///
    /// # Errors
    /// As [`Board::resolve`] and [`Board::detect`].
    pub fn new(named: Option<&str>, root: &Path) -> Result<Self, BoardError> {
        if let Some(named) = named {
            let board = Board::resolve(named)?;
            let how = "as set".to_owned();
            return Ok(Self { board, how });
        }
        match Board::detect(root) {
            Ok(detected) => Ok(Self {
                board: detected.board,
                how: format!("by its device tree, {}", detected.compatible),
            }),
            Err(BoardError::NoDeviceTree { .. }) => Ok(Self {
                board: Board::builtin(WITHOUT_DEVICE_TREE)?,
                how: "by default: this machine has no device tree".to_owned(),
            }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(compatible: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        if let Some(compatible) = compatible {
            let folder = root.path().join("proc/device-tree");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("compatible"), compatible).unwrap();
        }
        root
    }

    #[test]
    fn the_device_tree_decides_unless_somebody_names_a_board() {
        let rb5 = machine(Some("qcom,qrb5165-rb5\0qcom,sm8250\0"));
        let found = Choice::new(None, rb5.path()).unwrap();
        assert_eq!(found.board.name, "qrb5165-rb5");
        assert!(found.how.contains("qcom,qrb5165-rb5"), "{}", found.how);
        let named = Choice::new(Some("host-sim"), rb5.path()).unwrap();
        assert_eq!(
            (named.board.name.as_str(), named.how.as_str()),
            ("host-sim", "as set")
        );
    }

    #[test]
    fn no_device_tree_means_a_machine_that_plays_and_a_strange_one_is_refused() {
        let plain = machine(None);
        let found = Choice::new(None, plain.path()).unwrap();
        assert_eq!(found.board.name, "host-sim");
        let strange = machine(Some("vendor,toaster\0"));
        assert!(Choice::new(None, strange.path()).is_err());
    }
}
