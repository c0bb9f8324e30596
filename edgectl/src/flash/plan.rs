//! What will be done and what was, as tables for people and as JSON for programs. Pure: it neither reads nor writes.

use std::fmt::Write as _;

use edge_hal::{Board, board::FlashMethod};
use indicatif::BinaryBytes;
use serde::Serialize;

use super::{
    blocks::{Blocks, Disk, Use},
    bundle::Part,
    fastboot::{job::Flashed, usb::ListedBoard},
    source::ImageFacts,
    target::FastbootAddress,
    write::Written,
};

/// An image.
#[derive(Debug, Clone, Serialize)]
pub struct ImagePlan {
    /// The file.
    pub path: String,
    /// `uncompressed`, `zstd`, `xz` or `gzip`.
    pub compression: &'static str,
    /// Whether it is an Android sparse image.
    pub sparse: bool,
    /// Bytes of the file.
    pub stored_bytes: u64,
    /// Bytes that it becomes, where the file says so.
    pub image_bytes: Option<u64>,
    /// The SHA-256 sum that the file must have, where a checksum file lies beside it.
    pub expected_sha256: Option<String>,
}

impl From<&ImageFacts> for ImagePlan {
    fn from(facts: &ImageFacts) -> Self {
        Self {
            path: facts.path.display().to_string(),
            compression: facts.compression.name(),
            sparse: facts.sparse,
            stored_bytes: facts.stored_bytes,
            image_bytes: facts.image_bytes,
            expected_sha256: facts.expected.map(|sum| sum.to_string()),
        }
    }
}

/// A file or a disk.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DiskPlan {
    /// A file.
    File {
        /// Where.
        path: String,
        /// Its size now; none where it will be made.
        present_bytes: Option<u64>,
    },
    /// A block device.
    BlockDevice {
        /// Where.
        path: String,
        /// Its size.
        size_bytes: u64,
        /// What it calls itself.
        model: Option<String>,
        /// Whether it is made to be taken out.
        removable: bool,
    },
}

impl DiskPlan {
    /// Whether something is lost by writing to it.
    #[must_use]
    pub fn overwrites(&self) -> bool {
        match self {
            Self::File { present_bytes, .. } => present_bytes.is_some_and(|bytes| bytes > 0),
            Self::BlockDevice { .. } => true,
        }
    }

    /// The target in words, such as `/dev/sdb (block device, SanDisk Ultra, 29.72 GiB, removable)`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::File {
                path,
                present_bytes: None,
            } => format!("{path} (a new file)"),
            Self::File {
                path,
                present_bytes: Some(bytes),
            } => format!("{path} (a file of {})", BinaryBytes(*bytes)),
            Self::BlockDevice {
                path,
                size_bytes,
                model,
                removable,
            } => {
                let model = model
                    .as_ref()
                    .map_or(String::new(), |model| format!(", {model}"));
                let removable = if *removable { ", removable" } else { "" };
                let size = BinaryBytes(*size_bytes);
                format!("{path} (block device{model}, {size}{removable})")
            }
        }
    }
}

/// What will be done to a file or a disk.
#[derive(Debug, Clone, Serialize)]
pub struct WritePlan {
    /// What is written.
    pub image: ImagePlan,
    /// Where to.
    pub target: DiskPlan,
}

impl WritePlan {
    /// The plan for people.
    #[must_use]
    pub fn table(&self) -> String {
        let image = &self.image;
        let mut what = match image.image_bytes {
            Some(bytes) => BinaryBytes(bytes).to_string(),
            None => "size unknown before it is unpacked".to_owned(),
        };
        if image.sparse {
            what.push_str(", Android sparse");
        }
        if image.compression != "uncompressed" {
            let _infallible = write!(
                what,
                ", {} of {}",
                image.compression,
                BinaryBytes(image.stored_bytes)
            );
        }
        let checks = if image.expected_sha256.is_some() {
            "; check the image against its checksum file"
        } else {
            ""
        };
        format!(
            "image   {} ({what})\ntarget  {}\nsteps   write the blocks that differ and read them back{checks}; \
             write the first MiB last\n",
            image.path,
            self.target.describe()
        )
    }
}

/// What was done to a file or a disk.
#[derive(Debug, Clone, Serialize)]
pub struct WriteReport {
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes that were there already.
    pub matched_bytes: u64,
    /// Bytes read back.
    pub verified_bytes: u64,
    /// Sum of the image as it is on the target now.
    pub sha256: String,
    /// How long it took.
    pub seconds: f64,
}

impl WriteReport {
    /// From what was done in `seconds`.
    #[must_use]
    pub fn new(written: &Written, seconds: f64) -> Self {
        Self {
            image_bytes: written.image_bytes,
            written_bytes: written.written_bytes,
            matched_bytes: written.matched_bytes,
            verified_bytes: written.verified_bytes,
            sha256: written.sha256.to_string(),
            seconds,
        }
    }

    /// The report for people.
    #[must_use]
    pub fn table(&self) -> String {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate to read"
        )]
        let rate = BinaryBytes((self.image_bytes as f64 / self.seconds.max(0.001)) as u64);
        format!(
            "flashed   {} in {:.1} s ({rate}/s)\nwritten   {}, read back and compared\nskipped   {} that matched already\n\
             sha256    {}\n",
            BinaryBytes(self.image_bytes),
            self.seconds,
            BinaryBytes(self.written_bytes),
            BinaryBytes(self.matched_bytes),
            self.sha256
        )
    }
}

/// What will be done to a board.
#[derive(Debug, Clone, Serialize)]
pub struct BoardPlan {
    /// Where to.
    pub target: String,
    /// The board that the image is for, where it says.
    pub board: Option<String>,
    /// How the owner brings such a board into fastboot mode, where its file says.
    pub enter: Option<String>,
    /// What is flashed, in this order.
    pub partitions: Vec<PartitionPlan>,
    /// The slot that starts next.
    pub active_slot: Option<String>,
}

/// What will be done to a partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionPlan {
    /// Its name.
    pub name: String,
    /// Bytes of its content.
    pub image_bytes: u64,
    /// Bytes of the file.
    pub stored_bytes: u64,
}

impl BoardPlan {
    /// Puts together what is known.
    #[must_use]
    pub fn new(
        target: &FastbootAddress,
        board: Option<&Board>,
        active_slot: Option<&str>,
        parts: &[Part],
    ) -> Self {
        let enter = board.and_then(|board| {
            board.flash.iter().find_map(|method| match method {
                FlashMethod::Fastboot { enter, .. } => Some(enter.clone()),
                FlashMethod::Disk | FlashMethod::Edl { .. } => None,
            })
        });
        Self {
            target: target.to_string(),
            board: board.map(|board| board.name.clone()),
            enter,
            partitions: parts.iter().map(PartitionPlan::from).collect(),
            active_slot: active_slot.map(str::to_owned),
        }
    }

    /// The plan for people.
    #[must_use]
    pub fn table(&self) -> String {
        let board = self
            .board
            .as_ref()
            .map_or(String::new(), |board| format!(" (for {board})"));
        let mut table = format!("target  {}{board}\n", self.target);
        if let Some(enter) = &self.enter {
            let _infallible = writeln!(table, "before  {enter}");
        }
        for part in &self.partitions {
            let image = BinaryBytes(part.image_bytes);
            let stored = BinaryBytes(part.stored_bytes);
            let _infallible = writeln!(
                table,
                "flash   {:20} {image} from a file of {stored}",
                part.name
            );
        }
        if let Some(slot) = &self.active_slot {
            let _infallible = writeln!(table, "then    slot {slot} starts next");
        }
        table
    }
}

impl From<&Part> for PartitionPlan {
    fn from(part: &Part) -> Self {
        Self {
            name: part.name.clone(),
            image_bytes: part.layout.image_bytes,
            stored_bytes: part.layout.file_bytes,
        }
    }
}

/// What a board acknowledged, as a table.
#[must_use]
pub fn flashed_table(flashed: &Flashed, seconds: f64) -> String {
    let said = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
    let board = &flashed.board;
    let mut table = format!(
        "board     {}, serial number {}, takes {} at a time\n",
        said(&board.product),
        said(&board.serial),
        BinaryBytes(board.max_download_bytes.into())
    );
    for part in &flashed.partitions {
        let _infallible = writeln!(
            table,
            "flashed   {:20} {} sent in {} piece{}, acknowledged",
            part.name,
            BinaryBytes(part.sent_bytes),
            part.pieces,
            if part.pieces == 1 { "" } else { "s" }
        );
    }
    let _infallible = writeln!(
        table,
        "took      {seconds:.1} s, {} sent again",
        flashed.repeats
    );
    table
}

/// Boards in fastboot mode, as a table.
#[must_use]
pub fn boards_table(boards: &[ListedBoard]) -> String {
    if boards.is_empty() {
        return "no boards in fastboot mode on USB\n".to_owned();
    }
    let mut table = format!("{:36}{:12}product\n", "board", "USB id");
    for board in boards {
        let id = format!("{:04x}:{:04x}", board.usb_vendor, board.usb_product);
        let product = board.product.as_deref().unwrap_or("-");
        let _infallible = writeln!(table, "{:36}{id:12}{product}", board.target);
    }
    table
}

/// A disk that could be written to.
#[derive(Debug, Clone, Serialize)]
pub struct ListedDisk {
    /// Where.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// What it calls itself, or the file behind it.
    pub model: Option<String>,
    /// Whether it is made to be taken out.
    pub removable: bool,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Where it or a partition of it is mounted, or what lies on it; it must be freed first.
    pub in_use: Vec<String>,
}

/// The disks that this system does not run from.
#[must_use]
pub fn list(blocks: &Blocks) -> Vec<ListedDisk> {
    let in_memory = |disk: &Disk| {
        ["ram", "zram"]
            .iter()
            .any(|kind| disk.node.name.starts_with(kind))
    };
    let shown = blocks.disks.iter().filter(|disk| {
        disk.node.size_bytes > 0 && !in_memory(disk) && !blocks.is_system_disk(disk)
    });
    shown
        .map(|disk| ListedDisk {
            path: format!("/dev/{}", disk.node.name),
            size_bytes: disk.node.size_bytes,
            model: disk.model.clone().or_else(|| {
                let file = disk.backing_file.as_ref()?;
                Some(format!("plays {}", file.display()))
            }),
            removable: disk.removable,
            read_only: disk.read_only,
            in_use: blocks.uses_of_disk(disk).iter().map(in_words).collect(),
        })
        .collect()
}

fn in_words(used: &Use) -> String {
    match used {
        Use::Mounted { device, point } => format!("{device} on {point}"),
        Use::Swap { device } => format!("{device} for swap"),
        Use::Held { device, by } => format!("{device} by {by}"),
    }
}

/// Disks as a table.
#[must_use]
pub fn disks_table(disks: &[ListedDisk]) -> String {
    if disks.is_empty() {
        return "no disks but those that this system runs from\n".to_owned();
    }
    let mut table = format!(
        "{:14}{:>12}  {:10}{:28}in use\n",
        "disk", "size", "removable", "model"
    );
    for disk in disks {
        let mut remarks = disk.in_use.join(", ");
        if disk.read_only {
            remarks.push_str(if remarks.is_empty() {
                "write-protected"
            } else {
                "; write-protected"
            });
        }
        let _infallible = writeln!(
            table,
            "{:14}{:>12}  {:10}{:28}{}",
            disk.path,
            BinaryBytes(disk.size_bytes).to_string(),
            if disk.removable { "yes" } else { "no" },
            disk.model.as_deref().unwrap_or("-"),
            if remarks.is_empty() { "-" } else { &remarks },
        );
    }
    table
}
