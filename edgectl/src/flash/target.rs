//! Where an image goes, as a word on the command line. It touches no device.

use std::{fmt, path::PathBuf, str::FromStr};

/// TCP port of fastboot (AOSP, `system/core/fastboot/README.md`).
pub const FASTBOOT_PORT: u16 = 5554;

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file or a block device.
    Disk(PathBuf),
    /// A board that speaks fastboot.
    Fastboot(FastbootAddress),
}

/// How a board that speaks fastboot is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FastbootAddress {
    /// Over USB: the one with this serial number, or the only one attached.
    Usb {
        /// Its serial number.
        serial: Option<String>,
    },
    /// Over TCP.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Why a word is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Qualcomm's emergency download.
    #[error(
        "flashing by Qualcomm's emergency download (EDL) is not there yet; use fastboot, or write `./edl` for a file of \
         that name"
    )]
    EdlNotYet,
    /// `fastboot:tcp:` and nothing.
    #[error("`{0}` names no host; write fastboot:tcp:HOST or fastboot:tcp:HOST:PORT")]
    NoHost(String),
    /// No port.
    #[error("`{0}` is no TCP port")]
    Port(String),
    /// `fastboot:` and nothing.
    #[error("`{0}` names no serial number; write `fastboot` for the only board attached")]
    NoSerial(String),
    /// Nothing at all.
    #[error("no target; write a file, a device such as /dev/sdX, fastboot or fastboot:tcp:HOST")]
    Empty,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if text == "edl" || text.starts_with("edl:") {
            return Err(TargetError::EdlNotYet);
        }
        if text == "fastboot" {
            return Ok(Self::Fastboot(FastbootAddress::Usb { serial: None }));
        }
        if let Some(rest) = text.strip_prefix("fastboot:tcp:") {
            return tcp(text, rest).map(Self::Fastboot);
        }
        match text.strip_prefix("fastboot:") {
            Some("" | "tcp") => Err(TargetError::NoSerial(text.to_owned())),
            Some(serial) => Ok(Self::Fastboot(FastbootAddress::Usb {
                serial: Some(serial.to_owned()),
            })),
            None => Ok(Self::Disk(text.into())),
        }
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn tcp(text: &str, rest: &str) -> Result<FastbootAddress, TargetError> {
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed
                .split_once(']')
                .ok_or_else(|| TargetError::NoHost(text.to_owned()))?;
            match after {
                "" => (host, None),
                after => match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None => return Err(TargetError::Port(after.to_owned())),
                },
            }
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if host.is_empty() {
        return Err(TargetError::NoHost(text.to_owned()));
    }
    let port = match port {
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| TargetError::Port(port.to_owned()))?,
        None => FASTBOOT_PORT,
    };
    Ok(FastbootAddress::Tcp {
        host: host.to_owned(),
        port,
    })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => path.display().fmt(f),
            Self::Fastboot(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for FastbootAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usb { serial: None } => f.write_str("fastboot"),
            Self::Usb {
                serial: Some(serial),
            } => write!(f, "fastboot:{serial}"),
            Self::Tcp { host, port } if host.contains(':') => {
                write!(f, "fastboot:tcp:[{host}]:{port}")
            }
            Self::Tcp { host, port } => write!(f, "fastboot:tcp:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_target(host: &str, port: u16) -> Target {
        Target::Fastboot(FastbootAddress::Tcp {
            host: host.into(),
            port,
        })
    }

    #[test]
    fn words_name_targets() {
        let read = |text: &str| text.parse::<Target>();
        assert_eq!(read("/dev/sdb"), Ok(Target::Disk("/dev/sdb".into())));
        assert_eq!(read("./fastboot"), Ok(Target::Disk("./fastboot".into())));
        assert_eq!(
            read("fastboot:1a2b"),
            Ok(Target::Fastboot(FastbootAddress::Usb {
                serial: Some("1a2b".into())
            }))
        );
        assert_eq!(read("fastboot:tcp:box"), Ok(tcp_target("box", 5554)));
        assert_eq!(read("fastboot:tcp:box:99"), Ok(tcp_target("box", 99)));
        assert_eq!(read("fastboot:tcp:[::1]"), Ok(tcp_target("::1", 5554)));
        assert_eq!(read("fastboot:tcp:[::1]:7"), Ok(tcp_target("::1", 7)));
    }

    #[test]
    fn wrong_words_are_refused_with_a_reason() {
        let read = |text: &str| text.parse::<Target>().unwrap_err();
        assert_eq!(read("edl"), TargetError::EdlNotYet);
        assert_eq!(read(""), TargetError::Empty);
        assert_eq!(read("fastboot:"), TargetError::NoSerial("fastboot:".into()));
        for text in ["fastboot:tcp:", "fastboot:tcp::1", "fastboot:tcp:[::1"] {
            assert_eq!(read(text), TargetError::NoHost(text.into()));
        }
        assert_eq!(read("fastboot:tcp:box:0"), TargetError::Port("0".into()));
        assert_eq!(read("fastboot:tcp:[::1]7"), TargetError::Port("7".into()));
    }

    #[test]
    fn targets_print_as_they_are_read() {
        for text in [
            "a/b",
            "fastboot",
            "fastboot:1a",
            "fastboot:tcp:[::1]:7",
            "fastboot:tcp:h:1",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }
}
