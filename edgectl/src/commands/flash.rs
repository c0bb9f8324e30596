//! `edgectl flash`: an image onto a file, a disk or a board.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use edge_hal::Board;
use serde::Serialize;

use crate::{
    exit::Exit,
    flash::{
        blocks::Blocks,
        bundle::{self, Bundle, Part},
        fastboot::{
            client::{Client, Waits},
            job::{self, Flashed, JobError, Wishes},
            tcp::Tcp,
            transport::Transport,
            usb::{self, ListedBoard, Usb},
        },
        guard,
        medium::FileMedium,
        plan::{self, BoardPlan, DiskPlan, ImagePlan, ListedDisk, WritePlan, WriteReport},
        progress::Progress,
        source::Source,
        stop::Stop,
        target::{FastbootAddress, Target},
        write::{self, WriteError},
    },
};

/// How long a board is given before it is spoken to again; at the second attempt twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// Arguments of `edgectl flash`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  What is attached?
    edgectl flash --list

  Write an image to a card or disk, after a look at the plan:
    edgectl flash --image qemu-virt.img.zst --to /dev/sdX --dry-run
    sudo edgectl flash --image qemu-virt.img.zst --to /dev/sdX

  Make a disk for an emulator, without questions:
    edgectl flash --image qemu-virt.img.zst --to box.img --yes

  Flash a board that is in fastboot mode, on USB or on the network:
    edgectl flash --image qrb5165-rb5/ --to fastboot --reboot
    edgectl flash --image boot.img --partition boot_a --to fastboot:tcp:192.168.1.20

The image may be compressed (zstd, xz, gzip) and may be an Android sparse image; its first bytes
tell. Where IMAGE.sha256 lies beside it, the image must match. Blocks that are on the target
already are left alone, all others are read back. The first MiB, which holds the partition table,
is wiped first and written last, so that nothing starts from a half-written disk. A run that was
stopped, by Ctrl-C or by a power cut, is simply repeated and goes on where it stopped.

A bundle is a folder, or a tar of one, with flash.toml (see docs/flashing.md). Fastboot cannot read
back: the report says what the board acknowledged. What is cut off is sent again by itself, twice.

--json prints one JSON object at the end: `outcome` is `done`, `planned`, `stopped` or `failed`,
`error` says why it failed. Exit code 0 means done; 1 that writing failed or was stopped; 2 that
nothing was written because image or target cannot be used; 3 that the board was not reached.")]
pub struct FlashArgs {
    /// The image file, or the folder or tar of a bundle.
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    image: Option<PathBuf>,

    /// Where it goes: a file, a block device such as /dev/sdX, fastboot[:SERIAL] or fastboot:tcp:HOST[:PORT].
    #[arg(long, value_name = "TARGET", required_unless_present = "list")]
    to: Option<Target>,

    /// The board's partition, for an image that is no bundle.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,

    /// Start the board anew when all is flashed.
    #[arg(long)]
    reboot: bool,

    /// Show what is attached, and do nothing.
    #[arg(long, conflicts_with_all = ["image", "to", "partition", "reboot", "dry_run", "yes"])]
    list: bool,

    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,

    /// Overwrite without asking.
    #[arg(long, short)]
    yes: bool,

    /// Print one JSON object to standard output; what people read goes to standard error.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    plan: Option<Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<WriteReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<Flashed>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Plan {
    Disk(WritePlan),
    Board(BoardPlan),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Done,
    Planned,
    Stopped,
    Failed,
}

#[derive(Debug, Serialize)]
struct Listing {
    disks: Vec<ListedDisk>,
    boards: Vec<ListedBoard>,
}

/// Flashes, or shows what could be.
///
/// # Errors
/// Whatever kept the image from its target.
pub fn run(args: &FlashArgs) -> anyhow::Result<Exit> {
    if args.list {
        return list(args.json);
    }
    let (Some(image), Some(target)) = (&args.image, &args.to) else {
        bail!("name an image and a target");
    };
    let mut report = Report {
        outcome: Outcome::Failed,
        error: None,
        plan: None,
        written: None,
        acknowledged: None,
    };
    let done = match target {
        Target::Disk(path) => to_disk(args, image, path, &mut report),
        Target::Fastboot(address) => to_board(args, image, address, &mut report),
    };
    if let Err(error) = &done {
        report.error = Some(format!("{error:#}"));
        let stopped = matches!(error.downcast_ref(), Some(WriteError::Stopped { .. }))
            || matches!(error.downcast_ref(), Some(JobError::Stopped { .. }));
        if stopped {
            report.outcome = Outcome::Stopped;
        }
    }
    if args.json {
        let json = serde_json::to_string(&report).context("cannot write the report")?;
        print(&format!("{json}\n"))?;
    }
    done.map(|()| Exit::Done)
}

fn list(json: bool) -> anyhow::Result<Exit> {
    let list = Listing {
        disks: plan::list(&Blocks::read(Path::new("/"))?),
        boards: usb::list()?,
    };
    if json {
        let json = serde_json::to_string(&list).context("cannot write the list")?;
        print(&format!("{json}\n"))?;
    } else {
        print(&plan::disks_table(&list.disks))?;
        print(&plan::boards_table(&list.boards))?;
    }
    Ok(Exit::Done)
}

fn to_disk(
    args: &FlashArgs,
    image: &Path,
    target: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let stop = Stop::on_signals().context("cannot catch Ctrl-C")?;
    let blocks = Blocks::read(Path::new("/"))?;
    guard::check(&blocks, target)?;
    if Bundle::is_at(image)? {
        return Err(Mismatch::BundleToDisk.into());
    }
    if args.partition.is_some() || args.reboot {
        return Err(Mismatch::BoardOnly.into());
    }
    let source = Source::open(image)?;
    let plan = WritePlan {
        image: ImagePlan::from(source.facts()),
        target: examine(&blocks, target)?,
    };
    if let (Some(image), DiskPlan::BlockDevice { size_bytes, .. }) =
        (plan.image.image_bytes, &plan.target)
        && image > *size_bytes
    {
        return Err(WriteError::TooLarge {
            target: target.display().to_string(),
            image,
            capacity: *size_bytes,
        }
        .into());
    }
    show(args.json, &plan.table())?;
    let overwrites = plan.target.overwrites();
    let question = format!("All that is on {} will be lost.", plan.target.describe());
    report.plan = Some(Plan::Disk(plan));
    if args.dry_run {
        report.outcome = Outcome::Planned;
        return Ok(());
    }
    if overwrites && !args.yes {
        confirm(&question)?;
    }
    let started = Instant::now();
    let medium = FileMedium::open(target, image)?;
    let progress = Progress::on_terminal();
    let written = write::write(source, &medium, &progress, &stop);
    progress.end();
    let written = WriteReport::new(&written?, started.elapsed().as_secs_f64());
    show(args.json, &written.table())?;
    report.written = Some(written);
    report.outcome = Outcome::Done;
    Ok(())
}

fn to_board(
    args: &FlashArgs,
    image: &Path,
    address: &FastbootAddress,
    report: &mut Report,
) -> anyhow::Result<()> {
    let stop = Stop::on_signals().context("cannot catch Ctrl-C")?;
    let progress = Progress::on_terminal();
    let read = read_parts(args, image, &progress);
    progress.end();
    let (board, active_slot, parts) = read?;
    let plan = BoardPlan::new(address, board.as_ref(), active_slot.as_deref(), &parts);
    show(args.json, &plan.table())?;
    report.plan = Some(Plan::Board(plan));
    if args.dry_run {
        report.outcome = Outcome::Planned;
        return Ok(());
    }
    if !args.yes {
        confirm(&format!(
            "What is on these partitions of {address} will be lost."
        ))?;
    }
    let mut transport: Box<dyn Transport> = match address {
        FastbootAddress::Usb { serial } => Box::new(Usb::open(serial.as_deref())?),
        FastbootAddress::Tcp { host, port } => {
            Box::new(Tcp::connect(host, *port, address.to_string())?)
        }
    };
    let says = |line: &str| progress.say(&format!("(board) {line}"));
    let mut client = Client::new(transport.as_mut(), &says, Waits::default());
    let wishes = Wishes {
        active_slot,
        reboot: args.reboot,
        pause: PAUSE,
    };
    let started = Instant::now();
    let flashed = job::flash(&mut client, &parts, &wishes, &progress, &stop);
    progress.end();
    let flashed = flashed?;
    show(
        args.json,
        &plan::flashed_table(&flashed, started.elapsed().as_secs_f64()),
    )?;
    report.acknowledged = Some(flashed);
    report.outcome = Outcome::Done;
    Ok(())
}

/// The board that the image is for, the slot that starts next, and the partitions, all checked.
#[allow(clippy::type_complexity, reason = "taken apart by its only caller")]
fn read_parts(
    args: &FlashArgs,
    image: &Path,
    progress: &Progress,
) -> anyhow::Result<(Option<Board>, Option<String>, Vec<Part>)> {
    match (&args.partition, Bundle::is_at(image)?) {
        (Some(_), true) => Err(Mismatch::PartitionOfBundle.into()),
        (None, false) => Err(Mismatch::NoPartition.into()),
        (Some(name), false) => Ok((None, None, vec![bundle::single(image, name, progress)?])),
        (None, true) => {
            let bundle = Bundle::open(image, progress)?;
            Ok((Some(bundle.board), bundle.active_slot, bundle.parts))
        }
    }
}

/// Image, target and flags that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// A bundle to a disk.
    #[error(
        "the image is a bundle of partitions, which goes to a board (--to fastboot), not to a file or disk"
    )]
    BundleToDisk,
    /// A disk image to a board.
    #[error(
        "the image is no bundle; name the board's partition that it belongs on: --partition NAME"
    )]
    NoPartition,
    /// A partition for a bundle.
    #[error("the image is a bundle, which names its partitions itself; leave --partition out")]
    PartitionOfBundle,
    /// Flags of boards for a disk.
    #[error("--partition and --reboot are for boards; leave them out for a file or disk")]
    BoardOnly,
}

/// What is known of a target.
fn examine(blocks: &Blocks, target: &Path) -> anyhow::Result<DiskPlan> {
    let path = target.display().to_string();
    let metadata = match fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let present_bytes = None;
            return Ok(DiskPlan::File {
                path,
                present_bytes,
            });
        }
        other => other.with_context(|| format!("cannot examine {path}"))?,
    };
    if !metadata.file_type().is_block_device() {
        let present_bytes = Some(metadata.len());
        return Ok(DiskPlan::File {
            path,
            present_bytes,
        });
    }
    let number = guard::number_of(&metadata);
    let (disk, node) = blocks
        .find(number)
        .with_context(|| format!("{path} went away"))?;
    Ok(DiskPlan::BlockDevice {
        path,
        size_bytes: node.size_bytes,
        model: disk.model.clone(),
        removable: disk.removable,
    })
}

/// Nobody said yes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotConfirmed(String);

/// Asks the person at the terminal.
fn confirm(question: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        return Err(
            NotConfirmed(format!("{question} Repeat the command with --yes to go on")).into(),
        );
    }
    eprint!("{question} Type yes to go on: ");
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    if answer.trim() != "yes" {
        return Err(NotConfirmed("not confirmed; nothing was written".to_owned()).into());
    }
    Ok(())
}

/// Shows something to people: on standard output, unless that is a program's.
fn show(json: bool, text: &str) -> anyhow::Result<()> {
    if json {
        eprint!("{text}");
        return Ok(());
    }
    print(text)
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")
}
