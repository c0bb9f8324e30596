//! What goes into a board's image, as values: Debian's packages, what of them stays out, drivers that the first program
//! needs. Knows boards and Debian's names; touches no file.

use edge_hal::Board;
use edge_hal::board::{PartitionConfig, PartitionContent, SlotsConfig};

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
    // Compiled into hwdb.bin.
    "usr/lib/udev/hwdb.d/",
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

/// What starts on Debian and has nothing to do on a box, as prefixes from the root: each costs time at every start.
const NOT_STARTED_ON_BOXES: &[&str] = &[
    // Keys for SSH come from the drop-in of ssh.service.
    "etc/systemd/system/ssh.service.wants/sshd-keygen.service",
    "etc/systemd/system/multi-user.target.wants/e2scrub_reap.service",
    "etc/systemd/system/multi-user.target.wants/remote-fs.target",
    "etc/systemd/system/timers.target.wants/dpkg-db-backup.timer",
    "etc/systemd/system/timers.target.wants/e2scrub_all.timer",
    "usr/lib/systemd/system/sockets.target.wants/systemd-creds.socket",
    "usr/lib/systemd/system/sockets.target.wants/systemd-initctl.socket",
    "usr/lib/systemd/system/sockets.target.wants/systemd-pcr",
    "usr/lib/systemd/system/sockets.target.wants/systemd-sysext.socket",
    "usr/lib/systemd/system/sysinit.target.wants/dev-hugepages.mount",
    "usr/lib/systemd/system/sysinit.target.wants/ldconfig.service",
    "usr/lib/systemd/system/sysinit.target.wants/proc-sys-fs-binfmt_misc.automount",
    "usr/lib/systemd/system/sysinit.target.wants/sys-fs-fuse-connections.mount",
    "usr/lib/systemd/system/sysinit.target.wants/sys-kernel-config.mount",
    "usr/lib/systemd/system/sysinit.target.wants/sys-kernel-tracing.mount",
    "usr/lib/systemd/system/sysinit.target.wants/systemd-binfmt.service",
    "usr/lib/systemd/system/sysinit.target.wants/systemd-firstboot.service",
    "usr/lib/systemd/system/sysinit.target.wants/systemd-hibernate-clear.service",
    "usr/lib/systemd/system/sysinit.target.wants/systemd-hwdb-update.service",
    "usr/lib/systemd/system/sysinit.target.wants/systemd-journal-catalog-update.service",
    "usr/lib/systemd/system/sysinit.target.wants/systemd-pcr",
    "usr/lib/systemd/system/sysinit.target.wants/systemd-tpm2-",
    "usr/lib/systemd/system/sysinit.target.wants/systemd-update-done.service",
    "usr/lib/systemd/system-generators/systemd-debug-generator",
    "usr/lib/systemd/system-generators/systemd-gpt-auto-generator",
    "usr/lib/systemd/system-generators/systemd-hibernate-resume-generator",
    "usr/lib/systemd/system-generators/systemd-rc-local-generator",
    "usr/lib/systemd/system-generators/systemd-run-generator",
    "usr/lib/systemd/system-generators/systemd-ssh-generator",
    "usr/lib/systemd/system-generators/systemd-system-update-generator",
    "usr/lib/systemd/system-generators/systemd-sysv-generator",
    "usr/lib/systemd/system-generators/systemd-tpm2-generator",
    // udev asks each rule about each device.
    "usr/lib/udev/rules.d/60-cdrom_id.rules",
    "usr/lib/udev/rules.d/60-evdev.rules",
    "usr/lib/udev/rules.d/60-fido-id.rules",
    "usr/lib/udev/rules.d/60-infiniband.rules",
    "usr/lib/udev/rules.d/60-input-id.rules",
    "usr/lib/udev/rules.d/60-persistent-alsa.rules",
    "usr/lib/udev/rules.d/60-persistent-input.rules",
    "usr/lib/udev/rules.d/60-persistent-storage-",
    "usr/lib/udev/rules.d/60-persistent-v4l.rules",
    "usr/lib/udev/rules.d/60-sensor.rules",
    "usr/lib/udev/rules.d/64-btrfs.rules",
    "usr/lib/udev/rules.d/70-",
    "usr/lib/udev/rules.d/71-seat.rules",
    "usr/lib/udev/rules.d/73-seat-late.rules",
    "usr/lib/udev/rules.d/75-probe_mtd.rules",
    "usr/lib/udev/rules.d/78-sound-card.rules",
    "usr/lib/udev/rules.d/90-iocost.rules",
    "usr/lib/udev/rules.d/96-e2scrub.rules",
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

/// What the first program loads to read the root on the 865's UFS: drivers that need each other's hardware without naming
/// each other come one by one (clocks, pins, regulators, the shared memory that they go by), as the supplies and clocks of
/// `ufs_mem_hc` and `ufs_mem_phy` in sm8250.dtsi say.
const DRIVERS_OF_UFS: &[&str] = &[
    "qcom_hwspinlock",
    "smem",
    "gcc_sm8250",
    "pinctrl_sm8250",
    "qcom_rpmh_regulator",
    "phy_qcom_qmp_ufs",
    "ufs_qcom",
    "sd_mod",
    "crc32c_generic",
    "erofs",
];

/// The same for QEMU's disk.
const DRIVERS_OF_VIRTIO: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "crc32c_generic",
    "erofs",
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
    /// U-Boot starts it, and keeps its record of the slots on a partition of the disk.
    pub is_started_by_u_boot: bool,
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
        let boot_drivers = match vulkan {
            Vulkan::Turnip => DRIVERS_OF_UFS,
            Vulkan::Lavapipe => DRIVERS_OF_VIRTIO,
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
            is_started_by_u_boot: matches!(board.slots, Some(SlotsConfig::UbootText { .. })),
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
        let is_below = |folder: &&str| path.starts_with(folder) && path != *folder;
        other_vulkan
            || NOT_ON_BOXES.iter().any(is_below)
            || NOT_STARTED_ON_BOXES
                .iter()
                .any(|prefix| path.starts_with(prefix))
    }

    /// Whether a driver, or a folder of them with a `/` at its end, is left out. Named from the folder of the kernel's
    /// version.
    #[must_use]
    pub fn leaves_out_driver(path: &str) -> bool {
        let is_in = |list: &[&str]| list.iter().any(|prefix| path.starts_with(prefix));
        let holds_some =
            path.ends_with('/') && DRIVERS_ON_BOXES.iter().any(|kept| kept.starts_with(path));
        is_in(DRIVERS_NOT_ON_BOXES) && !is_in(DRIVERS_ON_BOXES) && !holds_some
    }
}

/// The board's partition for `content`.
#[must_use]
pub fn partition(board: &Board, content: PartitionContent) -> Option<&PartitionConfig> {
    let mut partitions = board.storage.partitions.iter();
    partitions.find(|partition| partition.content == content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_where_a_driver_in_it_does() {
        for (path, is_left_out) in [
            ("kernel/drivers/scsi/", false),
            ("kernel/drivers/scsi/sd_mod.ko.xz", false),
            ("kernel/drivers/scsi/st.ko.xz", true),
            ("kernel/drivers/scsi/qla2xxx/", true),
            ("kernel/drivers/net/wireless/", false),
            ("kernel/drivers/net/wireless/ath/ath11k/ath11k.ko.xz", false),
            ("kernel/drivers/net/wireless/intel/", true),
            ("kernel/drivers/net/virtio_net.ko.xz", false),
            ("kernel/drivers/ufs/", false),
        ] {
            assert_eq!(Recipe::leaves_out_driver(path), is_left_out, "{path}");
        }
    }
}
