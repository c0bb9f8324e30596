//! Wear as the kernel shows it for a block device.

use std::{path::Path, time::Duration};

use super::{Reserve, StorageHealth, StorageHealthError, Wear};
use crate::{
    board::StorageTechnology,
    class_folder::Pace,
    kernel_file::{KernelFile, KernelFileError},
};

/// Bytes of a sector in `stat`, whatever the device's own (Documentation/block/stat.rst).
const STAT_SECTOR_BYTES: u64 = 512;

/// Wear and traffic of `/sys/class/block/{device}`.
///
/// - UFS: `life_time_estimation_a`, `life_time_estimation_b` and `eol_info` in the controller's `health_descriptor`
///   (Documentation/ABI/testing/sysfs-driver-ufs), such as `0x01`. The controller is three above the block device's
///   `device`: controller, SCSI host, target, logical unit.
/// - eMMC: the card's `life_time`, such as `0x01 0x02`, and `pre_eol_info` (Documentation/driver-api/mmc/mmc-dev-attrs.rst).
/// - A disk states no wear.
///
/// A UFS device is asked for each of these values over its bus, for which it must be awake. They change in months, so
/// they are asked for once in a while; written bytes are the kernel's own count and always fresh.
#[derive(Debug)]
pub struct BlockHealth {
    stat: KernelFile,
    source: Source,
    pace: Pace,
    known: Option<Life>,
}

#[derive(Debug)]
enum Source {
    Ufs {
        life_a: KernelFile,
        life_b: KernelFile,
        reserve: KernelFile,
    },
    Emmc {
        life: KernelFile,
        reserve: KernelFile,
    },
    None,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    used_percent: Option<u8>,
    reserve: Option<Reserve>,
}

impl BlockHealth {
    /// The block device named `device`, such as `sda` or `mmcblk0`; wear is asked for every `look_every`.
    #[must_use]
    pub fn new(
        root: &Path,
        device: &str,
        technology: StorageTechnology,
        look_every: Duration,
    ) -> Self {
        let file = |name: &str| KernelFile::new(root, &format!("sys/class/block/{device}/{name}"));
        let health = |name: &str| file(&format!("device/../../../health_descriptor/{name}"));
        let source = match technology {
            StorageTechnology::Ufs => Source::Ufs {
                life_a: health("life_time_estimation_a"),
                life_b: health("life_time_estimation_b"),
                reserve: health("eol_info"),
            },
            StorageTechnology::Emmc => Source::Emmc {
                life: file("device/life_time"),
                reserve: file("device/pre_eol_info"),
            },
            StorageTechnology::Disk => Source::None,
        };
        Self {
            stat: file("stat"),
            source,
            pace: Pace::new(look_every),
            known: None,
        }
    }

    fn read_life(&mut self) -> Result<Life, KernelFileError> {
        let one = "life time from 0x00 to 0x0B";
        let (used_percent, reserve) = match &mut self.source {
            Source::Ufs {
                life_a,
                life_b,
                reserve,
            } => {
                let life_a = life_a.parse(one, parse_life)?;
                let life_b = life_b.parse(one, parse_life)?;
                (life_a.max(life_b), read_reserve(reserve)?)
            }
            Source::Emmc { life, reserve } => {
                let parse_two = |text: &str| {
                    let (type_a, type_b) = text.trim().split_once(' ')?;
                    Some(parse_life(type_a)?.max(parse_life(type_b)?))
                };
                let life = life.parse("two life times from 0x00 to 0x0B", parse_two)?;
                (life, read_reserve(reserve)?)
            }
            Source::None => (None, None),
        };
        Ok(Life {
            used_percent,
            reserve,
        })
    }
}

impl StorageHealth for BlockHealth {
    fn read(&mut self) -> Result<Wear, StorageHealthError> {
        let written_sectors = self.stat.parse("seven counters", parse_written_sectors)?;
        // What could not be asked for is asked for again at once.
        let is_due = self.pace.is_due();
        let life = match self.known.filter(|_| !is_due) {
            Some(life) => life,
            None => {
                self.known = None;
                let life = self.read_life()?;
                *self.known.insert(life)
            }
        };
        Ok(Wear {
            used_percent: life.used_percent,
            reserve: life.reserve,
            written_bytes: Some(written_sectors.saturating_mul(STAT_SECTOR_BYTES)),
        })
    }
}

/// Reads the seventh counter of `stat`: sectors written.
fn parse_written_sectors(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(6)?.parse().ok()
}

fn read_reserve(file: &mut KernelFile) -> Result<Option<Reserve>, KernelFileError> {
    file.parse("state of reserved blocks from 0x00 to 0x03", parse_reserve)
}

/// Reads `0x01` (up to 10 % used) to `0x0A` (up to 100 %) and `0x0B` (past its life); `0x00` is not defined
/// (JESD220, bDeviceLifeTimeEstA; JESD84, DEVICE_LIFE_TIME_EST_TYP_A). Some means that the form is right.
fn parse_life(text: &str) -> Option<Option<u8>> {
    match parse_hex(text)? {
        0 => Some(None),
        tenths @ 1..=0x0B => Some(Some(tenths * 10)),
        _ => None,
    }
}

/// Reads `0x01` to `0x03`; `0x00` is not defined (JESD220, bPreEOLInfo; JESD84, PRE_EOL_INFO).
fn parse_reserve(text: &str) -> Option<Option<Reserve>> {
    match parse_hex(text)? {
        0 => Some(None),
        1 => Some(Some(Reserve::Normal)),
        2 => Some(Some(Reserve::Warning)),
        3 => Some(Some(Reserve::Urgent)),
        _ => None,
    }
}

fn parse_hex(text: &str) -> Option<u8> {
    u8::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_goes_in_tenths_and_past_its_end() {
        for (text, expected) in [
            ("0x00\n", Some(None)),
            ("0x01\n", Some(Some(10))),
            ("0x0A\n", Some(Some(100))),
            ("0x0b", Some(Some(110))),
            ("0x0C\n", None),
            ("1\n", None),
            ("0x\n", None),
            ("0x100\n", None),
        ] {
            assert_eq!(parse_life(text), expected, "{text:?}");
        }
        assert_eq!(parse_reserve("0x04\n"), None);
    }
}
