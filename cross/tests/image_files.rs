//! Images, judged by tools that others wrote, and made twice.
//!
//! Run by `cargo xtask test --only qemu`, which makes the image of the emulated board and names it in `EDGE_IMAGE`.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cross::cache::Cache;
use cross::image::{self, Image};
use cross::processes::{self, Process};
use cross::{setup, shell};
use edge_hal::Board;

fn tool(program: &str, arguments: &[&str]) -> String {
    shell::output(Command::new(program).args(arguments))
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn made_image() -> PathBuf {
    let path = std::env::var_os("EDGE_IMAGE").map(PathBuf::from);
    path.expect("EDGE_IMAGE names no image: run `cargo xtask test --only qemu`, which makes one")
}

/// Flashes the folder as its owner would; the board then holds in both slots what is in the files.
fn flashes_onto_a_simulated_board(image: &Path, scratch: &Path) {
    let edgectl = support::programs().join("edgectl");
    let [port] = processes::free_ports().expect("a port");
    let partitions = scratch.join("board");
    let address = format!("127.0.0.1:{port}");
    let arguments = [
        "sim-fastboot",
        "--board",
        "qrb5165-rb5",
        "--listen",
        &address,
        "--folder",
        text(&partitions),
    ];
    let mut board = Process::start("board", &edgectl, arguments, scratch).expect("a board");
    board
        .wait_until("it listens", support::PATIENCE, || processes::is_open(port))
        .expect("a board");
    let target = format!("fastboot:tcp:{address}");
    tool(
        text(&edgectl),
        &["flash", "--yes", "--image", text(image), "--to", &target],
    );
    board.kill().expect("switched off");
    for slot in ["a", "b"] {
        let boot = partitions.join(format!("boot_{slot}.img"));
        let length = fs::metadata(image.join("boot.img")).expect("a file").len();
        let limit = format!("--bytes={length}");
        tool("cmp", &[&limit, text(&image.join("boot.img")), text(&boot)]);
        tool(
            "fsck.erofs",
            &[text(&partitions.join(format!("root_{slot}.img")))],
        );
    }
}

/// The commands of a section of docs/flashing.md that people type.
fn commands(section: &str) -> String {
    let page = cross::repository().join("docs/flashing.md");
    let page = fs::read_to_string(page).expect("the page");
    let part = page.split("\n## ").find(|part| part.starts_with(section));
    let part = part.unwrap_or_else(|| panic!("no section {section}"));
    let lines = part.lines().filter_map(|line| line.strip_prefix("$ "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Types them in the repository, with a folder of ours for `images`.
fn type_commands(section: &str, folder: &Path) {
    let commands = commands(section);
    assert!(commands.contains("cargo xtask image"), "{commands}");
    let script = commands.replace(" images", &format!(" {}", text(folder)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = vec![support::programs()];
    paths.extend(std::env::split_paths(&path));
    let mut shell = Command::new("sh");
    shell
        .args(["-euxc", &script])
        .current_dir(cross::repository())
        .env("PATH", std::env::join_paths(paths).expect("a path"));
    let output = shell.output().expect("a shell");
    let told = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{printed}");
    println!("{printed}");
}

/// Makes the image of a board in `folder`.
fn make(board: &str, folder: &Path) -> Image {
    let cache = Cache::from_env().expect("a cache folder");
    let library = setup::for_image(&cache, None).expect("Rust's library");
    let board = Board::builtin(board).expect("the board");
    image::run(&cache, &board, &library, folder).expect("an image")
}

/// A disk's size in the EDL tests: not the one that the image was made for.
const UFS_BYTES: u64 = 100 << 30;
/// UFS sectors.
const SECTOR: u64 = 4096;

/// Does to `disk` what an EDL tool does: writes the files of `rawprogram0.xml`, then corrects what `patch0.xml` says.
/// Sparse files are left out, since their content is judged elsewhere.
fn play_edl(folder: &Path, disk: &Path) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(disk);
    let disk = file.expect("a disk");
    disk.set_len(UFS_BYTES).expect("a size");
    let sectors = UFS_BYTES / SECTOR;
    let number = |text: &str| match text.strip_prefix("NUM_DISK_SECTORS-") {
        Some(back) => sectors - back.trim_end_matches('.').parse::<u64>().expect("a number"),
        None => text.parse().expect("a number"),
    };
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("the XML");
    for line in read("rawprogram0.xml")
        .lines()
        .filter(|line| line.contains("<program "))
    {
        let bytes = fs::read(folder.join(attribute(line, "filename"))).expect("a file");
        let room = number(attribute(line, "num_partition_sectors")) * SECTOR;
        if attribute(line, "sparse") == "false" {
            assert!(bytes.len() as u64 <= room, "{line}");
            let place = number(attribute(line, "start_sector")) * SECTOR;
            disk.write_all_at(&bytes, place).expect("written");
        }
    }
    for line in read("patch0.xml")
        .lines()
        .filter(|line| line.contains("<patch "))
    {
        let value = attribute(line, "value");
        let crc = value
            .strip_prefix("CRC32(")
            .and_then(|rest| rest.strip_suffix(')'));
        let value = match crc.map(|rest| rest.split_once(',').expect("two numbers")) {
            Some((start, length)) => {
                let mut bytes = vec![0; length.parse().expect("a number")];
                disk.read_exact_at(&mut bytes, number(start) * SECTOR)
                    .expect("read");
                u64::from(crc32fast::hash(&bytes))
            }
            None => number(value),
        };
        let size: usize = attribute(line, "size_in_bytes").parse().expect("a number");
        let place = number(attribute(line, "start_sector")) * SECTOR
            + number(attribute(line, "byte_offset"));
        let bytes = value.to_le_bytes();
        disk.write_all_at(bytes.get(..size).expect("at most 8"), place)
            .expect("written");
    }
}

fn attribute<'a>(line: &'a str, name: &str) -> &'a str {
    let begins = format!(" {name}=\"");
    let rest = line.split_once(&begins).map(|(_, rest)| rest);
    let value = rest
        .and_then(|rest| rest.split_once('"'))
        .map(|(value, _)| value);
    value.unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// fdisk's verdict on a disk with sectors of 4,096 bytes, which sgdisk takes from devices only.
fn judged_by_fdisk(disk: &Path) -> String {
    let mut fdisk = Command::new(shell::which("fdisk").expect("fdisk"));
    fdisk.args(["--sector-size", "4096"]).arg(disk);
    let pipes = fdisk
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("fdisk");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(b"p\nv\nq\n").expect("told");
    drop(stdin);
    let output = child.wait_with_output().expect("its verdict");
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn the_disk_of_the_emulated_board_is_one_that_others_accept_and_comes_out_the_same_twice() {
    let image = made_image();
    let judged = tool("sgdisk", &["-v", text(&image)]);
    assert!(judged.contains("No problems found"), "{judged}");
    let folder = image.parent().expect("a folder");
    let root = folder.join("qemu-virt.root");
    tool("fsck.erofs", &[text(&root)]);
    let packages = fs::read_to_string(folder.join("qemu-virt.packages")).expect("the list");
    for package in [
        "systemd\t",
        "mesa-vulkan-drivers:arm64\t",
        "openssh-server\t",
    ] {
        assert!(packages.contains(package), "{package} is not in {packages}");
    }

    let elsewhere = tempfile::tempdir_in(folder).expect("a folder");
    type_commands("An emulated box", elsewhere.path());
    let again = elsewhere.path().join("qemu-virt.img");
    tool("cmp", &[text(&image), text(&again)]);
}

#[test]
fn the_files_of_the_rb5_are_ones_that_others_accept_and_come_out_the_same_twice() {
    let folder = made_image().parent().expect("a folder").to_owned();
    let image = make("qrb5165-rb5", &folder);
    let scratch = tempfile::tempdir_in(&folder).expect("a folder");
    let scratch = scratch.path();
    let file = |name: &str| image.path.join(name);

    // Kernel with the device tree behind it, and the initramfs.
    let [boot, unpacked] = [file("boot.img"), scratch.join("boot")];
    let arguments = ["--boot_img", text(&boot), "--out", text(&unpacked)];
    let told = tool("unpack_bootimg", &arguments);
    assert!(told.contains("console=ttyMSM0"), "{told}");
    let kernel = fs::read(unpacked.join("kernel")).expect("the kernel");
    assert!(kernel.starts_with(&[0x1f, 0x8b]), "gzip, as ABL takes it");
    let tree = [0xd0, 0x0d, 0xfe, 0xed];
    let place = kernel.windows(4).rposition(|window| window == tree);
    let tree = place
        .and_then(|place| kernel.get(place..))
        .expect("a device tree");
    let has = |text: &str| tree.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("qcom,qrb5165-rb5"), "the board's device tree");
    tool(
        "zstd",
        &["--test", "--quiet", text(&unpacked.join("ramdisk"))],
    );

    let root = scratch.join("root");
    tool("simg2img", &[text(&file("root.img")), text(&root)]);
    tool("fsck.erofs", &[text(&root)]);
    tool("fsck.fat", &["-n", text(&file("provisioning.img"))]);

    let disk = scratch.join("disk");
    play_edl(&image.path, &disk);
    let judged = judged_by_fdisk(&disk);
    assert!(judged.contains("No errors detected"), "{judged}");
    let rows = judged.lines().filter(|line| line.starts_with(text(&disk)));
    assert_eq!(rows.count(), 4, "{judged}");

    flashes_onto_a_simulated_board(&image.path, scratch);

    type_commands("A Robotics RB5", scratch);
    assert_eq!(image.files.len(), 9, "{:?}", image.files);
    for (path, _) in &image.files {
        let name = path.strip_prefix(&folder).expect("below the folder");
        // That one was provisioned.
        if !name.ends_with("provisioning.img") {
            tool("cmp", &[text(path), text(&scratch.join(name))]);
        }
    }
}

#[test]
#[ignore = "needs root and a loop device: sgdisk takes sectors of 4,096 bytes from devices only"]
fn the_table_of_the_rb5_is_one_that_sgdisk_accepts() {
    let folder = made_image().parent().expect("a folder").to_owned();
    let scratch = tempfile::tempdir_in(&folder).expect("a folder");
    let disk = scratch.path().join("disk");
    play_edl(&folder.join("qrb5165-rb5"), &disk);
    let arguments = ["--find", "--show", "--sector-size", "4096", text(&disk)];
    let device = tool("losetup", &arguments);
    let device = device.trim();
    let judged = shell::output(Command::new("sgdisk").args(["-v", device]));
    tool("losetup", &["--detach", device]);
    let judged = judged.expect("a verdict");
    assert!(judged.contains("No problems found"), "{judged}");
}
