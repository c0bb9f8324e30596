//! Small text files of the kernel that take a setting (sysfs), below a root that tests replace.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// A file of the kernel that takes a setting in one write.
#[derive(Debug, Clone)]
pub struct KernelSetting {
    path: PathBuf,
}

/// The kernel does not take a setting.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {value:?} to {}", path.display())]
pub struct KernelSettingError {
    /// The file.
    pub path: PathBuf,
    /// What was to be written.
    pub value: String,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

impl KernelSetting {
    /// The file at `path` below `root`.
    #[must_use]
    pub fn new(root: &Path, path: &str) -> Self {
        Self {
            path: root.join(path.trim_start_matches('/')),
        }
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `value`. The file must exist: sysfs takes no new ones, and a fixture must not grow one unseen.
    ///
    /// # Errors
    /// [`KernelSettingError`] when the kernel does not take it.
    pub fn write(&self, value: &str) -> Result<(), KernelSettingError> {
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|source| KernelSettingError {
                path: self.path.clone(),
                value: value.to_owned(),
                source,
            })
    }
}
