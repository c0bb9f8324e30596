//! What the kernel says about itself: release and time since boot.

use std::path::Path;

use crate::kernel_file::{KernelFile, KernelFileError};

/// The kernel of the machine below a root folder (proc(5)).
#[derive(Debug)]
pub struct Kernel {
    uptime: KernelFile,
    release: KernelFile,
}

impl Kernel {
    /// The kernel of the machine below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            uptime: KernelFile::new(root, "proc/uptime"),
            release: KernelFile::new(root, "proc/sys/kernel/osrelease"),
        }
    }

    /// Whole seconds since boot, suspend included.
    ///
    /// # Errors
    /// [`KernelFileError`] when `/proc/uptime` cannot be read.
    pub fn read_uptime_s(&mut self) -> Result<u64, KernelFileError> {
        self.uptime.parse("seconds since boot", parse_uptime_s)
    }

    /// The kernel's release, as `uname -r` prints it.
    ///
    /// # Errors
    /// [`KernelFileError`] when `/proc/sys/kernel/osrelease` cannot be read.
    pub fn read_release(&mut self) -> Result<String, KernelFileError> {
        self.release.parse("release", |text| {
            let release = text.trim();
            (!release.is_empty()).then(|| release.to_owned())
        })
    }
}

/// Reads `seconds.hundredths idle`.
fn parse_uptime_s(uptime: &str) -> Option<u64> {
    let (seconds, _) = uptime.split_once('.')?;
    seconds.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_whole_seconds() {
        assert_eq!(parse_uptime_s("350735.47 234388.90\n"), Some(350_735));
        for broken in ["", "12", "x.1 2.0"] {
            assert_eq!(parse_uptime_s(broken), None, "{broken:?}");
        }
    }
}
