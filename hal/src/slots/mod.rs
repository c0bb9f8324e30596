//! Boot slots: two places for a system, and the boot loader's record of which one starts.
//!
//! - [`policy`]: what may happen and what starts next, as functions of values
//! - [`abl`]: Qualcomm's ABL, in attribute bits of the GPT
//! - [`uboot`]: U-Boot, in two text files or its redundant environment
//! - [`sim`]: in memory
//! - [`block`], [`state_file`]: what they write to, so that tests can cut its power
//!
//! `docs/boot-slots.md` tells how each one survives a power cut. Nothing here knows of images and updates.

pub mod abl;
pub mod block;
pub mod policy;
pub mod running;
pub mod sim;
pub mod state_file;
pub mod uboot;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use self::{
    abl::{AblDisk, AblSlots, ChainCheck, gpt::GptError},
    block::FileDevice,
    state_file::{OverwrittenFile, ReplacedFile},
    uboot::{EnvError, UbootBinarySlots, UbootTextSlots, binary::EnvCopy},
};
pub use self::{
    policy::{Refusal, Slot, SlotState, SlotTable},
    sim::SimSlots,
};
use crate::{
    board::{PartitionContent, SlotDisk, SlotsConfig, StorageConfig, UbootEnvCopy},
    sim::SimFault,
};

/// Name of the journal in the state folder.
const JOURNAL: &str = "slots.journal";

/// The boot loader's record of the slots.
pub trait SlotControl: Send {
    /// The slots as the boot loader would find them now, even when a change was cut short.
    ///
    /// # Errors
    /// [`SlotError`] when the record cannot be read.
    fn status(&mut self) -> Result<SlotStatus, SlotError>;

    /// Lets `slot` start next, on trial, with the board's number of tries; the running slot stays good.
    ///
    /// # Errors
    /// [`SlotError::Refused`] and [`SlotError::BootLun`] before anything changed; others when storage fails: then
    /// either slot may start next, [`SlotControl::status`] tells which, and [`SlotControl::repair`] tidies up.
    fn arm(&mut self, slot: Slot) -> Result<(), SlotError>;

    /// Records that the running `slot` proved itself. Writes nothing when that is recorded already.
    ///
    /// # Errors
    /// As for [`SlotControl::arm`].
    fn mark_good(&mut self, slot: Slot) -> Result<(), SlotError>;

    /// Gives `slot` up, as before its content is overwritten; the other one starts next.
    ///
    /// # Errors
    /// As for [`SlotControl::arm`].
    fn mark_dead(&mut self, slot: Slot) -> Result<(), SlotError>;

    /// Finishes or undoes a change that was cut short; which slot starts next stays. Writes nothing where none was.
    ///
    /// # Errors
    /// [`SlotError`] when storage fails; it may be called again.
    fn repair(&mut self) -> Result<(), SlotError>;
}

/// The slots, as the boot loader would find them now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotStatus {
    /// Both slots, and which comes first.
    pub table: SlotTable,
    /// The slot that runs; none where the kernel's command line does not say.
    pub running: Option<Slot>,
    /// The slot that starts next; none when the box would not start.
    pub next: Option<Slot>,
    /// What a power cut left behind, if anything.
    pub unfinished: Option<Unfinished>,
}

/// What a power cut left behind. The box starts all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// A change was begun, as its journal says.
    Change {
        /// Whether it counts already.
        committed: bool,
    },
    /// Two copies of the record differ, or one is damaged.
    CopiesDiffer,
    /// Disks disagree on the slot that comes first.
    DisksDisagree,
}

/// Why the slots cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The change would leave the box without a way back.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A partition table.
    #[error("cannot keep the slots in the partition table of {disk}")]
    Gpt {
        /// The disk.
        disk: String,
        /// Why.
        #[source]
        source: GptError,
    },
    /// The journal.
    #[error("cannot {operation} the journal of slot changes")]
    Journal {
        /// What was attempted.
        operation: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// U-Boot's record.
    #[error("cannot keep the slots in {place}")]
    Env {
        /// The file or device.
        place: String,
        /// Why.
        #[source]
        source: EnvError,
    },
    /// A device cannot be opened.
    #[error("cannot open {} to keep the slots there", device.display())]
    Open {
        /// The device.
        device: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The device's sectors are not what the board file says.
    #[error(
        "{device} has sectors of {found} bytes, and the board file says {expected}; correct storage.sector_bytes"
    )]
    SectorBytes {
        /// The device.
        device: String,
        /// What the kernel says.
        found: u32,
        /// What the board file says.
        expected: u32,
    },
    /// The number of tries does not fit.
    #[error("{tries} tries do not fit this boot loader; give 1 to {max} in slots.tries")]
    Tries {
        /// What the board file says.
        tries: u8,
        /// Most that fit.
        max: u8,
    },
    /// The disks are not in an order that is safe.
    #[error(
        "the slotted kernel partition named boot must lie on the last of slots.disks, and only there: it is the one that the boot loader decides by"
    )]
    CommitDisk,
    /// ABL would not start the slot.
    #[error(
        "slot {slot} cannot be armed: this board's UFS starts from the other slot's boot LUN, which updates never change, and ABL starts no slot that differs from it; chain-load U-Boot and use its slots, or set slots.checks_chain = false where a board of this kind proved that its ABL does not check"
    )]
    BootLun {
        /// The slot.
        slot: Slot,
    },
    /// ABL would not start the slot.
    #[error(
        "slot {slot} cannot be armed: the partitions boot_a and boot_b have a type that abl_a or abl_b has too, which ABL takes for a slot that is not in use; give both boot partitions their own type when the box is flashed"
    )]
    TypeGuid {
        /// The slot.
        slot: Slot,
    },
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// A board's slots.
pub enum Slots {
    /// Qualcomm's ABL.
    Abl(AblSlots<FileDevice, ReplacedFile>),
    /// U-Boot's text files.
    UbootText(UbootTextSlots<OverwrittenFile>),
    /// U-Boot's environment.
    UbootBinary(UbootBinarySlots<FileDevice>),
    /// Simulated.
    Sim(SimSlots),
}

impl Slots {
    fn control(&mut self) -> &mut dyn SlotControl {
        match self {
            Self::Abl(slots) => slots,
            Self::UbootText(slots) => slots,
            Self::UbootBinary(slots) => slots,
            Self::Sim(slots) => slots,
        }
    }
}

impl SlotControl for Slots {
    fn status(&mut self) -> Result<SlotStatus, SlotError> {
        self.control().status()
    }

    fn arm(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.control().arm(slot)
    }

    fn mark_good(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.control().mark_good(slot)
    }

    fn mark_dead(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.control().mark_dead(slot)
    }

    fn repair(&mut self) -> Result<(), SlotError> {
        self.control().repair()
    }
}

/// Opens a board's slots. Devices, files and the kernel's are looked for below `root`; `state_dir` is a folder that
/// outlives power cuts, for the journal.
///
/// # Errors
/// [`SlotError`] when the configuration does not fit the mechanism or a device cannot be opened. What the devices
/// hold is not read yet.
pub fn open(
    config: &SlotsConfig,
    storage: &StorageConfig,
    root: &Path,
    state_dir: &Path,
) -> Result<Slots, SlotError> {
    let running = running::running_slot(root);
    Ok(match config {
        SlotsConfig::QualcommAbl {
            disks,
            tries,
            checks_chain,
        } => {
            let chain = if *checks_chain {
                ChainCheck::Required {
                    boot_lun: disks
                        .iter()
                        .find_map(|disk| running::boot_lun(root, disk_name(&disk.device))),
                }
            } else {
                ChainCheck::None
            };
            let disks = disks
                .iter()
                .map(|disk| abl_disk(disk, storage, root))
                .collect::<Result<_, _>>()?;
            let journal = ReplacedFile(state_dir.join(JOURNAL));
            Slots::Abl(AblSlots::new(disks, journal, *tries, running, chain)?)
        }
        SlotsConfig::UbootText { file, tries } => {
            let copies = [0, 1].map(|copy| OverwrittenFile(below(root, &format!("{file}.{copy}"))));
            Slots::UbootText(UbootTextSlots::new(copies, file, *tries, running)?)
        }
        SlotsConfig::UbootBinary {
            copies,
            size_bytes,
            tries,
        } => {
            let [first, second] = copies;
            let open = |copy: &UbootEnvCopy| {
                Ok::<_, SlotError>(EnvCopy {
                    name: copy.device.clone(),
                    device: open_device(&copy.device, storage, root)?,
                    offset_bytes: copy.offset_bytes,
                })
            };
            let copies = [open(first)?, open(second)?];
            Slots::UbootBinary(UbootBinarySlots::new(copies, *size_bytes, *tries, running)?)
        }
        SlotsConfig::Simulated { tries } => Slots::Sim(SimSlots::new(*tries)),
    })
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn disk_name(device: &str) -> &str {
    device.rsplit('/').next().unwrap_or(device)
}

fn abl_disk(
    disk: &SlotDisk,
    storage: &StorageConfig,
    root: &Path,
) -> Result<AblDisk<FileDevice>, SlotError> {
    let partitions = storage
        .partitions
        .iter()
        .filter(|partition| {
            partition.slotted
                && partition.lun == disk.lun
                && matches!(
                    partition.content,
                    PartitionContent::Kernel | PartitionContent::Root
                )
        })
        .map(|partition| partition.name.clone())
        .collect();
    Ok(AblDisk {
        name: disk.device.clone(),
        lun: disk.lun,
        device: open_device(&disk.device, storage, root)?,
        partitions,
    })
}

fn open_device(
    device: &str,
    storage: &StorageConfig,
    root: &Path,
) -> Result<FileDevice, SlotError> {
    let stated = below(
        root,
        &format!(
            "/sys/class/block/{}/queue/logical_block_size",
            disk_name(device)
        ),
    );
    // A file that stands for a device has none; neither has a partition, whose disk states it.
    let found = fs::read_to_string(stated)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    if let Some(found) = found
        && found != storage.sector_bytes
    {
        return Err(SlotError::SectorBytes {
            device: device.to_owned(),
            found,
            expected: storage.sector_bytes,
        });
    }
    let path = below(root, device);
    FileDevice::open(&path, storage.sector_bytes).map_err(|source| SlotError::Open {
        device: path,
        source,
    })
}
