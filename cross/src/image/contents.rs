//! What takes the room in a root file system.

use std::collections::BTreeMap;

use serde::Serialize;

/// Parts of the root by where their files lie; the first that fits counts.
const PARTS: &[(&str, &[&str])] = &[
    ("ONNX Runtime", &["usr/lib/edge-agent/"]),
    ("our programs", &["usr/bin/edge-"]),
    ("models", &["usr/share/edge-agent/"]),
    ("drivers of the kernel", &["usr/lib/modules/"]),
    (
        "LLVM, for lavapipe",
        &["usr/lib/aarch64-linux-gnu/libLLVM", "usr/lib/llvm"],
    ),
    (
        "Vulkan drivers",
        &[
            "usr/lib/aarch64-linux-gnu/libvulkan",
            "usr/share/vulkan/",
            "usr/share/drirc.d/",
        ],
    ),
    ("hardware names of udev", &["usr/lib/udev/hwdb"]),
    (
        "systemd",
        &["usr/lib/systemd/", "usr/lib/aarch64-linux-gnu/systemd/"],
    ),
    (
        "Perl, which Debian calls essential",
        &["usr/bin/perl", "usr/lib/aarch64-linux-gnu/perl"],
    ),
    ("libraries", &["usr/lib/aarch64-linux-gnu/"]),
    ("time zones", &["usr/share/zoneinfo/"]),
];

/// A part of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// What it is.
    pub part: &'static str,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Bytes by part.
#[derive(Debug, Default)]
pub struct Shares {
    bytes: BTreeMap<&'static str, u64>,
}

impl Shares {
    /// Counts a file, named from the root.
    pub fn add(&mut self, path: &str, bytes: u64) {
        let part = PARTS
            .iter()
            .find(|(_, prefixes)| prefixes.iter().any(|prefix| path.starts_with(prefix)));
        *self
            .bytes
            .entry(part.map_or("the rest of Debian", |(name, _)| name))
            .or_default() += bytes;
    }

    /// The parts, the largest first.
    #[must_use]
    pub fn list(&self) -> Vec<Share> {
        let mut shares: Vec<Share> = self
            .bytes
            .iter()
            .map(|(part, bytes)| Share {
                part,
                bytes: *bytes,
            })
            .collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        shares
    }
}
