//! The watchdog device file of Linux (Documentation/watchdog/watchdog-api.rst): the only place that talks to it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
};

use super::linux::{WatchdogDevice, WatchdogSupport};

/// `struct watchdog_info` (include/uapi/linux/watchdog.h).
#[repr(C)]
#[derive(Default)]
struct WatchdogInfo {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// The `WDIOC_*` requests (include/uapi/linux/watchdog.h).
#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    reason = "what nix's macros write: an unsafe function around ioctl(2) for each request"
)]
mod request {
    use super::WatchdogInfo;

    nix::ioctl_read!(get_support, b'W', 0, WatchdogInfo);
    nix::ioctl_read!(get_boot_status, b'W', 2, libc::c_int);
    nix::ioctl_read!(keep_alive, b'W', 5, libc::c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, libc::c_int);
    nix::ioctl_readwrite!(set_pretimeout, b'W', 8, libc::c_int);
}

/// An open `/dev/watchdog*`.
#[derive(Debug)]
pub(super) struct DeviceFile(File);

impl DeviceFile {
    /// Opens the device, which starts it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().write(true).open(path).map(Self)
    }

    /// A request that exchanges one number with the driver.
    fn exchange(
        &self,
        request: unsafe fn(libc::c_int, *mut libc::c_int) -> nix::Result<libc::c_int>,
        mut number: i32,
    ) -> io::Result<i32> {
        // SAFETY: the descriptor is open as long as `self` lives, each request of `request` but `get_support` reads
        // and writes one `int`, and `number` is one that nobody else touches.
        #[allow(unsafe_code, reason = "ioctl(2) has no safe form")]
        unsafe { request(self.0.as_raw_fd(), &raw mut number) }?;
        Ok(number)
    }
}

impl WatchdogDevice for DeviceFile {
    fn support(&mut self) -> io::Result<WatchdogSupport> {
        let mut info = WatchdogInfo::default();
        // SAFETY: the descriptor is open as long as `self` lives, and `info` has the layout of the `watchdog_info`
        // that the driver fills.
        #[allow(unsafe_code, reason = "ioctl(2) has no safe form")]
        unsafe { request::get_support(self.0.as_raw_fd(), &raw mut info) }?;
        let text = info
            .identity
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        Ok(WatchdogSupport {
            options: info.options,
            identity: String::from_utf8_lossy(text).into_owned(),
        })
    }

    fn set_timeout(&mut self, seconds: i32) -> io::Result<i32> {
        self.exchange(request::set_timeout, seconds)
    }

    fn timeout(&mut self) -> io::Result<i32> {
        self.exchange(request::get_timeout, 0)
    }

    fn set_pretimeout(&mut self, seconds: i32) -> io::Result<i32> {
        self.exchange(request::set_pretimeout, seconds)
    }

    fn keep_alive(&mut self) -> io::Result<()> {
        self.exchange(request::keep_alive, 0).map(|_| ())
    }

    fn boot_status(&mut self) -> io::Result<i32> {
        self.exchange(request::get_boot_status, 0)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}
