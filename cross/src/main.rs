//! `cargo xtask`: the command line. Every command's work is in the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use cross::cache::Cache;
use cross::region::{Broker, Plan};
use cross::{bench, boards, build, demo, emulated, fuzz, image, setup, shell, stop_signal, suites};
use edge_hal::Board;
use edge_hal::board::board_file_schema;

/// Set up, test and show Aethir Edge.
///
/// On a fresh Debian 12 with Rust, `cargo xtask demo` is all that is needed to see a region with
/// three boxes work, and `cargo xtask test` all that is needed to check a change. Both set up what
/// they need by themselves.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install and fetch all that building and testing needs.
    ///
    /// Debian packages that are missing, ONNX Runtime, the Python packages that train the digits
    /// model, model graphs of realistic cost, Cargo's tools, an emulator for boxes' programs, Rust's library for boxes
    /// and microcontrollers, and Debian as boxes have it. A second run changes nothing and touches no network.
    #[command(
        after_help = "Everything but the Debian packages goes to EDGE_CACHE_DIR, else \
        $XDG_CACHE_HOME/aethir-edge, else ~/.cache/aethir-edge. Delete that folder to start over."
    )]
    Setup(SetupArgs),
    /// Run what CI runs, cheapest suite first; stop at the first that fails.
    #[command(after_help = "Examples:\n  \
        cargo xtask test                                  all of it\n  \
        cargo xtask test --only clippy                    one suite\n  \
        cargo xtask test --only tests -- -p edge-agent    words after -- go to cargo nextest run")]
    Test(TestArgs),
    /// Show a region with boxes and a sensor at work on this machine.
    ///
    /// Starts an indexer with its own broker, boxes on the simulated board, and a sensor that sends
    /// real images to whichever box is free. Says where the page is, and ends with a table. Nothing
    /// is left behind.
    #[command(after_help = "Examples:\n  \
        cargo xtask demo                                stays up until Ctrl-C\n  \
        cargo xtask demo --seconds 10 --report r.json   for scripts")]
    Demo(DemoArgs),
    /// Build the programs of a box for its processor.
    ///
    /// Stripped programs, and beside each its symbols in NAME.debug. Rust's library comes from the
    /// installed target where there is one, else it is built from source.
    #[command(after_help = "Example:\n  cargo xtask build --board qrb5165-rb5")]
    Build(BuildArgs),
    /// Make the image that a board is flashed with.
    ///
    /// Debian with our programs: a read-only root, twice, so that an update has a place and a way
    /// back; what outlives updates has a partition of its own. The first image takes ten minutes,
    /// since Debian's packages are fetched and unpacked; the next ones a minute.
    #[command(after_help = "Examples:\n  \
        cargo xtask image --board qemu-virt      a disk that `cargo xtask qemu` starts\n  \
        cargo xtask image --board qrb5165-rb5    a folder for fastboot and EDL\n\n\
        Times in the image are SOURCE_DATE_EPOCH, else that of the last commit: the same input\n\
        makes the same bytes.")]
    Image(ImageArgs),
    /// Start an image on an emulated board, in a region on this machine.
    ///
    /// QEMU's ARM machine with U-Boot, disk and watchdog boots the image of the board qemu-virt; an indexer with its
    /// broker runs here. The box enrols with a token; a sensor asks it once it serves. Says how to look inside. The image stays as it is: the
    /// board runs on a copy. Nothing is left behind.
    #[command(after_help = "Examples:\n  \
        cargo xtask qemu                                  makes the image, stays up until Ctrl-C\n  \
        cargo xtask qemu --image my.img --seconds 20      an image of yours, for scripts")]
    Qemu(QemuArgs),
    /// Check board files, and show what they say side by side.
    ///
    /// Without a file: all of `board-configs/`. Every problem is printed with its file and line.
    #[command(after_help = "Examples:\n  \
        cargo xtask boards                   all boards\n  \
        cargo xtask boards ./mine.toml       one file of your own\n  \
        cargo xtask boards --schema          the JSON Schema, for editors\n  \
        cargo xtask boards --write-docs      the list of keys in docs/boards.md, anew")]
    Boards(BoardsArgs),
    /// Try hostile bytes on every decoder, and keep what reaches new code.
    ///
    /// Runs libFuzzer from the committed corpus, each target in turn. An input that a decoder does not survive is
    /// written down with the command that repeats it.
    #[command(after_help = "Examples:\n  \
        cargo xtask fuzz                                every target for a minute\n  \
        cargo xtask fuzz wire --seconds 3600 --keep     one for an hour, and its finds into the corpus")]
    Fuzz(FuzzArgs),
    /// Measure, and print each figure beside its floor or a peer measured in the same run.
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Debug, Args)]
struct FuzzArgs {
    /// Only this target.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Add inputs that reach new code to the committed corpus.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Inference: ONNX Runtime alone, an echo over MQTT, and the agent, in turn.
    ///
    /// Mosquitto, the agent (release build) and the client share this machine. Takes four minutes.
    Inference {
        /// Length of a round in milliseconds; there are five for each figure.
        #[arg(long, default_value_t = 1000, value_name = "MS")]
        round_ms: u64,
        /// Write the result to this file, as JSON.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// Flashing onto a file and a loop device (with root), beside `dd` and `openssl`; and packed images.
    Flash {
        /// Size of the image.
        #[arg(long, default_value_t = 512, value_name = "MIB", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(16..))]
        image_mib: usize,
        /// Where image and targets go; five times the image's size must be free.
        #[arg(long, default_value = ".", value_name = "FOLDER")]
        folder: PathBuf,
        /// Measure this program instead of building it.
        #[arg(long, value_name = "FILE")]
        edgectl: Option<PathBuf>,
        /// Write the result to this file, as JSON.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// Telemetry of a box at rest: MQTT bytes an hour beside the least that Sparkplug allows, and processor time.
    Telemetry {
        /// How long the box rests.
        #[arg(long, default_value_t = 180, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        /// Write the result to this file, as JSON.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// The thermal governor on a simulated hot afternoon, beside an oracle and two peers.
    ///
    /// Pure computation: seconds, and the same figures on every machine.
    Thermal {
        /// Write the plot to this file, as SVG.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Runs a model in a process of its own and prints what it took, as JSON.
    #[command(hide = true)]
    Session {
        /// ONNX Runtime.
        library: PathBuf,
        /// The model.
        graph: PathBuf,
        /// Threads of one run.
        threads: usize,
        /// Whether memory is kept from run to run.
        #[arg(action = clap::ArgAction::Set)]
        arena: bool,
        /// Whether threads spin while they wait.
        #[arg(action = clap::ArgAction::Set)]
        spinning: bool,
    },
    /// The echo: answers requests with bytes and does no work.
    #[command(hide = true)]
    Echo {
        /// The broker's port on this machine.
        port: u16,
        /// Size of its answers.
        answer_bytes: usize,
    },
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The board: a name, or the path of a file.
    #[arg(long, value_name = "NAME|FILE")]
    board: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupArgs,
}

#[derive(Debug, Args)]
struct ImageArgs {
    /// The board: a name, or the path of a file.
    #[arg(long, value_name = "NAME|FILE")]
    board: String,
    /// Where it goes [default: images/ in Cargo's target folder].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupArgs,
}

#[derive(Debug, Args)]
struct QemuArgs {
    /// The disk image [default: the one of the board qemu-virt, made anew].
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// End so many seconds after the first answer; without it, Ctrl-C ends it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    setup: SetupArgs,
}

/// Ports of a region on this machine.
#[derive(Debug, Args)]
struct Ports {
    /// The broker's port on this machine [default: any free one].
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<u16>,
    /// The page's port on this machine [default: any free one].
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
}

#[derive(Debug, Args)]
struct BoardsArgs {
    /// The files [default: all of board-configs/].
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of board files instead.
    #[arg(long, conflicts_with_all = ["files", "json", "write_docs"])]
    schema: bool,
    /// Write the list of keys in docs/boards.md anew instead.
    #[arg(long, conflicts_with_all = ["files", "json"])]
    write_docs: bool,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// How many boxes.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    boxes: u8,
    /// End after so many seconds; without it, Ctrl-C ends the demo.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Without certificates: everybody on this machine may do everything on the broker.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    ports: Ports,
}

#[derive(Debug, Args)]
struct SetupArgs {
    /// Source of Rust's library for exactly this compiler: a .tar.xz or a folder with `library/`.
    ///
    /// Needed only where neither rustup nor Debian can give the library for boxes and microcontrollers.
    #[arg(long, value_name = "PATH", env = "EDGE_RUST_SRC")]
    rust_src: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Run this suite only.
    #[arg(long, value_enum, value_name = "SUITE")]
    only: Option<suites::Suite>,
    #[command(flatten)]
    setup: SetupArgs,
    /// Passed on to `cargo nextest run`.
    #[arg(last = true, value_name = "ARGS")]
    nextest: Vec<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let cache = Cache::from_env()?;
    match command {
        Command::Setup(arguments) => {
            setup::for_tests(&cache, arguments.rust_src.as_deref())?;
            image::fetch(&cache)?;
            println!("Everything is in place in {}.", cache.root().display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Test(arguments) => {
            let libraries = setup::for_tests(&cache, arguments.setup.rust_src.as_deref())?;
            Ok(suites::run(
                &cache,
                &libraries,
                arguments.only,
                &arguments.nextest,
            )?)
        }
        Command::Demo(arguments) => {
            show(&cache, arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Build(arguments) => {
            build_programs(&cache, &arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Image(arguments) => {
            make_image(&cache, &arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Qemu(arguments) => {
            emulate(&cache, arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Boards(arguments) => show_boards(arguments),
        Command::Fuzz(arguments) => {
            setup::for_bench(&cache)?;
            try_hostile_bytes(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(command) => {
            measure(&cache, command)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn try_hostile_bytes(arguments: &FuzzArgs) -> Result<()> {
    let arch = setup::onnxruntime::host()?;
    let target_folder = suites::workspace_target_folder()?;
    let targets = fuzz::chosen(arguments.target.as_deref())?;
    fuzz::build(&targets, arch, &target_folder)?;
    let time = Duration::from_secs(arguments.seconds);
    for target in targets {
        let found = target_folder.join("fuzz/found").join(&target.name);
        let run = || target.run(time, &found, arch, &target_folder);
        let figures = shell::step(&format!("{target}, from {}", target.folder.display()), run)?;
        println!("{target:14}{figures}");
        if arguments.keep {
            target.keep(&found, arch, &target_folder)?;
        }
    }
    Ok(())
}

fn build_programs(cache: &Cache, arguments: &BuildArgs) -> Result<()> {
    let board = Board::resolve(&arguments.board)?;
    let library = setup::for_build(cache, arguments.setup.rust_src.as_deref())?;
    let programs = build::run(&board, &library)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&programs)?);
        return Ok(());
    }
    for program in programs {
        let megabytes = program.bytes as f64 / 1e6;
        println!(
            "{:12} {megabytes:5.1} MB  {}",
            program.name,
            program.path.display()
        );
    }
    Ok(())
}

fn make_image(cache: &Cache, arguments: &ImageArgs) -> Result<()> {
    let board = Board::resolve(&arguments.board)?;
    let library = setup::for_image(cache, arguments.setup.rust_src.as_deref())?;
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => suites::images_folder()?,
    };
    let image = image::run(cache, &board, &library, &folder)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&image)?);
    } else {
        print!("{}", image.table());
    }
    Ok(())
}

fn emulate(cache: &Cache, arguments: QemuArgs) -> Result<()> {
    let library = setup::for_image(cache, arguments.setup.rust_src.as_deref())?;
    setup::for_demo(cache)?;
    let image = match arguments.image {
        Some(image) => image,
        None => {
            let board = Board::builtin("qemu-virt")?;
            image::run(cache, &board, &library, &suites::images_folder()?)?.path
        }
    };
    let u_boot = image::kernel::ensure(cache)?.u_boot;
    // Nothing here is timed but the emulated box: programs as developers build them do.
    shell::visibly(shell::cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
    let programs = suites::workspace_target_folder()?.join("debug");
    let plan = Plan {
        broker: Broker::Secured,
        ..plan(cache, programs, 0, &arguments.ports)?
    };
    let stop = stop_signal::catch()?;
    let report = emulated::show(plan, &image, &u_boot, arguments.seconds, &stop)?;
    println!("{}", report.region.table());
    if let Some(path) = arguments.report {
        demo::write(&report, &path)?;
    }
    report.region.judge(1)?;
    Ok(())
}

fn show_boards(arguments: BoardsArgs) -> Result<ExitCode> {
    if arguments.schema {
        println!("{}", serde_json::to_string_pretty(&board_file_schema())?);
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.write_docs {
        boards::reference::Page::read()?.write()?;
        return Ok(ExitCode::SUCCESS);
    }
    let files = if arguments.files.is_empty() {
        boards::files_of_repository()?
    } else {
        arguments.files
    };
    let report = boards::check(files);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{}", report.table());
        eprint!("{}", report.problems());
    }
    Ok(if report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show(cache: &Cache, arguments: DemoArgs) -> Result<()> {
    setup::for_demo(cache)?;
    let broker = if arguments.insecure {
        Broker::Embedded
    } else {
        Broker::Secured
    };
    let plan = Plan {
        broker,
        ..plan(
            cache,
            release_build()?,
            arguments.boxes.into(),
            &arguments.ports,
        )?
    };
    let stop = stop_signal::catch()?;
    let report = demo::run(plan, &cross::heldout_images(), arguments.seconds, &stop)?;
    println!("{}", report.table());
    if let Some(path) = arguments.report {
        demo::write(&report, &path)?;
    }
    report.judge(arguments.boxes.into())?;
    Ok(())
}

/// A region of the programs in a folder.
fn plan(cache: &Cache, programs: PathBuf, boxes: usize, ports: &Ports) -> Result<Plan> {
    Ok(Plan {
        programs,
        onnxruntime: cache.onnxruntime(setup::onnxruntime::host()?),
        models: cross::committed_models(),
        broker: Broker::Embedded,
        boxes,
        mqtt_port: ports.mqtt_port,
        http_port: ports.http_port,
    })
}

/// Builds the programs as users run them, and says where they are. Always the whole workspace: Cargo builds a
/// dependency again for each different set of packages asked for.
fn release_build() -> Result<PathBuf> {
    eprintln!("Building the programs: some minutes the first time.");
    shell::visibly(shell::cargo().args(["build", "--release", "--workspace", "--bins"]))?;
    Ok(suites::workspace_target_folder()?.join("release"))
}

fn measure(cache: &Cache, command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Inference { round_ms, report } => {
            setup::for_bench(cache)?;
            let programs = release_build()?;
            let result = bench::inference::run(&bench::inference::Plan {
                this_program: programs.join("cross"),
                programs,
                onnxruntime: cache.onnxruntime(setup::onnxruntime::host()?),
                digits: cross::committed_models(),
                realistic: cache.models(),
                python: cache.python(),
                round: Duration::from_millis(round_ms),
            })?;
            print_result(&result.table(), &result, report.as_deref())
        }
        BenchCommand::Flash {
            image_mib,
            folder,
            edgectl,
            report,
        } => {
            let edgectl = match edgectl {
                Some(edgectl) => edgectl,
                None => release_build()?.join("edgectl"),
            };
            let result = bench::flash::run(&bench::flash::Plan {
                edgectl,
                image_mib,
                folder,
            })?;
            print_result(&result.table(), &result, report.as_deref())
        }
        BenchCommand::Telemetry { seconds, report } => {
            setup::for_bench(cache)?;
            let result = bench::telemetry::run(&bench::telemetry::Plan {
                programs: release_build()?,
                onnxruntime: cache.onnxruntime(setup::onnxruntime::host()?),
                digits: cross::committed_models(),
                rest: Duration::from_secs(seconds),
            })?;
            print_result(&result.table(), &result, report.as_deref())
        }
        BenchCommand::Thermal { out } => {
            let report = bench::thermal::run()?;
            println!("{}", report.table());
            if let Some(path) = out {
                report.write_plot(&path)?;
            }
            Ok(())
        }
        BenchCommand::Session {
            library,
            graph,
            threads,
            arena,
            spinning,
        } => {
            let options = bench::runtime::Options {
                threads,
                arena,
                spinning,
            };
            let session = bench::session::measure(&library, &graph, options)?;
            println!("{}", serde_json::to_string(&session)?);
            Ok(())
        }
        BenchCommand::Echo { port, answer_bytes } => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(bench::echo::respond(port, answer_bytes))?)
        }
    }
}

/// Prints the table, and writes the figures as JSON where somebody wants them.
fn print_result(table: &str, result: &impl serde::Serialize, report: Option<&Path>) -> Result<()> {
    println!("{table}");
    if let Some(path) = report {
        std::fs::write(path, serde_json::to_string_pretty(result)?)?;
    }
    Ok(())
}
