//! `cargo xtask test`: the suites that CI runs, and how long each took.

use std::env;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cargo_metadata::MetadataCommand;
use clap::ValueEnum;
use edge_hal::Board;
use edge_hal::board::BoardError;

use crate::build::{self, BuildError};
use crate::cache::Cache;
use crate::image::{self, ImageError};
use crate::setup::rust_library::{RustLibrary, Target};
use crate::setup::{RustLibraries, cargo_tools, emulator, onnxruntime};
use crate::shell::{self, CommandError};
use crate::{firmware, fuzz};

/// A suite, in the order in which they run: cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Formatting: `cargo fmt --check`.
    Fmt,
    /// Licences and origins of dependencies: `cargo deny`.
    Deny,
    /// Lints, with warnings denied.
    Clippy,
    /// The protocol crate and a sensor's firmware build for a microcontroller.
    Thumb,
    /// Each fuzz target for 10 seconds, from its corpus.
    Fuzz,
    /// Everything builds.
    Build,
    /// All tests, with nextest.
    Tests,
    /// Tests as programs for boxes under QEMU's emulator, and an agent for boxes that reads digits.
    Aarch64,
    /// The examples in the documentation.
    Doc,
    /// Images are made and judged by other tools, and an emulated box lives through its life.
    Qemu,
}

/// The suites could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum SuitesError {
    /// Cargo does not say where it builds.
    #[error("could not read the workspace")]
    Workspace(#[from] cargo_metadata::Error),
    /// A program did not start.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A program's output could not be read.
    #[error("could not read the output of `{command}`")]
    Output {
        /// As one would type it.
        command: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The firmware could not be weighed.
    #[error(transparent)]
    Firmware(#[from] firmware::FirmwareError),
    /// A fuzz target could not be run.
    #[error(transparent)]
    Fuzz(#[from] fuzz::FuzzError),
    /// There is no place for what fuzz targets find.
    #[error("could not create a temporary folder")]
    Scratch(#[source] io::Error),
    /// This machine cannot run the models.
    #[error(transparent)]
    Machine(#[from] onnxruntime::OnnxRuntimeError),
    /// The emulated board's file.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// Its image.
    #[error("could not make the image of the emulated board")]
    Image(#[from] ImageError),
    /// The programs in it.
    #[error("could not build the programs for boxes")]
    Programs(#[from] BuildError),
    /// Nothing runs the programs for boxes here.
    #[error(transparent)]
    Emulator(#[from] emulator::EmulatorError),
}

/// Packages whose tests also run as programs for boxes.
const PORTABLE: [&str; 3] = ["edge-protocol", "edge-hal", "edge-ota"];
/// Of those, the tests that start a program for boxes, which nothing here runs.
const NOT_PORTABLE: &str = "package(edge-ota) and binary(program)";

/// Of `cross`, the test that needs an agent for boxes.
const FOREIGN_AGENT: &str = "foreign_agent";
/// Of `cross`, the tests that need images.
const OF_IMAGES: [&str; 2] = ["image_files", "emulated_board"];

/// How the closing line of `cargo nextest run` begins.
const NEXTEST_CLOSES: &str = "Summary [";
/// How the closing lines of `cargo test` begin.
const LIBTEST_CLOSES: &str = "test result: ";

/// Time for each fuzz target.
const FUZZ_TIME: Duration = Duration::from_secs(10);

/// Tests that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// Runs the suites (or `only` one), prints a table of times, and as the very last line
/// `N passed, N failed`: what the test runners counted, and one for each other suite that failed.
///
/// # Errors
/// When a suite cannot be started. A suite that fails is no error but an exit code.
pub fn run(
    cache: &Cache,
    libraries: &RustLibraries,
    only: Option<Suite>,
    nextest: &[String],
) -> Result<ExitCode, SuitesError> {
    let runner = Runner {
        cache,
        libraries,
        nextest,
        onnxruntime: cache.onnxruntime(onnxruntime::host()?),
        emulator: emulator::ensure(cache)?,
        target_folder: workspace_target_folder()?,
    };
    let mut total = Tally::default();
    let mut table = String::new();
    let mut failed = None;
    for suite in Suite::value_variants().iter().copied() {
        if only.is_some_and(|only| only != suite) {
            continue;
        }
        heading(suite.name());
        let started = Instant::now();
        let (passed, tally) = runner.run(suite)?;
        row(
            &mut table,
            suite.name(),
            started.elapsed(),
            if passed { "" } else { "failed" },
        );
        total.passed += tally.passed;
        total.failed += tally.failed;
        if !passed {
            total.failed = total.failed.max(1);
            failed = Some(suite);
            break;
        }
    }
    heading("suites");
    print!("{table}");
    if let Some(suite) = failed {
        let suite = suite.name();
        println!("\n{suite} failed. To repeat only that: cargo xtask test --only {suite}");
    }
    if total != Tally::default() {
        println!("\n{} passed, {} failed", total.passed, total.failed);
    }
    Ok(if failed.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where Cargo puts what it builds in this workspace.
///
/// # Errors
/// When Cargo cannot read the workspace.
pub fn workspace_target_folder() -> Result<PathBuf, cargo_metadata::Error> {
    let mut metadata = MetadataCommand::new();
    let metadata = metadata.current_dir(crate::repository()).no_deps().exec()?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// Where images are made unless somebody names another place.
///
/// # Errors
/// When Cargo cannot read the workspace.
pub fn images_folder() -> Result<PathBuf, cargo_metadata::Error> {
    Ok(workspace_target_folder()?.join("images"))
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Deny => "deny",
            Self::Clippy => "clippy",
            Self::Thumb => "thumb",
            Self::Fuzz => "fuzz",
            Self::Build => "build",
            Self::Tests => "tests",
            Self::Aarch64 => "aarch64",
            Self::Doc => "doc",
            Self::Qemu => "qemu",
        }
    }
}

struct Runner<'a> {
    cache: &'a Cache,
    libraries: &'a RustLibraries,
    nextest: &'a [String],
    onnxruntime: PathBuf,
    emulator: PathBuf,
    target_folder: PathBuf,
}

impl Runner<'_> {
    fn run(&self, suite: Suite) -> Result<(bool, Tally), SuitesError> {
        match suite {
            Suite::Fmt => self.plain(&["fmt", "--all", "--check"]),
            Suite::Deny => self.deny(),
            Suite::Clippy => self.plain(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]),
            Suite::Fuzz => self.fuzz(),
            Suite::Thumb => {
                let library = &self.libraries.sensors;
                if let RustLibrary::Source(_) = library {
                    println!("core for microcontrollers is built from source");
                }
                let mut protocol = self.cargo(&["build", "--package", "edge-protocol"]);
                let folder = self.target_folder.join(build::BUILD_FOLDER);
                library.apply(&mut protocol, Target::Sensor, &folder);
                let protocol = see(&mut protocol)?;
                if !protocol.0 {
                    return Ok(protocol);
                }
                self.firmware()
            }
            Suite::Aarch64 => self.aarch64(),
            Suite::Qemu => self.qemu(),
            Suite::Build => self.plain(&["build", "--workspace"]),
            Suite::Tests => {
                let built = self.programs()?;
                if !built.0 {
                    return Ok(built);
                }
                let firmware = self.firmware()?;
                if !firmware.0 {
                    return Ok(firmware);
                }
                let mut command = self.cargo(&["nextest", "run", "--no-fail-fast"]);
                if self.nextest.is_empty() {
                    let mut others = format!("not binary({FOREIGN_AGENT})");
                    for test in OF_IMAGES {
                        others += &format!(" and not binary({test})");
                    }
                    command.args(["--workspace", "--filterset", &others]);
                }
                count(command.args(self.nextest), NEXTEST_CLOSES)
            }
            Suite::Doc => count(
                &mut self.cargo(&["test", "--workspace", "--doc", "--quiet"]),
                LIBTEST_CLOSES,
            ),
        }
    }

    /// Builds a sensor's example firmware, and says what it takes.
    fn firmware(&self) -> Result<(bool, Tally), SuitesError> {
        let built = see(&mut firmware::build(
            &self.libraries.sensors,
            &self.target_folder,
        ))?;
        if built.0 {
            let firmware::Size { flash, ram } =
                firmware::size(&firmware::path(&self.target_folder))?;
            println!("a sensor's firmware: {flash} bytes of flash, {ram} of RAM and the stack");
        }
        Ok(built)
    }

    /// Runs each fuzz target for a short while.
    fn fuzz(&self) -> Result<(bool, Tally), SuitesError> {
        let arch = onnxruntime::host()?;
        let targets = fuzz::targets()?;
        fuzz::build(&targets, arch, &self.target_folder)?;
        let scratch = tempfile::tempdir().map_err(SuitesError::Scratch)?;
        let mut tally = Tally::default();
        for target in targets {
            let found = scratch.path().join(&target.name);
            match target.run(FUZZ_TIME, &found, arch, &self.target_folder) {
                Ok(figures) => {
                    println!("{target:14}{figures}");
                    tally.passed += 1;
                }
                Err(error) => {
                    println!("{error}");
                    // What was found is for the developer to look at.
                    println!("kept in {}", scratch.keep().display());
                    tally.failed += 1;
                    return Ok((false, tally));
                }
            }
        }
        Ok((true, tally))
    }

    /// Tests start real programs, which their runner does not build.
    fn programs(&self) -> Result<(bool, Tally), SuitesError> {
        self.plain(&["build", "--workspace", "--bins", "--examples"])
    }

    fn qemu(&self) -> Result<(bool, Tally), SuitesError> {
        let built = self.programs()?;
        if !built.0 {
            return Ok(built);
        }
        let board = Board::builtin("qemu-virt")?;
        let image = image::run(self.cache, &board, &self.libraries.boxes, &images_folder()?)?;
        print!("{}", image.table());
        let mut command = self.cargo(&["nextest", "run", "--no-fail-fast", "--package", "cross"]);
        for test in OF_IMAGES {
            command.args(["--test", test]);
        }
        // What the box says of itself is the result that people look for.
        command.args(["--success-output", "final"]);
        count(command.env("EDGE_IMAGE", &image.path), NEXTEST_CLOSES)
    }

    /// Programs for boxes under an emulator: tests, then the agent with a model. Programs of this machine that tests
    /// start run as they are.
    fn aarch64(&self) -> Result<(bool, Tally), SuitesError> {
        let built = self.programs()?;
        if !built.0 {
            return Ok(built);
        }
        let library = &self.libraries.boxes;
        let mut tests = self.cargo(&["nextest", "run", "--no-fail-fast"]);
        tests.args(["--cargo-profile", build::PROFILE]);
        tests.args(["--filterset", &format!("not ({NOT_PORTABLE})")]);
        for package in PORTABLE {
            tests.args(["--package", package]);
        }
        build::for_boxes(&mut tests, library, &self.target_folder)?;
        tests.env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
            format!("{} -L {}", self.emulator.display(), emulator::LIBRARIES),
        );
        let (tests_passed, mut tally) = count(&mut tests, NEXTEST_CLOSES)?;

        let programs = build::run(&Board::builtin("qemu-virt")?, library)?;
        let mut inference = self.cargo(&["nextest", "run", "--package", "cross"]);
        inference.args(["--test", FOREIGN_AGENT]);
        for program in &programs {
            if program.name == build::AGENT {
                inference.env("EDGE_FOREIGN_AGENT", &program.path);
            }
        }
        inference.env("EDGE_EMULATOR", &self.emulator);
        let (inference_passed, more) = count(&mut inference, NEXTEST_CLOSES)?;
        tally.passed += more.passed;
        tally.failed += more.failed;
        Ok((tests_passed && inference_passed, tally))
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = shell::cargo();
        command
            .args(arguments)
            .env("PATH", cargo_tools::path(self.cache))
            .env("EDGE_CACHE_DIR", self.cache.root())
            .env("EDGE_ONNXRUNTIME", &self.onnxruntime);
        command
    }

    fn plain(&self, arguments: &[&str]) -> Result<(bool, Tally), SuitesError> {
        see(&mut self.cargo(arguments))
    }

    /// RustSec's advisories are checked only where a copy of the database is at hand.
    fn deny(&self) -> Result<(bool, Tally), SuitesError> {
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
        if home.is_some_and(|home| home.join("advisory-dbs").is_dir()) {
            return self.plain(&["deny", "--offline", "check"]);
        }
        println!("advisories: not checked, no advisory database on this machine");
        println!("            (`cargo deny fetch` gets one where its server can be reached)");
        self.plain(&["deny", "check", "bans", "licenses", "sources"])
    }
}

/// Runs a program in plain sight.
fn see(command: &mut Command) -> Result<(bool, Tally), SuitesError> {
    match shell::visibly(command) {
        Ok(()) => Ok((true, Tally::default())),
        Err(CommandError::Failed { .. }) => Ok((false, Tally::default())),
        Err(error) => Err(error.into()),
    }
}

/// Runs a test runner in plain sight, and reads its closing lines, which begin with `closing`.
fn count(command: &mut Command, closing: &'static str) -> Result<(bool, Tally), SuitesError> {
    if io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let described = shell::describe(command);
    let failed = |source| SuitesError::Output {
        command: described.clone(),
        source,
    };
    let start = |source| CommandError::Start {
        command: described.clone(),
        source,
    };
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (on_stdout, on_stderr) = thread::scope(|scope| {
        let reader = scope.spawn(|| stdout.map(|pipe| echo(pipe, io::stdout(), closing)));
        (
            stderr.map(|pipe| echo(pipe, io::stderr(), closing)),
            reader.join().ok().flatten(),
        )
    });
    let status = child.wait().map_err(failed)?;
    let mut tally = Tally::default();
    for part in [on_stdout, on_stderr].into_iter().flatten() {
        let part = part.map_err(failed)?;
        tally.passed += part.passed;
        tally.failed += part.failed;
    }
    Ok((status.success(), tally))
}

/// Copies a stream line by line, and counts the tests in its closing lines.
fn echo(from: impl io::Read, mut to: impl Write, closing: &str) -> io::Result<Tally> {
    let mut reader = BufReader::new(from);
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        tally.read(&String::from_utf8_lossy(&line), closing);
        line.clear();
    }
    Ok(tally)
}

impl Tally {
    /// Adds what a closing line says; other lines, such as a failed test's output, add nothing.
    fn read(&mut self, line: &str, closing: &str) {
        let line = without_colours(line);
        let line = line.trim();
        if !line.starts_with(closing) {
            return;
        }
        let words: Vec<&str> = line
            .split(|c: char| c.is_whitespace() || c == ',')
            .collect();
        for pair in words.windows(2) {
            let [number, what] = pair else { continue };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what.trim_end_matches(';') {
                "passed" => self.passed += number,
                "failed" | "timed" => self.failed += number,
                _ => {}
            }
        }
    }
}

/// A line as it was before the terminal's escape sequences (`ESC [ ... m`) came in.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or("", |(_, rest)| rest)
    })
}

fn heading(title: &str) {
    println!(
        "\n── {title} {}",
        "─".repeat(70_usize.saturating_sub(title.len()))
    );
}

fn row(table: &mut String, name: &str, took: Duration, note: &str) {
    // Writing to a string cannot fail.
    let _written = writeln!(table, "  {name:8}{:8.1} s  {note}", took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(closing: &str, lines: &[&str]) -> (u64, u64) {
        let mut tally = Tally::default();
        for line in lines {
            tally.read(line, closing);
        }
        (tally.passed, tally.failed)
    }

    #[test]
    fn closing_lines_of_both_runners_are_counted() {
        let nextest = "\u{1b}[31;1m     Summary\u{1b}[0m [   0.812s] \u{1b}[1m12\u{1b}[0m tests run: \
                       \u{1b}[1m10\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m (1 slow), 1 failed, 1 timed out, 3 skipped";
        assert_eq!(tally(NEXTEST_CLOSES, &[nextest]), (10, 2));
        let libtest = "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured";
        assert_eq!(tally(LIBTEST_CLOSES, &[libtest, libtest]), (8, 4));
    }

    #[test]
    fn other_lines_are_not() {
        let lines = [
            "PASS [ 0.01s] 3 passed",
            "test result: FAILED. 0 passed; 1 failed",
            "",
        ];
        assert_eq!(tally(NEXTEST_CLOSES, &lines), (0, 0));
    }
}
