//! `edgectl sim-fastboot`: plays a board in fastboot mode.

use std::{collections::BTreeMap, fs, io::Write as _, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use edge_hal::Board;

use crate::{
    exit::Exit,
    flash::{
        bundle,
        fastboot::sim::{SimBoard, SimFastboot},
    },
};

/// Arguments of `edgectl sim-fastboot`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  edgectl sim-fastboot --board qrb5165-rb5 --folder board/ --listen 127.0.0.1:5554 &
  edgectl flash --image qrb5165-rb5/ --to fastboot:tcp:127.0.0.1 --yes

It prints where it listens and runs until it is ended. Partitions have the names and sizes of the
board's file; what is flashed to NAME is in FOLDER/NAME.img. Debian's `fastboot -s
tcp:127.0.0.1:5554` can speak to it too.")]
pub struct SimFastbootArgs {
    /// The board to play.
    #[arg(long, value_name = "BOARD", default_value = "qrb5165-rb5")]
    board: String,

    /// Where its partitions are, a file for each; it is made if it is not there.
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,

    /// Where to listen; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5554")]
    listen: SocketAddr,

    /// Bytes that it takes at a time.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20, value_parser = clap::value_parser!(u32).range(8192..))]
    max_download: u32,
}

/// Plays the board until the process is ended.
///
/// # Errors
/// A board without partitions, and what the system says of folder and address.
pub fn run(args: SimFastbootArgs) -> anyhow::Result<Exit> {
    let board = Board::builtin(&args.board)?;
    let partitions: BTreeMap<String, u64> = bundle::names(&board)
        .into_iter()
        .zip(board.storage.partitions.iter().flat_map(|partition| {
            std::iter::repeat_n(partition.size_bytes, if partition.slotted { 2 } else { 1 })
        }))
        .collect();
    if partitions.is_empty() {
        bail!("the file of board {} has no partitions", board.name);
    }
    fs::create_dir_all(&args.folder)
        .with_context(|| format!("cannot make {}", args.folder.display()))?;
    let sim = SimBoard {
        product: format!("sim-{}", board.name),
        serial: "sim-1".to_owned(),
        partitions,
        folder: args.folder,
        max_download_bytes: args.max_download,
        unlocked: true,
    };
    let listen = args.listen;
    let sim = SimFastboot::start(listen, sim, Vec::new())
        .with_context(|| format!("cannot play a board at {listen}"))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "fastboot:tcp:{}", sim.address())
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")?;
    sim.wait();
    Ok(Exit::Done)
}
