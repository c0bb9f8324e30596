//! A machine made of files, from a tree in `tests/fixtures/`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test programs, which fail by panicking"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use edge_hal::{Board, Sensors, sensors::Parts};
use tempfile::TempDir;

const TREE: &str = include_str!("../fixtures/sm8250.tree");
const BOARD: &str = include_str!("../fixtures/sm8250.toml");

/// A machine made of files. Its `proc` and `sys` are below [`Machine::root`].
pub(crate) struct Machine {
    root: TempDir,
    /// Files, without links.
    pub(crate) files: Vec<&'static str>,
}

impl Machine {
    /// A box of the Snapdragon 865 class.
    pub(crate) fn sm8250() -> Self {
        let mut machine = Self {
            root: tempfile::tempdir().unwrap(),
            files: Vec::new(),
        };
        let mut lines = TREE.lines().peekable();
        while let Some(line) = lines.next() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some((path, target)) = line.split_once(" -> ") {
                machine.link(path, target);
                continue;
            }
            // Names of devices have colons too, but never before a space or at the end.
            let (path, text) = line
                .strip_suffix(':')
                .map(|path| (path, ""))
                .or_else(|| line.split_once(": "))
                .unwrap();
            let mut text = text.to_owned();
            if !text.is_empty() {
                text.push('\n');
            }
            while let Some(more) = lines.next_if(|line| line.starts_with("| ")) {
                text.push_str(&more[2..]);
                text.push('\n');
            }
            machine.write(path, &text);
            machine.files.push(path);
        }
        machine
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Writes a file in place, as a driver that has a new reading.
    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap()
    }

    /// Takes a file or a whole folder away, also from those who have it open: they find it empty, where sysfs would
    /// refuse them.
    pub(crate) fn unplug(&self, path: &str) {
        fn empty(path: &Path) {
            if path.is_dir() {
                for entry in fs::read_dir(path).unwrap() {
                    empty(&entry.unwrap().path());
                }
            } else {
                fs::write(path, "").unwrap();
            }
        }
        let path = self.path(path);
        empty(&path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// The board that the tree was made for.
    pub(crate) fn board() -> Board {
        Board::parse(BOARD, "sm8250.toml").unwrap()
    }

    /// Its sensors; what is missing is looked for at every look.
    pub(crate) fn sensors(&self) -> Sensors {
        self.sensors_of(&Self::board())
    }

    /// Sensors of another board on this machine.
    pub(crate) fn sensors_of(&self, board: &Board) -> Sensors {
        let parts = Parts::new(board, self.root(), self.root(), Duration::ZERO);
        Sensors::from_parts(parts, self.root())
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }
}
