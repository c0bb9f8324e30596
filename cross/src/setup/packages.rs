//! Debian packages: which are missing, and why we want them.

use std::process::Command;

use crate::shell::{self, CommandError};

/// What a package is for; each purpose needs those before it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Building and showing the product.
    Demo,
    /// Building it for boxes.
    Build,
    /// Making images of boxes, and starting them emulated.
    Image,
    /// Testing it.
    Test,
}

struct Package {
    name: &'static str,
    /// A program out of it, by which we find it on systems other than Debian.
    program: &'static str,
    purpose: Purpose,
    why: &'static str,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "gcc",
        program: "gcc",
        purpose: Purpose::Demo,
        why: "links Rust programs, compiles SQLite",
    },
    Package {
        name: "libc6-dev",
        program: "gcc",
        purpose: Purpose::Demo,
        why: "the C library that they link to",
    },
    Package {
        name: "python3-venv",
        program: "python3",
        purpose: Purpose::Demo,
        why: "pip, which fetches ONNX Runtime",
    },
    Package {
        name: "util-linux",
        program: "setpriv",
        purpose: Purpose::Demo,
        why: "setpriv, so that no process outlives the demo",
    },
    Package {
        name: "gcc-aarch64-linux-gnu",
        program: "aarch64-linux-gnu-gcc",
        purpose: Purpose::Build,
        why: "links programs for boxes",
    },
    Package {
        name: "libc6-dev-arm64-cross",
        program: "aarch64-linux-gnu-gcc",
        purpose: Purpose::Build,
        why: "the C library that they link to",
    },
    Package {
        name: "xz-utils",
        program: "xz",
        purpose: Purpose::Build,
        why: "unpacks Rust's source",
    },
    Package {
        name: "mmdebstrap",
        program: "mmdebstrap",
        purpose: Purpose::Image,
        why: "makes a root file system of Debian's packages",
    },
    Package {
        name: "fakeroot",
        program: "fakeroot",
        purpose: Purpose::Image,
        why: "keeps owners of files without being root",
    },
    Package {
        name: "erofs-utils",
        program: "mkfs.erofs",
        purpose: Purpose::Image,
        why: "makes and checks the read-only root",
    },
    Package {
        name: "kmod",
        program: "depmod",
        purpose: Purpose::Image,
        why: "lists what drivers need",
    },
    Package {
        name: "u-boot-tools",
        program: "mkimage",
        purpose: Purpose::Image,
        why: "packs U-Boot's script",
    },
    Package {
        name: "mkbootimg",
        program: "mkbootimg",
        purpose: Purpose::Image,
        why: "packs kernels for Qualcomm's boot loader",
    },
    Package {
        name: "android-sdk-libsparse-utils",
        program: "img2simg",
        purpose: Purpose::Image,
        why: "makes images for fastboot",
    },
    Package {
        name: "zstd",
        program: "zstd",
        purpose: Purpose::Image,
        why: "packs the first program",
    },
    Package {
        name: "qemu-system-arm",
        program: "qemu-system-aarch64",
        purpose: Purpose::Image,
        why: "the emulated board",
    },
    Package {
        name: "openssh-client",
        program: "ssh",
        purpose: Purpose::Image,
        why: "looks into the emulated board",
    },
    Package {
        name: "g++",
        program: "g++",
        purpose: Purpose::Test,
        why: "compiles libFuzzer under the fuzz targets",
    },
    Package {
        name: "libvulkan1",
        program: "vulkaninfo",
        purpose: Purpose::Test,
        why: "finds Vulkan's drivers",
    },
    Package {
        name: "mesa-vulkan-drivers",
        program: "vulkaninfo",
        purpose: Purpose::Test,
        why: "a Vulkan device on the processor",
    },
    Package {
        name: "mosquitto",
        program: "mosquitto",
        purpose: Purpose::Test,
        why: "the broker most people run, to test against",
    },
    Package {
        name: "mosquitto-clients",
        program: "mosquitto_rr",
        purpose: Purpose::Test,
        why: "a sensor that is not ours, to test with",
    },
    Package {
        name: "openssl",
        program: "openssl",
        purpose: Purpose::Test,
        why: "reads the certificates that we write",
    },
    Package {
        name: "swtpm",
        program: "swtpm",
        purpose: Purpose::Test,
        why: "a TPM in software, for the box's key",
    },
    Package {
        name: "gdisk",
        program: "sgdisk",
        purpose: Purpose::Test,
        why: "makes and checks partition tables",
    },
    Package {
        name: "fdisk",
        program: "fdisk",
        purpose: Purpose::Test,
        why: "checks tables with sectors of 4,096 bytes",
    },
    Package {
        name: "dosfstools",
        program: "fsck.fat",
        purpose: Purpose::Test,
        why: "makes and checks FAT file systems",
    },
    Package {
        name: "libubootenv-tool",
        program: "fw_printenv",
        purpose: Purpose::Test,
        why: "reads and writes U-Boot's environment",
    },
    Package {
        name: "zstd",
        program: "zstd",
        purpose: Purpose::Test,
        why: "packs images, to flash them packed",
    },
    Package {
        name: "fastboot",
        program: "fastboot",
        purpose: Purpose::Test,
        why: "checks the simulated board in fastboot mode",
    },
    Package {
        name: "android-sdk-libsparse-utils",
        program: "simg2img",
        purpose: Purpose::Test,
        why: "makes and checks Android sparse images",
    },
    Package {
        name: "qemu-system-arm",
        program: "qemu-system-arm",
        purpose: Purpose::Test,
        why: "a microcontroller to run a sensor's firmware in",
    },
    Package {
        name: "systemd",
        program: "systemd-analyze",
        purpose: Purpose::Test,
        why: "judges the agent's unit",
    },
];

/// Packages that are missing and could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// Not Debian, so we do not know what the packages are called.
    #[error(
        "this system has no dpkg, so set-up cannot install what is missing here; install what \
         holds these programs (Debian's package in brackets) and run it again: {programs}"
    )]
    NotDebian {
        /// `program (package)`, separated by commas.
        programs: String,
    },
    /// Neither root nor able to become it.
    #[error(
        "no sudo here to install what is missing with; run as root: apt-get install {packages}"
    )]
    NotRoot {
        /// Separated by spaces.
        packages: String,
    },
    /// apt said no.
    #[error("could not install Debian packages")]
    Install(#[from] CommandError),
}

/// Installs what is missing for `purpose`.
///
/// # Errors
/// When it cannot; the message tells the user what to install by hand.
pub fn ensure(purpose: Purpose) -> Result<(), PackagesError> {
    let wanted = PACKAGES.iter().filter(|package| package.purpose <= purpose);
    if shell::which("dpkg-query").is_none() {
        let missing: Vec<String> = wanted
            .filter(|package| shell::which(package.program).is_none())
            .map(|package| format!("{} ({})", package.program, package.name))
            .collect();
        return if missing.is_empty() {
            Ok(())
        } else {
            Err(PackagesError::NotDebian {
                programs: missing.join(", "),
            })
        };
    }
    let missing: Vec<&Package> = wanted
        .filter(|package| !is_installed(package.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Debian packages that are missing here:");
    for package in &missing {
        eprintln!("  {:18} {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let as_root = root_prefix(&names)?;
    shell::step(&format!("install {}", names.join(" ")), || {
        install(&as_root, &names)
    })?;
    if names.contains(&"mosquitto") {
        keep_port_free(&as_root);
    }
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    shell::output(&mut query).is_ok_and(|status| status == "installed")
}

/// Nothing for root, `sudo` (asked for its password once, in plain sight) for others.
fn root_prefix(names: &[&str]) -> Result<Vec<&'static str>, PackagesError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(vec![]);
    }
    if shell::which("sudo").is_none() {
        return Err(PackagesError::NotRoot {
            packages: names.join(" "),
        });
    }
    shell::visibly(Command::new("sudo").arg("--validate"))?;
    Ok(vec!["sudo"])
}

fn root_command(as_root: &[&str], words: &[&str]) -> Command {
    let mut words = as_root.iter().chain(words);
    let mut command = Command::new(words.next().copied().unwrap_or("true"));
    command.args(words);
    command
}

fn install(as_root: &[&str], names: &[&str]) -> Result<(), CommandError> {
    let apt = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "--quiet",
        "--yes",
    ];
    let install = [&apt[..], &["--no-install-recommends", "install"], names].concat();
    if shell::output(&mut root_command(as_root, &install)).is_ok() {
        return Ok(());
    }
    // A fresh system has no package lists, an old one has stale ones.
    shell::output(&mut root_command(
        as_root,
        &[&apt[..], &["update"]].concat(),
    ))?;
    shell::output(&mut root_command(as_root, &install)).map(|_| ())
}

/// Debian starts a broker on port 1883 with the package. We wanted the program, not the service.
fn keep_port_free(as_root: &[&str]) {
    if shell::which("systemctl").is_none() {
        return;
    }
    let disable = ["systemctl", "disable", "--now", "mosquitto.service"];
    match shell::output(&mut root_command(as_root, &disable)) {
        Ok(_) => eprintln!("  mosquitto's own service is off; to have it: systemctl enable --now"),
        Err(error) => eprintln!("  mosquitto's own service may be running: {error}"),
    }
}
