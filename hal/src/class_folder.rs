//! Numbered folders of a sysfs class that are known by what a file in them says: `thermal_zone12` is the zone whose
//! `type` reads `cpu0-thermal`. Numbers follow the order in which drivers load and change when one is loaded again,
//! so a folder is looked up when it is first needed and whenever its files are gone; while it is missing, not more
//! often than once in a while, because a look opens a file of every folder of the class.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::kernel_file::{KernelFile, KernelFileError, list};

/// A class has no folder of the name that the board file states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {wanted} below {}; correct the board file or load the driver", below.display())]
pub struct MissingFolder {
    /// What was looked for.
    pub wanted: Arc<str>,
    /// Where.
    pub below: Arc<Path>,
}

/// Why a file of a looked-up folder gave no reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassFileError {
    /// There is no such folder.
    #[error(transparent)]
    Missing(#[from] MissingFolder),
    /// The folder's file.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
}

/// Says when it is time to look again.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    previous: Option<Instant>,
}

impl Pace {
    pub(crate) const fn new(every: Duration) -> Self {
        Self {
            every,
            previous: None,
        }
    }

    /// Whether it is time; if so, the next time is `every` from now.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let passed = self
            .previous
            .map(|then| now.saturating_duration_since(then));
        let is_due = passed.is_none_or(|passed| passed >= self.every);
        if is_due {
            self.previous = Some(now);
        }
        is_due
    }
}

/// Files of the one folder of a class whose file `key` reads `value`.
#[derive(Debug)]
pub(crate) struct ClassFolder {
    class: Arc<Path>,
    prefix: &'static str,
    key: &'static str,
    value: Box<str>,
    missing: MissingFolder,
    pace: Pace,
    /// The folder, or why it is not known.
    found: Result<PathBuf, ClassFileError>,
}

impl ClassFolder {
    /// The folder `{class}/{prefix}*` below `root` whose file `key` reads `value`; looked up again at most every
    /// `look_every`.
    pub(crate) fn new(
        root: &Path,
        class: &str,
        prefix: &'static str,
        key: &'static str,
        value: &str,
        look_every: Duration,
    ) -> Self {
        let class: Arc<Path> = root.join(class).into();
        let wanted: Arc<str> = format!("{prefix}* with {key} {value:?}").into();
        let missing = MissingFolder {
            wanted,
            below: Arc::clone(&class),
        };
        Self {
            class,
            prefix,
            key,
            value: value.into(),
            pace: Pace::new(look_every),
            found: Err(missing.clone().into()),
            missing,
        }
    }

    /// A thermal zone by its `type` (Documentation/driver-api/thermal/sysfs-api.rst).
    pub(crate) fn thermal_zone(root: &Path, zone_type: &str, look_every: Duration) -> Self {
        let class = "sys/class/thermal";
        Self::new(root, class, "thermal_zone", "type", zone_type, look_every)
    }

    /// A hardware monitoring chip by its `name` (Documentation/hwmon/sysfs-interface.rst).
    pub(crate) fn hwmon(root: &Path, chip: &str, look_every: Duration) -> Self {
        Self::new(root, "sys/class/hwmon", "hwmon", "name", chip, look_every)
    }

    /// Looks the folder up unless it is known or was looked for a moment ago.
    fn find(&mut self) -> Result<&Path, ClassFileError> {
        if self.found.is_err() && self.pace.is_due() {
            self.found = find_folder(&self.class, self.prefix, self.key, &self.value)
                .ok_or_else(|| self.missing.clone().into());
        }
        self.found.as_deref().map_err(Clone::clone)
    }

    /// Forgets the folder, whose file is gone: `error` stands until it is looked up again.
    fn forget(&mut self, error: ClassFileError) {
        self.found = Err(error);
    }
}

/// One file of a looked-up folder.
#[derive(Debug)]
pub(crate) struct ClassFile {
    folder: ClassFolder,
    /// Its possible names; the first that the folder has is read.
    names: Vec<String>,
    file: Option<KernelFile>,
}

impl ClassFile {
    pub(crate) fn new(folder: ClassFolder, names: Vec<String>) -> Self {
        Self {
            folder,
            names,
            file: None,
        }
    }

    /// What `parse` finds in the file; where the device is gone the folder is looked up again.
    pub(crate) fn parse<T>(
        &mut self,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ClassFileError> {
        if let Some(file) = &mut self.file {
            match file.parse_same(wanted, &parse) {
                Err(error) if error.is_gone() => {
                    self.file = None;
                    self.folder.forget(self.folder.missing.clone().into());
                }
                reading => return Ok(reading?),
            }
        }
        let folder = self.folder.find()?;
        let mut gone = None;
        for name in &self.names {
            let mut file = KernelFile::new(folder, name);
            match file.parse_same(wanted, &parse) {
                Err(error) if error.is_gone() => gone = gone.or(Some(error)),
                reading => {
                    self.file = Some(file);
                    return Ok(reading?);
                }
            }
        }
        let error = gone.map_or_else(|| self.folder.missing.clone().into(), ClassFileError::from);
        // The folder stands without the file: the driver may still be loading.
        self.folder.forget(error.clone());
        Err(error)
    }
}

/// The first folder `{class}/{prefix}*`, by number, whose file `key` reads `value`.
fn find_folder(class: &Path, prefix: &str, key: &str, value: &str) -> Option<PathBuf> {
    let number = |folder: &PathBuf| -> Option<u32> {
        folder
            .file_name()?
            .to_str()?
            .strip_prefix(prefix)?
            .parse()
            .ok()
    };
    let mut folders: Vec<(u32, PathBuf)> = list(class)
        .into_iter()
        .filter_map(|folder| Some((number(&folder)?, folder)))
        .collect();
    folders.sort_unstable();
    folders
        .into_iter()
        .map(|(_, folder)| folder)
        .find(|folder| {
            let is_wanted = |text: &str| (text.trim() == value).then_some(());
            KernelFile::new(folder, key)
                .parse("name", is_wanted)
                .is_ok()
        })
}
