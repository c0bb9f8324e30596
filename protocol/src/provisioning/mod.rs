//! What an owner tells a box before its first start: `provisioning.toml` on a small FAT partition, which any computer
//! edits with a text editor. The box and the tool that writes it share this reader.
//!
//! - `file`: the TOML with its lines, and every mistake in it
//! - `value`: what a value must be, one function a kind
//! - [`text`]: the file as the tool writes it
//! - `area` (feature `area`): the partition, for the tool
//!
//! Nothing here knows where the file lies. The enrolment token is never printed: not by `Debug`, not by `serde`, not
//! by a problem.

#[cfg(feature = "area")]
pub mod area;
mod file;
pub mod text;
mod value;

use std::{fmt, net::IpAddr};

use serde::Serialize;

pub use self::{file::parse, value::check_update_root};
use crate::Id;

/// Name of the file, at the top of the partition.
pub const FILE: &str = "provisioning.toml";
/// Name of the trusted root of updates beside it, which may be absent.
pub const UPDATE_ROOT_FILE: &str = "update-root.json";
/// Name of [`FILE`] while the tool writes it; alone on the partition it tells that writing was cut short.
pub const UNFINISHED_FILE: &str = "provisioning.new";
/// Name of the partition in the partition table.
pub const PARTITION: &str = "provisioning";
/// Longest file of either name that is read.
pub const FILE_MAX_BYTES: usize = 64 * 1024;
/// The version that is read: the key `version`.
pub const VERSION: u32 = 1;
/// Most SSH keys.
pub const SSH_KEYS_MAX: usize = 16;
/// Most name servers: more are ignored by the C library (resolv.conf(5), MAXNS).
pub const DNS_MAX: usize = 3;

/// A valid provisioning file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provisioning {
    /// The region that the box belongs to.
    pub region: Id,
    /// The region's MQTT broker, as `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.
    pub broker: String,
    /// The region's indexer, as `http://` or `https://` with host, port and path.
    pub indexer: Option<String>,
    /// SHA-256 of the region's certificate authority (its certificate in DER), as 64 digits in lower case.
    pub region_ca_sha256: Option<String>,
    /// What the box shows once to be enrolled.
    pub enrolment_token: Option<EnrolmentToken>,
    /// The box's name; without it one is made of its key's fingerprint.
    pub box_id: Option<Id>,
    /// Where rewards go: an address of Ethereum's form with the checksum of EIP-55.
    pub payout_address: Option<String>,
    /// The repository of updates, as `http://` or `https://` with host, port and path.
    pub update_server: Option<String>,
    /// How the box gets its address.
    pub network: Network,
    /// A name of the IANA time zone database.
    pub time_zone: Option<String>,
    /// Who may log in: OpenSSH public keys, one line each, without options.
    pub ssh_keys: Vec<String>,
}

/// How the box gets its address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "mode")]
pub enum Network {
    /// From the network's DHCP server.
    #[default]
    Dhcp,
    /// As written.
    Static {
        /// The box's own address.
        address: IpAddr,
        /// Leading bits that the network's addresses share.
        prefix: u8,
        /// The router; none on a network that is an island.
        gateway: Option<IpAddr>,
        /// Name servers.
        dns: Vec<IpAddr>,
    },
}

/// A secret that is shown once. `Debug` and `serde` write `[redacted]` in its place.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken(String);

impl EnrolmentToken {
    /// The secret, for the one file that hands it on.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for EnrolmentToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

/// Something wrong in a provisioning file: where, which key, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line, counted from 1; none for what is missing.
    pub line: Option<usize>,
    /// The key, such as `broker` or `network.address`; none for the file as a whole.
    pub key: Option<String>,
    /// What is wrong and what to do, in one line.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key} ")?;
        }
        f.write_str(&self.what)
    }
}

/// All that is wrong in a provisioning file; at least one, at most 20.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
