//! The block devices of this machine and who uses them, from `/sys/block`, `/proc/self/mountinfo` and `/proc/swaps`.
//! It opens no device. Everything is read below a root folder, so that a fixture tree stands in for a machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Sectors of `/sys/block/*/size` have this size, whatever the device's own are (Documentation/ABI/stable/sysfs-block).
const SYSFS_SECTOR_BYTES: u64 = 512;
/// How deep devices may lie on one another, such as a file system in LVM in LUKS in RAID: an end to circles.
const HOLDERS_DEEP_MAX: usize = 8;

/// Major and minor number.
pub type DeviceNumber = (u64, u64);

/// The files could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct BlocksError {
    /// Which.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// All block devices.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    /// Whole disks, by name.
    pub disks: Vec<Disk>,
    mounts: Vec<Mount>,
    /// Names of devices that are swapped to.
    swaps: Vec<String>,
}

/// A whole disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The disk itself.
    pub node: Node,
    /// Whether it or its medium is made to be taken out.
    pub removable: bool,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Maker and model, where it says.
    pub model: Option<String>,
    /// The file behind a loop device.
    pub backing_file: Option<PathBuf>,
    /// Its partitions, by name.
    pub partitions: Vec<Node>,
}

/// A disk or partition.
#[derive(Debug, Clone)]
pub struct Node {
    /// As in `/dev`, and in the kernel's log.
    pub name: String,
    /// Its number.
    pub number: DeviceNumber,
    /// Its size; 0 where no medium is in it.
    pub size_bytes: u64,
    /// Devices that lie on it: RAID, LVM, encryption.
    holders: Vec<Holder>,
}

#[derive(Debug, Clone)]
struct Holder {
    node: Node,
    /// As its maker called it (`/sys/block/dm-0/dm/name`).
    label: Option<String>,
}

#[derive(Debug, Clone)]
struct Mount {
    number: Option<DeviceNumber>,
    /// Name of the mounted device, of file systems whose number is none of a device (btrfs).
    source: Option<String>,
    point: String,
}

/// Who uses a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// A mounted file system.
    Mounted {
        /// The device.
        device: String,
        /// Where.
        point: String,
    },
    /// Swap space.
    Swap {
        /// The device.
        device: String,
    },
    /// A device that lies on it and is not mounted itself.
    Held {
        /// The device.
        device: String,
        /// What lies on it.
        by: String,
    },
}

impl Blocks {
    /// Reads them below `root`, which is `/` but in tests.
    ///
    /// # Errors
    /// [`BlocksError`] when a list cannot be read. A device that vanishes meanwhile is left out.
    pub fn read(root: &Path) -> Result<Self, BlocksError> {
        let text = |below: &str| {
            let path = root.join(below);
            fs::read_to_string(&path).map_err(|source| BlocksError { path, source })
        };
        let mounts = text("proc/self/mountinfo")?;
        let swaps = text("proc/swaps")?;
        let folder = root.join("sys/block");
        let names = names_in(&folder).map_err(|source| BlocksError {
            path: folder.clone(),
            source,
        })?;
        Ok(Self {
            disks: names
                .iter()
                .filter_map(|name| Disk::read(root, &folder.join(name), name))
                .collect(),
            mounts: mounts
                .lines()
                .filter_map(|line| Mount::read(root, line))
                .collect(),
            // The first line names the columns.
            swaps: swaps
                .lines()
                .skip(1)
                .filter_map(|line| device_name(root, &unescaped(line.split_whitespace().next()?)))
                .collect(),
        })
    }

    /// The disk or partition with this number, and the disk that it is or belongs to.
    #[must_use]
    pub fn find(&self, number: DeviceNumber) -> Option<(&Disk, &Node)> {
        self.disks.iter().find_map(|disk| {
            let node = disk.nodes().find(|node| node.number == number)?;
            Some((disk, node))
        })
    }

    /// Who uses the device, or what lies on it.
    #[must_use]
    pub fn uses(&self, node: &Node) -> Vec<Use> {
        let mut uses = Vec::new();
        self.collect_uses(node, &node.name, &mut uses);
        uses
    }

    fn collect_uses(&self, node: &Node, device: &str, uses: &mut Vec<Use>) {
        let device = device.to_owned();
        for mount in &self.mounts {
            if mount.number == Some(node.number) || mount.source.as_ref() == Some(&node.name) {
                let point = mount.point.clone();
                uses.push(Use::Mounted {
                    device: device.clone(),
                    point,
                });
            }
        }
        if self.swaps.contains(&node.name) {
            uses.push(Use::Swap {
                device: device.clone(),
            });
        }
        for holder in &node.holders {
            let label = holder.label.as_ref().unwrap_or(&holder.node.name);
            let before = uses.len();
            self.collect_uses(&holder.node, &format!("{device} ({label})"), uses);
            if uses.len() == before {
                uses.push(Use::Held {
                    device: device.clone(),
                    by: label.clone(),
                });
            }
        }
    }

    /// Who uses the disk or any of its partitions.
    #[must_use]
    pub fn uses_of_disk(&self, disk: &Disk) -> Vec<Use> {
        disk.nodes().flat_map(|node| self.uses(node)).collect()
    }

    /// Whether this system runs from the disk, or swaps to it.
    #[must_use]
    pub fn is_system_disk(&self, disk: &Disk) -> bool {
        self.uses_of_disk(disk).iter().any(Use::is_of_system)
    }
}

impl Use {
    /// Whether the running system cannot do without it.
    #[must_use]
    pub fn is_of_system(&self) -> bool {
        match self {
            Self::Mounted { point, .. } => {
                let point = Path::new(point);
                let parts = [
                    "/boot", "/efi", "/etc", "/home", "/nix", "/opt", "/usr", "/var",
                ];
                point == Path::new("/") || parts.iter().any(|part| point.starts_with(part))
            }
            Self::Swap { .. } => true,
            Self::Held { .. } => false,
        }
    }
}

impl Disk {
    /// The disk and its partitions.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.node).chain(&self.partitions)
    }

    fn read(root: &Path, folder: &Path, name: &str) -> Option<Self> {
        let words = [
            value(folder, "device/vendor"),
            value(folder, "device/model"),
        ];
        let model = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let partitions = names_in(folder).ok()?.into_iter().filter_map(|part| {
            let folder = folder.join(&part);
            folder
                .join("partition")
                .exists()
                .then(|| Node::read(root, &folder, &part, 0))?
        });
        Some(Self {
            node: Node::read(root, folder, name, 0)?,
            removable: value(folder, "removable").as_deref() == Some("1"),
            read_only: value(folder, "ro").as_deref() == Some("1"),
            model: Some(model).filter(|model| !model.is_empty()),
            backing_file: value(folder, "loop/backing_file").map(PathBuf::from),
            partitions: partitions.collect(),
        })
    }
}

impl Node {
    fn read(root: &Path, folder: &Path, name: &str, deep: usize) -> Option<Self> {
        let holders = if deep < HOLDERS_DEEP_MAX {
            names_in(&folder.join("holders")).unwrap_or_default()
        } else {
            Vec::new()
        };
        let holders = holders.into_iter().filter_map(|name| {
            // A device-mapper or RAID device is a whole disk itself; a holder may also be a partition of one.
            let folder = root.join("sys/class/block").join(&name);
            Some(Holder {
                label: value(&folder, "dm/name"),
                node: Self::read(root, &folder, &name, deep + 1)?,
            })
        });
        let sectors: u64 = value(folder, "size")?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            number: parse_number(&value(folder, "dev")?)?,
            size_bytes: sectors.saturating_mul(SYSFS_SECTOR_BYTES),
            holders: holders.collect(),
        })
    }
}

impl Mount {
    /// A line of `mountinfo` (proc_pid_mountinfo(5)): id, parent, number, root, point, options, optional fields, "-",
    /// type, source, more options.
    fn read(root: &Path, line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        let number = parse_number(before.nth(2)?);
        let point = unescaped(before.nth(1)?);
        let source = unescaped(after.split(' ').nth(1)?);
        Some(Self {
            // 0:x is no device.
            number: number.filter(|(major, _)| *major != 0),
            source: device_name(root, &source),
            point,
        })
    }
}

fn parse_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel's name of a device node, which may be a link, such as `/dev/mapper/root` to `../dm-0`.
fn device_name(root: &Path, node: &str) -> Option<String> {
    let below = node.strip_prefix("/dev/")?;
    let path = root.join("dev").join(below);
    let path = fs::canonicalize(&path).unwrap_or(path);
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Blanks are written as octal escapes (`\040`).
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(part.get(3..).unwrap_or_default());
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn value(folder: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join(file)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescaped("/media/my\\040disk"), "/media/my disk");
        assert_eq!(unescaped("a\\b\\1"), "a\\b\\1");
        assert_eq!(unescaped("\\04é"), "\\04é");
    }

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let root = Path::new("/nowhere");
        let line =
            "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/sdb1 rw,errors=continue";
        let mount = Mount::read(root, line).unwrap();
        assert_eq!(mount.number, Some((98, 0)));
        assert_eq!(mount.source.as_deref(), Some("sdb1"));
        assert_eq!(mount.point, "/mnt 2");
        let line = "24 27 0:6 / /dev rw - devtmpfs devtmpfs rw";
        let mount = Mount::read(root, line).unwrap();
        assert_eq!((mount.number, mount.source), (None, None));
        assert!(Mount::read(root, "nonsense").is_none());
    }
}
