//! Numbered folders of a sysfs class that are known by what a file in them says: `thermal_zone12` is the zone whose
//! `type` reads `cpu0-thermal`. Numbers follow the order in which drivers load and change when one is loaded again,
//! so a folder is looked up when it is first needed and whenever its files are gone; while it is missing, not more
//! often than once in a while, because a look opens a file of every folder of the class. Looking allocates nothing
//! unless what is found has another number than before.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    kernel_file::{KernelFile, KernelFileError},
    kernel_folder::each_entry,
};

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
    /// The folder's number, or why it is not known.
    found: Result<u32, ClassFileError>,
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

    /// The folder's number; it is looked up unless it is known or was looked for a moment ago.
    fn find(&mut self) -> Result<u32, ClassFileError> {
        if self.found.is_err() && self.pace.is_due() {
            self.found = self.look().ok_or_else(|| self.missing.clone().into());
        }
        self.found.clone()
    }

    /// The first folder, by number, whose file `key` reads `value`.
    fn look(&self) -> Option<u32> {
        let mut first = None;
        each_entry(&self.class, |entry| {
            let digits = entry.name.strip_prefix(self.prefix);
            let Some(number) = digits.and_then(|digits| digits.parse().ok()) else {
                return;
            };
            if first.is_none_or(|first| number < first) && entry.says(self.key, &self.value) {
                first = Some(number);
            }
        });
        first
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
    /// The files of these names in the folder that was last found, with its number.
    files: Option<(u32, Vec<KernelFile>)>,
    /// Which of them is read.
    read: Option<usize>,
}

impl ClassFile {
    pub(crate) fn new(folder: ClassFolder, names: Vec<String>) -> Self {
        Self {
            folder,
            names,
            files: None,
            read: None,
        }
    }

    /// What `parse` finds in the file; where the device is gone the folder is looked up again.
    pub(crate) fn parse<T>(
        &mut self,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ClassFileError> {
        if let Some((_, files)) = &mut self.files
            && let Some(file) = self.read.and_then(|place| files.get_mut(place))
        {
            match file.parse_same(wanted, &parse) {
                Err(error) if error.is_gone() => {
                    file.close();
                    self.read = None;
                    self.folder.forget(self.folder.missing.clone().into());
                }
                reading => return Ok(reading?),
            }
        }
        let number = self.folder.find()?;
        let mut gone = None;
        for (place, file) in self.files_in(number).iter_mut().enumerate() {
            match file.parse_same(wanted, &parse) {
                Err(error) if error.is_gone() => {
                    file.close();
                    gone = gone.or(Some(error));
                }
                reading => {
                    self.read = Some(place);
                    return Ok(reading?);
                }
            }
        }
        let error = gone.map_or_else(|| self.folder.missing.clone().into(), ClassFileError::from);
        // The folder stands without the file: the driver may still be loading.
        self.folder.forget(error.clone());
        Err(error)
    }

    /// The files in the folder of this number.
    fn files_in(&mut self, number: u32) -> &mut [KernelFile] {
        let known = self.files.take().filter(|(known, _)| *known == number);
        let (_, files) = self.files.insert(known.unwrap_or_else(|| {
            let folder = self
                .folder
                .class
                .join(format!("{}{number}", self.folder.prefix));
            let file = |name: &String| KernelFile::new(&folder, name);
            (number, self.names.iter().map(file).collect())
        }));
        files
    }
}
