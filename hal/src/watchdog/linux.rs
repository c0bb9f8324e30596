//! A watchdog of Linux: what is asked of the device, in which order, and what of its answers is believed.
//!
//! The order is proven against a recorded device in `tests/watchdog.rs`; that a real one obeys it, an emulated board
//! proves.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Watchdog, WatchdogError, ioctl::DeviceFile, sysfs::WatchdogNode};
use crate::reset::BootStatus;

/// `WDIOF_*` of include/uapi/linux/watchdog.h.
const SETTIMEOUT: u32 = 0x0080;
const MAGICCLOSE: u32 = 0x0100;
const PRETIMEOUT: u32 = 0x0200;
const KEEPALIVEPING: u32 = 0x8000;

/// An open watchdog device. What each call does is in Documentation/watchdog/watchdog-api.rst.
pub trait WatchdogDevice: Send {
    /// What it is and can (`WDIOC_GETSUPPORT`).
    ///
    /// # Errors
    /// What the system says; so for all others.
    fn support(&mut self) -> io::Result<WatchdogSupport>;

    /// Sets the time-out, in seconds, and says the one granted (`WDIOC_SETTIMEOUT`).
    ///
    /// # Errors
    /// What the system says.
    fn set_timeout(&mut self, seconds: i32) -> io::Result<i32>;

    /// The time-out, in seconds (`WDIOC_GETTIMEOUT`).
    ///
    /// # Errors
    /// What the system says.
    fn timeout(&mut self) -> io::Result<i32>;

    /// Sets how many seconds before the reset the kernel is told, and says what was granted (`WDIOC_SETPRETIMEOUT`).
    ///
    /// # Errors
    /// What the system says.
    fn set_pretimeout(&mut self, seconds: i32) -> io::Result<i32>;

    /// Feeds it (`WDIOC_KEEPALIVE`).
    ///
    /// # Errors
    /// What the system says.
    fn keep_alive(&mut self) -> io::Result<()>;

    /// Why the box last started (`WDIOC_GETBOOTSTATUS`).
    ///
    /// # Errors
    /// What the system says.
    fn boot_status(&mut self) -> io::Result<i32>;

    /// Writes to it: any bytes feed it, and a `V` among the last write's lets closing it stop it.
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// What a device is and can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogSupport {
    /// `WDIOF_*`.
    pub options: u32,
    /// Its identity.
    pub identity: String,
}

/// A `/dev/watchdog*`. It runs from when it is opened; dropping it leaves it running, so that the box restarts unless
/// somebody opens and feeds it in time.
pub struct LinuxWatchdog {
    device: Option<Box<dyn WatchdogDevice>>,
    path: PathBuf,
    options: u32,
    /// Whether it can never be stopped; where the kernel does not say, it is taken for one that cannot.
    nowayout: bool,
    timeout: Duration,
    pretimeout: Option<Duration>,
    boot_status: Result<BootStatus, i32>,
}

impl LinuxWatchdog {
    /// Opens the watchdog of this identity below `root`, which starts it, and sets its time-outs.
    ///
    /// # Errors
    /// [`WatchdogError`] when there is none, when another program holds it, or when it grants no time-out near the
    /// wanted one. A device that was opened is stopped again where that is possible, so that a wrong board file does
    /// not reset the box over and over.
    pub fn open(
        root: &Path,
        identity: &str,
        timeout_s: u32,
        pretimeout_s: Option<u32>,
    ) -> Result<Self, WatchdogError> {
        let node = WatchdogNode::find(root, identity)?;
        let nowayout = node.nowayout()?.unwrap_or(true);
        let path = node.device().to_owned();
        let device = DeviceFile::open(&path).map_err(|source| WatchdogError::Device {
            operation: "open (another program, such as systemd, may hold it)",
            device: path.clone(),
            source,
        })?;
        let device = Box::new(device);
        Self::start(device, &path, identity, nowayout, timeout_s, pretimeout_s)
    }

    /// Sets up a device that was opened from `path`.
    ///
    /// # Errors
    /// As [`LinuxWatchdog::open`].
    pub fn start(
        device: Box<dyn WatchdogDevice>,
        path: &Path,
        identity: &str,
        nowayout: bool,
        timeout_s: u32,
        pretimeout_s: Option<u32>,
    ) -> Result<Self, WatchdogError> {
        let mut device = device;
        let mut options = 0;
        let configured = configure(
            device.as_mut(),
            &mut options,
            path,
            identity,
            timeout_s,
            pretimeout_s,
        );
        let (timeout, pretimeout) = match configured {
            Ok(granted) => granted,
            Err(error) => {
                if options & MAGICCLOSE != 0 && !nowayout {
                    // The error that is returned says more than one of this could.
                    drop(device.write(b"V"));
                }
                return Err(error);
            }
        };
        let boot_status = match device.boot_status() {
            Ok(word) => Ok(BootStatus(word.cast_unsigned())),
            Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        Ok(Self {
            device: Some(device),
            path: path.to_owned(),
            options,
            nowayout,
            timeout,
            pretimeout,
            boot_status,
        })
    }

    /// Time before the reset at which the kernel is told; `None` where the hardware or the board file has none.
    #[must_use]
    pub fn pretimeout(&self) -> Option<Duration> {
        self.pretimeout
    }

    fn device(&mut self) -> Result<&mut Box<dyn WatchdogDevice>, WatchdogError> {
        self.device.as_mut().ok_or_else(|| WatchdogError::Device {
            operation: "use the stopped",
            device: self.path.clone(),
            source: io::ErrorKind::NotConnected.into(),
        })
    }
}

impl Watchdog for LinuxWatchdog {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn feed(&mut self) -> Result<(), WatchdogError> {
        let can_be_asked = self.options & KEEPALIVEPING != 0;
        let device = self.device()?;
        // Any byte but `V` feeds the older ones.
        let fed = if can_be_asked {
            device.keep_alive()
        } else {
            device.write(b"\0")
        };
        fed.map_err(|source| WatchdogError::Device {
            operation: "feed",
            device: self.path.clone(),
            source,
        })
    }

    fn disarm(&mut self) -> Result<(), WatchdogError> {
        let why = if self.nowayout {
            Some("the kernel was told never to stop it (nowayout)")
        } else if self.options & MAGICCLOSE == 0 {
            Some("its driver cannot be told that closing it is meant")
        } else {
            None
        };
        if let Some(why) = why {
            return Err(WatchdogError::Unstoppable {
                device: self.path.clone(),
                why,
            });
        }
        let path = self.path.clone();
        self.device()?
            .write(b"V")
            .map_err(|source| WatchdogError::Device {
                operation: "stop",
                device: path,
                source,
            })?;
        // Closing stops it.
        self.device = None;
        Ok(())
    }

    fn caused_last_reset(&mut self) -> Result<bool, WatchdogError> {
        self.boot_status
            .map(BootStatus::is_watchdog)
            .map_err(|errno| WatchdogError::Device {
                operation: "ask for the boot status of",
                device: self.path.clone(),
                source: io::Error::from_raw_os_error(errno),
            })
    }
}

impl std::fmt::Debug for LinuxWatchdog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxWatchdog")
            .field("path", &self.path)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Asks the device what it is and sets its time-outs; gives those granted. `options` is set as soon as it is known.
fn configure(
    device: &mut dyn WatchdogDevice,
    options: &mut u32,
    path: &Path,
    identity: &str,
    timeout_s: u32,
    pretimeout_s: Option<u32>,
) -> Result<(Duration, Option<Duration>), WatchdogError> {
    let failed = |operation| {
        move |source| WatchdogError::Device {
            operation,
            device: path.to_owned(),
            source,
        }
    };
    let support = device.support().map_err(failed("ask what it is of"))?;
    *options = support.options;
    if support.identity != identity {
        return Err(WatchdogError::OtherDevice {
            device: path.to_owned(),
            identity: identity.to_owned(),
            found: support.identity,
        });
    }
    if support.options & SETTIMEOUT != 0 {
        let wanted = i32::try_from(timeout_s).unwrap_or(i32::MAX);
        device
            .set_timeout(wanted)
            .map_err(failed("set the time-out of"))?;
    }
    // Asked for, not taken from the answer: that is what counts, also where it cannot be set.
    let granted_s = device.timeout().map_err(failed("read the time-out of"))?;
    let granted = u32::try_from(granted_s)
        .ok()
        .filter(|granted| is_near(*granted, timeout_s))
        .ok_or_else(|| WatchdogError::Timeout {
            device: path.to_owned(),
            wanted_s: timeout_s,
            granted_s,
        })?;
    let pretimeout = pretimeout_s
        .filter(|seconds| support.options & PRETIMEOUT != 0 && *seconds < granted)
        .and_then(|seconds| i32::try_from(seconds).ok())
        // A watchdog without it still resets the box.
        .and_then(|seconds| device.set_pretimeout(seconds).ok())
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);
    Ok((Duration::from_secs(granted.into()), pretimeout))
}

/// Hardware counts in steps of its own; beyond a factor of two it is not what the board file means.
fn is_near(granted_s: u32, wanted_s: u32) -> bool {
    let (granted, wanted) = (u64::from(granted_s), u64::from(wanted_s));
    granted > 0 && granted <= wanted.saturating_mul(2) && granted.saturating_mul(2) >= wanted
}
