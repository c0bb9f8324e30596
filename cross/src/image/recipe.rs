//! What goes into a board's image, as values: Debian's packages, what of them stays out, drivers that the first program
//! needs. Knows boards and Debian's names; touches no file.

use edge_hal::Board;
use edge_hal::board::{PartitionConfig, PartitionContent};

use super::ImageError;

/// Debian's release of the image.
pub const SUITE: &str = "trixie";

/// Packages on top of Debian's essential ones, for all boards.
pub const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "libpam-systemd",
    "udev",
    "dbus",
    "kmod",
    "login",
    "passwd",
    "iproute2",
    // Makes the data partition's file system at the first start.
    "e2fsprogs",
    "dosfstools",
    "ca-certificates",
    "tzdata",
    // The owner's way in, where provisioning gave a key.
    "openssh-server",
    // Turnip for Adreno, and lavapipe.
    "mesa-vulkan-drivers",
    "libvulkan1",
];

/// The kernel, by its newest version in [`SUITE`].
pub const KERNEL: &str = "linux-image-arm64";

/// Paths of Debian's packages that no box needs, as prefixes from the root.
const NOT_ON_BOXES: &[&str] = &[
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/lintian/",
    "usr/share/bug/",
    "usr/share/zsh/",
    "usr/share/bash-completion/",
    "usr/share/gcc/",
    "usr/share/gdb/",
    "usr/share/perl5/debconf",
    "usr/share/i18n/",
    "usr/lib/aarch64-linux-gnu/gconv/",
    "usr/lib/apt/",
    "etc/apt/",
    // On the data partition, made by systemd-tmpfiles.
    "var/",
    // Made by the kernel and systemd.
    "dev/",
    "proc/",
    "sys/",
    "run/",
    "tmp/",
    "boot/",
];

/// Drivers for what no box has: sound, television, other makers' network cards and graphics.
const DRIVERS_NOT_ON_BOXES: &[&str] = &[
    "kernel/sound/",
    "kernel/drivers/accessibility/",
    "kernel/drivers/ata/",
    "kernel/drivers/bluetooth/",
    "kernel/drivers/gpu/drm/amd/",
    "kernel/drivers/gpu/drm/nouveau/",
    "kernel/drivers/gpu/drm/radeon/",
    "kernel/drivers/gpu/drm/xe/",
    "kernel/drivers/hid/",
    "kernel/drivers/iio/",
    "kernel/drivers/infiniband/",
    "kernel/drivers/input/joystick/",
    "kernel/drivers/isdn/",
    "kernel/drivers/media/",
    "kernel/drivers/mtd/",
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/wireless/",
    "kernel/drivers/net/wwan/",
    "kernel/drivers/net/can/",
    "kernel/drivers/net/dsa/",
    "kernel/drivers/scsi/",
    "kernel/drivers/staging/",
    "kernel/drivers/target/",
    "kernel/fs/btrfs/",
    "kernel/fs/xfs/",
    "kernel/fs/ocfs2/",
    "kernel/fs/gfs2/",
    "kernel/fs/jfs/",
    "kernel/fs/reiserfs/",
    "kernel/fs/f2fs/",
    "kernel/fs/ceph/",
    "kernel/fs/smb/",
    "kernel/fs/nfs/",
    "kernel/fs/nfsd/",
];

/// Of those, what boxes have all the same.
const DRIVERS_ON_BOXES: &[&str] = &[
    "kernel/drivers/net/wireless/ath/",
    "kernel/drivers/scsi/scsi_mod",
    "kernel/drivers/scsi/sd_mod",
    "kernel/drivers/scsi/scsi_common",
];

/// Which of Mesa's Vulkan drivers a board uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vulkan {
    /// On the processor.
    Lavapipe,
    /// On an Adreno.
    Turnip,
}

/// What goes into a board's image.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The board.
    pub board: String,
    /// Mesa's driver.
    pub vulkan: Vulkan,
    /// Drivers that the first program loads, with those that they need: what reads the disk and the root.
    pub boot_drivers: &'static [&'static str],
    /// The device tree, below the kernel's folder; none where the machine brings its own.
    pub device_tree: Option<String>,
    /// The kernel's command line, without what names the slot.
    pub kernel_arguments: String,
    /// Bytes of the root's partition.
    pub root_bytes: u64,
}

impl Recipe {
    /// What `board` needs.
    ///
    /// # Errors
    /// When the board file lacks what an image is made by.
    pub fn of(board: &Board) -> Result<Self, ImageError> {
        let missing = |missing| ImageError::NotDescribed {
            board: board.name.clone(),
            missing,
        };
        let boot = board.boot.as_ref().ok_or_else(|| missing("[boot]"))?;
        let root = partition(board, PartitionContent::Root);
        let root = root.ok_or_else(|| missing("partition for the root"))?;
        let device = board.rendering.as_ref();
        let device = device.map(|rendering| rendering.vulkan_device.as_str());
        let vulkan = match device {
            Some(name) if name.contains("Adreno") => Vulkan::Turnip,
            _ => Vulkan::Lavapipe,
        };
        let boot_drivers: &[&str] = match vulkan {
            Vulkan::Turnip => &["ufs_qcom", "sd_mod", "phy_qcom_qmp_ufs", "crc32c_generic", "erofs"],
            Vulkan::Lavapipe => &["virtio_pci", "virtio_mmio", "virtio_blk", "crc32c_generic", "erofs"],
        };
        let mut kernel_arguments = format!("console={} quiet panic=3", boot.console);
        for argument in &boot.kernel_arguments {
            kernel_arguments.push(' ');
            kernel_arguments.push_str(argument);
        }
        Ok(Self {
            board: board.name.clone(),
            vulkan,
            boot_drivers,
            device_tree: boot.device_tree.clone(),
            kernel_arguments,
            root_bytes: root.size_bytes,
        })
    }

    /// Whether a file of Debian's root, named from the root without a leading `/`, is left out.
    #[must_use]
    pub fn leaves_out(&self, path: &str) -> bool {
        let other_vulkan = match self.vulkan {
            Vulkan::Lavapipe => {
                path.starts_with("usr/lib/aarch64-linux-gnu/libvulkan_") && !path.contains("_lvp.")
                    || path.starts_with("usr/share/vulkan/icd.d/")
                        && !path.contains("/lvp_")
                        && !path.ends_with('/')
            }
            Vulkan::Turnip => {
                path.starts_with("usr/lib/aarch64-linux-gnu/libvulkan_")
                    && !path.contains("_freedreno.")
                    || path.starts_with("usr/share/vulkan/icd.d/") && !path.contains("/freedreno_") && !path.ends_with('/')
                    // Compiles shaders for the others; 130 MB.
                    || path.starts_with("usr/lib/aarch64-linux-gnu/libLLVM")
            }
        };
        other_vulkan
            || NOT_ON_BOXES
                .iter()
                .any(|prefix| path.starts_with(prefix) && path != *prefix)
    }

    /// Whether a driver, named from the folder of the kernel's version, is left out.
    #[must_use]
    pub fn leaves_out_driver(path: &str) -> bool {
        DRIVERS_NOT_ON_BOXES
            .iter()
            .any(|prefix| path.starts_with(prefix))
            && !DRIVERS_ON_BOXES
                .iter()
                .any(|prefix| path.starts_with(prefix))
    }
}

/// The board's partition for `content`.
#[must_use]
pub fn partition(board: &Board, content: PartitionContent) -> Option<&PartitionConfig> {
    let mut partitions = board.storage.partitions.iter();
    partitions.find(|partition| partition.content == content)
}
