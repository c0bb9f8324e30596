//! How a board starts and is filled, as its file describes it: storage, slots, kernel, flashing.

use serde::Deserialize;

/// The storage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Where readings of room come from.
    pub source: StorageSource,
    /// What it is made of; decides where its wear is read.
    pub technology: StorageTechnology,
    /// Block device in `/sys/class/block` whose wear and traffic are read.
    pub device: Option<String>,
    /// Bytes of a logical block: 512, or 4,096 on UFS.
    #[serde(default = "default_sector_bytes")]
    pub sector_bytes: u32,
    /// Partitions, in their order on the disk; none where the image does not lay the disk out.
    #[serde(default, rename = "partition")]
    pub partitions: Vec<PartitionConfig>,
}

fn default_sector_bytes() -> u32 {
    512
}

/// Where readings of room come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StorageSource {
    /// The file system of the agent's data folder.
    Linux,
    /// Constants.
    Simulated {
        /// Size.
        total_bytes: u64,
        /// Room.
        available_bytes: u64,
    },
}

/// What storage is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StorageTechnology {
    /// Universal Flash Storage.
    Ufs,
    /// Embedded MultiMediaCard.
    Emmc,
    /// A disk that states no wear: virtual, or behind a controller.
    Disk,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PartitionConfig {
    /// Its name, without the slot's suffix.
    pub name: String,
    /// Logical unit that holds it (UFS); 0 elsewhere.
    #[serde(default)]
    pub lun: u8,
    /// Size of each copy.
    pub size_bytes: u64,
    /// Whether there are two, `{name}_a` and `{name}_b`.
    #[serde(default)]
    pub slotted: bool,
    /// What it is for.
    pub content: PartitionContent,
    /// Type of its GPT entry, as `sgdisk` writes it; none for Linux data. Of a slotted one, the active copy's.
    pub type_guid: Option<String>,
    /// Whether it takes what its disk has left over `size_bytes`; only the last of a disk can.
    #[serde(default)]
    pub grow: bool,
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PartitionContent {
    /// What the boot loader reads itself: scripts, its environment.
    Bootloader,
    /// Kernel, initramfs and device tree.
    Kernel,
    /// The read-only root file system.
    Root,
    /// What outlives updates.
    Data,
    /// What the owner's provisioning writes.
    Provisioning,
}

/// How the boot loader keeps which slot to start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "mechanism", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SlotsConfig {
    /// Qualcomm's ABL: attribute bits of the GPT entries.
    QualcommAbl {
        /// Block device of each logical unit that holds a slotted partition, with that unit's number; the last is
        /// the commit point.
        disks: Vec<SlotDisk>,
        /// Starts of an unproven slot before it is given up.
        tries: u8,
        /// Whether this ABL starts a slot only when UFS's boot LUN and the type GUIDs are that slot's, as the public
        /// source does. False only where a board of this kind has proved it; see `docs/boot-slots.md`.
        #[serde(default = "default_checks_chain")]
        checks_chain: bool,
    },
    /// U-Boot: a text file on FAT.
    UbootText {
        /// The file, without the `.0` and `.1` of its two copies.
        file: String,
        /// Starts of an unproven slot before it is given up.
        tries: u8,
    },
    /// U-Boot: the redundant binary environment.
    UbootBinary {
        /// Both copies.
        copies: [UbootEnvCopy; 2],
        /// Bytes of a copy.
        size_bytes: u32,
        /// Starts of an unproven slot before it is given up.
        tries: u8,
    },
    /// Slots that exist only in memory.
    Simulated {
        /// Starts of an unproven slot before it is given up.
        tries: u8,
    },
}

fn default_checks_chain() -> bool {
    true
}

/// A disk whose GPT holds slotted partitions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SlotDisk {
    /// The block device, such as `/dev/sda`.
    pub device: String,
    /// Its logical unit.
    pub lun: u8,
}

/// Where a copy of U-Boot's environment lies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UbootEnvCopy {
    /// Block device or file.
    pub device: String,
    /// Bytes from its start.
    pub offset_bytes: u64,
}

/// What the kernel is started with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// The kernel's device tree, below its folder of device trees; none where the machine brings its own.
    pub device_tree: Option<String>,
    /// The console, as the kernel's `console=` wants it.
    pub console: String,
    /// More of the kernel's command line.
    #[serde(default)]
    pub kernel_arguments: Vec<String>,
}

/// Ways in which a board is flashed; the first is the one to use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FlashMethod {
    /// A whole disk image, written to a file or block device.
    Disk,
    /// Android's fastboot over USB.
    Fastboot {
        /// USB vendor id.
        usb_vendor: u16,
        /// USB product id.
        usb_product: u16,
        /// How the owner brings the board into this mode.
        enter: String,
    },
    /// Qualcomm's emergency download: Sahara, then Firehose.
    Edl {
        /// USB vendor id.
        usb_vendor: u16,
        /// USB product id.
        usb_product: u16,
        /// How the owner brings the board into this mode.
        enter: String,
    },
}
