//! What `/sys/class/watchdog` says of a watchdog (Documentation/ABI/testing/sysfs-class-watchdog). Reading it starts
//! nothing, so `doctor` may.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::WatchdogError;
use crate::{
    kernel_file::{KernelFile, KernelFileError},
    reset::BootStatus,
};

/// A watchdog's folder in `/sys/class/watchdog`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogNode {
    folder: PathBuf,
    device: PathBuf,
}

/// What a watchdog says of itself without being opened. What its driver does not state is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchdogStatus {
    /// Whether it runs.
    pub is_active: Option<bool>,
    /// Time without food after which it resets the box, in seconds.
    pub timeout_s: Option<u32>,
    /// Time before that at which the kernel is told, in seconds; 0 is never.
    pub pretimeout_s: Option<u32>,
    /// What the kernel does then: `panic` or `noop`.
    pub pretimeout_governor: Option<String>,
    /// Whether it can never be stopped.
    pub nowayout: Option<bool>,
    /// Why the box last started, as far as it knows.
    pub boot_status: Option<BootStatus>,
}

impl WatchdogNode {
    /// The first watchdog of this identity below `root`, by number.
    ///
    /// # Errors
    /// [`WatchdogError::Missing`].
    pub fn find(root: &Path, identity: &str) -> Result<Self, WatchdogError> {
        Self::all(root)
            .into_iter()
            .find(|node| {
                node.text("identity")
                    .is_ok_and(|text| text.as_deref() == Some(identity))
            })
            .ok_or_else(|| WatchdogError::Missing {
                identity: identity.to_owned(),
                below: class(root),
            })
    }

    /// All watchdogs below `root`, by number.
    #[must_use]
    pub fn all(root: &Path) -> Vec<Self> {
        let mut nodes: Vec<(u32, Self)> = fs::read_dir(class(root))
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name();
                let number = name.to_str()?.strip_prefix("watchdog")?.parse().ok()?;
                let device = root.join("dev").join(&name);
                let folder = entry.path();
                Some((number, Self { folder, device }))
            })
            .collect();
        nodes.sort_unstable_by_key(|(number, _)| *number);
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    /// The device file.
    #[must_use]
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// What the watchdog says of itself.
    ///
    /// # Errors
    /// [`WatchdogError::Kernel`] for a file that is there and cannot be understood.
    pub fn read(&self) -> Result<WatchdogStatus, WatchdogError> {
        let active = self.parse(
            "state",
            "state \"active\" or \"inactive\"",
            |text| match text {
                "active" => Some(true),
                "inactive" => Some(false),
                _ => None,
            },
        )?;
        Ok(WatchdogStatus {
            is_active: active,
            timeout_s: self.parse("timeout", "whole seconds", |text| text.parse().ok())?,
            pretimeout_s: self.parse("pretimeout", "whole seconds", |text| text.parse().ok())?,
            pretimeout_governor: self.text("pretimeout_governor")?,
            nowayout: self.nowayout()?,
            boot_status: self.boot_status()?,
        })
    }

    /// Whether it can never be stopped; `None` where its driver does not say.
    ///
    /// # Errors
    /// As [`WatchdogNode::read`].
    pub fn nowayout(&self) -> Result<Option<bool>, WatchdogError> {
        self.parse("nowayout", "0 or 1", |text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })
    }

    /// Why the box last started, as far as it knows.
    ///
    /// # Errors
    /// As [`WatchdogNode::read`].
    pub fn boot_status(&self) -> Result<Option<BootStatus>, WatchdogError> {
        // Older kernels print the word in hexadecimal.
        self.parse("bootstatus", "boot status", |text| {
            match text.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok(),
                None => text.parse().ok(),
            }
            .map(BootStatus)
        })
    }

    fn parse<T>(
        &self,
        name: &str,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, WatchdogError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let format = || KernelFileError::Format {
            path: self.folder.join(name).into(),
            wanted,
        };
        Ok(Some(parse(&text).ok_or_else(format)?))
    }

    /// The trimmed text of a file; `None` where it is not.
    fn text(&self, name: &str) -> Result<Option<String>, WatchdogError> {
        let mut file = KernelFile::new(&self.folder, name);
        if !file.path().exists() {
            return Ok(None);
        }
        Ok(Some(file.read()?.trim().to_owned()))
    }
}

fn class(root: &Path) -> PathBuf {
    root.join("sys/class/watchdog")
}
