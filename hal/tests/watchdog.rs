//! The watchdog: what is asked of a recorded device, and what is read of `/sys/class/watchdog`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use edge_hal::{
    reset::BootStatus,
    watchdog::{
        LinuxWatchdog, Watchdog, WatchdogDevice, WatchdogError, WatchdogNode, WatchdogStatus,
        WatchdogSupport,
    },
};

const SETTIMEOUT: u32 = 0x80;
const MAGICCLOSE: u32 = 0x100;
const PRETIMEOUT: u32 = 0x200;
const KEEPALIVEPING: u32 = 0x8000;
const QCOM: u32 = SETTIMEOUT | MAGICCLOSE | PRETIMEOUT | KEEPALIVEPING;

/// A device that writes down what is asked of it, and refuses one thing if told so.
#[derive(Clone)]
struct SimDevice {
    options: u32,
    granted_s: i32,
    boot_status: i32,
    refuses: Option<&'static str>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl SimDevice {
    fn new(options: u32, granted_s: i32) -> Self {
        Self {
            options,
            granted_s,
            boot_status: 0,
            refuses: None,
            calls: Arc::default(),
        }
    }

    fn call(&self, name: &str, argument: impl std::fmt::Display) -> io::Result<()> {
        let text = format!("{name} {argument}");
        self.calls.lock().unwrap().push(text.trim().to_owned());
        if self.refuses == Some(name) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn start(&self, nowayout: bool) -> Result<LinuxWatchdog, WatchdogError> {
        LinuxWatchdog::start(
            Box::new(self.clone()),
            Path::new("/dev/watchdog0"),
            "qcom_wdt",
            nowayout,
            30,
            Some(5),
        )
    }
}

impl Drop for SimDevice {
    fn drop(&mut self) {
        // The test's own handle drops last; nobody reads it then.
        self.calls.lock().unwrap().push("close".to_owned());
    }
}

impl WatchdogDevice for SimDevice {
    fn support(&mut self) -> io::Result<WatchdogSupport> {
        self.call("support", "")?;
        Ok(WatchdogSupport {
            options: self.options,
            identity: "qcom_wdt".to_owned(),
        })
    }

    fn set_timeout(&mut self, seconds: i32) -> io::Result<i32> {
        self.call("set-timeout", seconds)?;
        Ok(self.granted_s)
    }

    fn timeout(&mut self) -> io::Result<i32> {
        self.call("timeout", "")?;
        Ok(self.granted_s)
    }

    fn set_pretimeout(&mut self, seconds: i32) -> io::Result<i32> {
        self.call("set-pretimeout", seconds)?;
        Ok(seconds)
    }

    fn keep_alive(&mut self) -> io::Result<()> {
        self.call("keep-alive", "")
    }

    fn boot_status(&mut self) -> io::Result<i32> {
        self.call("boot-status", "")?;
        Ok(self.boot_status)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.call("write", bytes.escape_ascii())
    }
}

#[test]
fn starts_feeds_and_stops_in_this_order() {
    let device = SimDevice::new(QCOM, 30);
    let mut watchdog = device.start(false).unwrap();
    assert_eq!(
        device.calls(),
        [
            "support",
            "set-timeout 30",
            "timeout",
            "set-pretimeout 5",
            "boot-status"
        ]
    );
    assert_eq!(watchdog.timeout(), Duration::from_secs(30));
    assert_eq!(watchdog.pretimeout(), Some(Duration::from_secs(5)));
    watchdog.feed().unwrap();
    assert_eq!(device.calls(), ["keep-alive"]);
    watchdog.disarm().unwrap();
    assert_eq!(device.calls(), ["write V", "close"]);
    assert!(watchdog.feed().is_err());
    assert_eq!(device.calls(), [""; 0]);
}

#[test]
fn dropping_it_leaves_it_running() {
    let device = SimDevice::new(QCOM, 30);
    drop(device.start(false).unwrap());
    let calls = device.calls();
    assert!(calls.iter().all(|call| !call.contains('V')), "{calls:?}");
    assert_eq!(calls.last().unwrap(), "close");
}

#[test]
fn it_is_not_closed_where_closing_would_not_stop_it() {
    for (options, nowayout) in [(QCOM, true), (QCOM & !MAGICCLOSE, false)] {
        let device = SimDevice::new(options, 30);
        let mut watchdog = device.start(nowayout).unwrap();
        device.calls();
        let error = watchdog.disarm().unwrap_err();
        assert!(
            matches!(error, WatchdogError::Unstoppable { .. }),
            "{error}"
        );
        assert_eq!(device.calls(), [""; 0]);
        watchdog.feed().unwrap();
    }
    let mut device = SimDevice::new(QCOM, 30);
    device.refuses = Some("write");
    let mut watchdog = device.start(false).unwrap();
    assert!(watchdog.disarm().is_err());
    watchdog.feed().unwrap();
}

#[test]
fn an_old_device_is_fed_by_a_write_and_keeps_its_timeout() {
    let device = SimDevice::new(MAGICCLOSE, 60);
    let mut watchdog = device.start(false).unwrap();
    assert_eq!(device.calls(), ["support", "timeout", "boot-status"]);
    assert_eq!(watchdog.timeout(), Duration::from_secs(60));
    assert_eq!(watchdog.pretimeout(), None);
    watchdog.feed().unwrap();
    assert_eq!(device.calls(), ["write \\x00"]);
}

#[test]
fn a_useless_timeout_is_refused_and_the_device_stopped() {
    for granted in [i32::MIN, -1, 0, 1, 14, 61, i32::MAX] {
        let device = SimDevice::new(QCOM, granted);
        let error = device.start(false).unwrap_err();
        assert!(
            matches!(error, WatchdogError::Timeout { granted_s, .. } if granted_s == granted),
            "{error}"
        );
        assert_eq!(device.calls()[3..], ["write V", "close"]);
        let device = SimDevice::new(QCOM, granted);
        assert!(device.start(true).is_err());
        assert_eq!(device.calls()[3..], ["close"]);
    }
    for granted in [15, 29, 31, 60] {
        let watchdog = SimDevice::new(QCOM, granted).start(false).unwrap();
        assert_eq!(
            watchdog.timeout().as_secs(),
            u64::try_from(granted).unwrap()
        );
    }
}

#[test]
fn another_device_than_the_wanted_one_is_refused() {
    let device = SimDevice::new(QCOM, 30);
    let path = Path::new("/dev/watchdog0");
    let boxed = Box::new(device.clone());
    let error = LinuxWatchdog::start(boxed, path, "i6300ESB timer", false, 30, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/dev/watchdog0 says that it is \"qcom_wdt\", not \"i6300ESB timer\"; correct the board file"
    );
    assert_eq!(device.calls(), ["support", "write V", "close"]);
}

#[test]
fn each_refusal_has_its_consequence() {
    for (refuses, starts) in [
        ("support", false),
        ("set-timeout", false),
        ("timeout", false),
        ("set-pretimeout", true),
        ("boot-status", true),
        ("keep-alive", true),
    ] {
        let mut device = SimDevice::new(QCOM, 30);
        device.refuses = Some(refuses);
        match device.start(false) {
            Ok(mut watchdog) => {
                assert!(starts, "{refuses}");
                assert_eq!(watchdog.feed().is_ok(), refuses != "keep-alive");
                assert_eq!(watchdog.pretimeout().is_some(), refuses != "set-pretimeout");
                let cause = watchdog.caused_last_reset();
                assert_eq!(cause.is_ok(), refuses != "boot-status");
            }
            Err(error) => {
                assert!(!starts, "{refuses}");
                assert!(matches!(error, WatchdogError::Device { .. }), "{error}");
            }
        }
    }
}

#[test]
fn says_whether_it_reset_the_box() {
    for (word, expected) in [(0, false), (32, true), (0x21, true), (1, false)] {
        let mut device = SimDevice::new(QCOM, 30);
        device.boot_status = word;
        let mut watchdog = device.start(false).unwrap();
        assert_eq!(watchdog.caused_last_reset().unwrap(), expected);
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn is_found_by_its_identity() {
    let root = tempfile::tempdir().unwrap();
    let missing = WatchdogNode::find(root.path(), "qcom_wdt").unwrap_err();
    assert!(
        missing.to_string().contains("correct the board file"),
        "{missing}"
    );
    for (file, text) in [
        ("watchdog0/identity", "i6300ESB timer\n"),
        ("watchdog10/identity", "qcom_wdt\n"),
        ("watchdog2/identity", "qcom_wdt\n"),
        ("watchdog2/state", "active\n"),
        ("watchdog2/timeout", "30\n"),
        ("watchdog2/pretimeout", "1\n"),
        ("watchdog2/pretimeout_governor", "panic\n"),
        ("watchdog2/nowayout", "0\n"),
        ("watchdog2/bootstatus", "32\n"),
        ("device/identity", "qcom_wdt\n"),
    ] {
        write(root.path(), &format!("sys/class/watchdog/{file}"), text);
    }
    let node = WatchdogNode::find(root.path(), "qcom_wdt").unwrap();
    assert_eq!(node.device(), root.path().join("dev/watchdog2"));
    let expected = WatchdogStatus {
        is_active: Some(true),
        timeout_s: Some(30),
        pretimeout_s: Some(1),
        pretimeout_governor: Some("panic".to_owned()),
        nowayout: Some(false),
        boot_status: Some(BootStatus(32)),
    };
    assert_eq!(node.read().unwrap(), expected);
    // A driver states what it likes.
    let node = WatchdogNode::find(root.path(), "i6300ESB timer").unwrap();
    assert_eq!(node.read().unwrap(), WatchdogStatus::default());
}

#[test]
fn nonsense_in_its_files_is_an_error_that_names_them() {
    for (file, text) in [
        ("state", "on"),
        ("timeout", "-1"),
        ("timeout", "99999999999999"),
        ("nowayout", "yes"),
        ("bootstatus", "0xzz"),
        ("pretimeout", ""),
    ] {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "sys/class/watchdog/watchdog0/identity",
            "qcom_wdt",
        );
        write(
            root.path(),
            &format!("sys/class/watchdog/watchdog0/{file}"),
            text,
        );
        let node = WatchdogNode::find(root.path(), "qcom_wdt").unwrap();
        let error = node.read().unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
    }
}

#[test]
fn a_file_that_is_no_watchdog_is_refused_by_the_kernel() {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        "sys/class/watchdog/watchdog0/identity",
        "qcom_wdt\n",
    );
    let open = || LinuxWatchdog::open(root.path(), "qcom_wdt", 30, None).unwrap_err();
    let error = open().to_string();
    assert!(error.starts_with("cannot open (another program"), "{error}");
    write(root.path(), "dev/watchdog0", "");
    let error = open();
    let WatchdogError::Device {
        operation, source, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(operation, "ask what it is of");
    // ENOTTY: ioctl(2) reached a file without it.
    assert_eq!(source.raw_os_error(), Some(25));
    let file = fs::read(root.path().join("dev/watchdog0")).unwrap();
    assert!(file.is_empty());
}
