//! Fuzz targets of all crates: found, built with the coverage that libFuzzer needs, and run for a bounded time from the
//! committed corpus. Needs neither a nightly compiler nor `cargo fuzz`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cargo_metadata::{MetadataCommand, TargetKind};

use crate::cache::Arch;
use crate::shell::{self, CommandError};

/// What libFuzzer reads: counters and a table of all edges, and both sides of comparisons. As `cargo fuzz` sets them
/// (<https://llvm.org/docs/LibFuzzer.html>, <https://clang.llvm.org/docs/SanitizerCoverage.html>).
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks";
/// Longest input that is made, in bytes.
const INPUT_MAX_BYTES: u32 = 4_096;
/// Memory that a target may take, in MiB, and time for one input, in seconds: beyond, the input counts as a finding.
const MEMORY_MAX_MIB: u32 = 1_024;
const INPUT_MAX_S: u32 = 10;

/// A fuzz target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The fuzz package's folder, such as `protocol/fuzz`, in the repository.
    pub folder: PathBuf,
    /// Name of the target.
    pub name: String,
}

/// What a run of a target showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Inputs that were tried.
    pub tried: u64,
    /// Edges of the program that inputs have reached.
    pub edges: u64,
    /// Inputs in the corpus afterwards.
    pub corpus: u64,
}

/// Fuzz targets could not be run, or one has found something.
#[derive(Debug, thiserror::Error)]
pub enum FuzzError {
    /// A folder could not be read.
    #[error("could not look for fuzz targets in {}", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Cargo does not know the package.
    #[error("could not read the package in {}", folder.display())]
    Package {
        /// Its folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: cargo_metadata::Error,
    },
    /// There is no such target.
    #[error("there is no fuzz target {name}; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A program did not start, or did not build.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// An input that a decoder does not survive.
    #[error("{target} fails on {}; repeat it with: {again}", input.display())]
    Found {
        /// The target.
        target: String,
        /// The input.
        input: PathBuf,
        /// Command that repeats it.
        again: String,
    },
    /// The target ended otherwise.
    #[error("{target} ended without its closing figures; see {}", log.display())]
    Ended {
        /// The target.
        target: String,
        /// What it wrote.
        log: PathBuf,
    },
}

/// All fuzz targets of the repository, in order: the programs of each `*/fuzz` package.
///
/// # Errors
/// When a folder cannot be read.
pub fn targets() -> Result<Vec<Target>, FuzzError> {
    let read = |source| FuzzError::Read {
        path: crate::repository().to_path_buf(),
        source,
    };
    let mut targets = Vec::new();
    for folder in fs::read_dir(crate::repository()).map_err(read)? {
        let folder = PathBuf::from(folder.map_err(read)?.file_name()).join("fuzz");
        let manifest = crate::repository().join(&folder).join("Cargo.toml");
        if !manifest.is_file() {
            continue;
        }
        let mut metadata = MetadataCommand::new();
        let metadata = metadata.manifest_path(manifest).no_deps().exec();
        let metadata = metadata.map_err(|source| FuzzError::Package {
            folder: folder.clone(),
            source,
        })?;
        let programs = metadata.packages.into_iter().flat_map(|it| it.targets);
        for program in programs.filter(|it| it.kind.contains(&TargetKind::Bin)) {
            let folder = folder.clone();
            let name = program.name;
            targets.push(Target { folder, name });
        }
    }
    targets.sort();
    Ok(targets)
}

/// The targets of that name, or all.
///
/// # Errors
/// [`FuzzError::Unknown`] when there is none.
pub fn chosen(name: Option<&str>) -> Result<Vec<Target>, FuzzError> {
    let all = targets()?;
    let Some(name) = name else {
        return Ok(all);
    };
    let known = all.iter().map(|it| it.name.as_str()).collect::<Vec<_>>();
    let known = known.join(", ");
    let chosen: Vec<Target> = all.into_iter().filter(|it| it.name == name).collect();
    if chosen.is_empty() {
        let name = name.to_owned();
        return Err(FuzzError::Unknown { name, known });
    }
    Ok(chosen)
}

/// Builds targets; all share `target_folder`.
///
/// # Errors
/// When one does not build.
pub fn build(targets: &[Target], arch: Arch, target_folder: &Path) -> Result<(), FuzzError> {
    let mut packages: BTreeMap<&Path, Vec<&str>> = BTreeMap::new();
    for Target { folder, name } in targets {
        packages.entry(folder).or_default().push(name);
    }
    for (folder, names) in packages {
        let mut command = shell::cargo();
        // With a target named, Cargo keeps the flags from build scripts and macros.
        command
            .args([
                "build",
                "--release",
                "--target",
                &triple(arch),
                "--manifest-path",
            ])
            .arg(folder.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target_folder.join("fuzz"))
            .env("RUSTFLAGS", RUSTFLAGS)
            .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only");
        for name in names {
            command.args(["--bin", name]);
        }
        shell::visibly(&mut command)?;
    }
    Ok(())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tried,
            corpus,
            edges,
        } = self;
        write!(
            f,
            "{tried:9} inputs tried, {edges:6} edges reached, {corpus:5} inputs kept"
        )
    }
}

impl Target {
    /// Where its committed corpus lies.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        let folder = crate::repository().join(&self.folder);
        folder.join("corpus").join(&self.name)
    }

    /// Runs the target for so long from its committed corpus. What it finds worth keeping goes to `found`, an empty or
    /// earlier folder; inputs that fail go beside it.
    ///
    /// # Errors
    /// [`FuzzError::Found`] when an input fails.
    pub fn run(
        &self,
        time: Duration,
        found: &Path,
        arch: Arch,
        target_folder: &Path,
    ) -> Result<Figures, FuzzError> {
        let corpus = self.corpus();
        for folder in [found, &corpus] {
            fs::create_dir_all(folder).map_err(|source| FuzzError::Read {
                path: folder.to_path_buf(),
                source,
            })?;
        }
        let beside = |end: &str| found.with_extension(end);
        let log_file = beside("log");
        let log_end = fs::File::create(&log_file).map_err(|source| FuzzError::Read {
            path: log_file.clone(),
            source,
        })?;
        let mut command = self.command(arch, target_folder);
        command
            .arg(format!("-max_total_time={}", time.as_secs().max(1)))
            .arg(format!("-artifact_prefix={}", beside("failed-").display()))
            .arg("-print_final_stats=1")
            .args([found, &corpus])
            .stdout(Stdio::null())
            .stderr(log_end);
        let status = command.status().map_err(|source| CommandError::Start {
            command: shell::describe(&command),
            source,
        })?;
        let log = fs::read(&log_file).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        if let Some(input) = log
            .lines()
            .find_map(|line| line.split_once("Test unit written to "))
        {
            let input = PathBuf::from(input.1);
            let again = format!(
                "{} {}",
                shell::describe(&self.command(arch, target_folder)),
                input.display()
            );
            let target = self.name.clone();
            return Err(FuzzError::Found {
                target,
                input,
                again,
            });
        }
        let stat = |name: &str| {
            let line = log.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().parse::<u64>().ok()
        };
        match stat("stat::number_of_executed_units").filter(|_| status.success()) {
            Some(tried) => Ok(Figures {
                tried,
                edges: edges(&log),
                corpus: count(found) + count(&corpus),
            }),
            None => Err(FuzzError::Ended {
                target: self.name.clone(),
                log: log_file,
            }),
        }
    }

    /// Makes the committed corpus anew: of what it held and of `found`, the fewest inputs that reach the same code.
    ///
    /// # Errors
    /// When the target does not start, or the corpus cannot be replaced.
    pub fn keep(&self, found: &Path, arch: Arch, target_folder: &Path) -> Result<(), FuzzError> {
        let corpus = self.corpus();
        let least = found.with_extension("least");
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| FuzzError::Read { path, source }
        };
        fs::create_dir_all(&least).map_err(failed(&least))?;
        let mut command = self.command(arch, target_folder);
        command
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .args([&least, &corpus, found]);
        shell::output(&mut command)?;
        fs::remove_dir_all(&corpus).map_err(failed(&corpus))?;
        fs::rename(&least, &corpus)
            .or_else(|_| copy(&least, &corpus))
            .map_err(failed(&corpus))
    }

    fn command(&self, arch: Arch, target_folder: &Path) -> Command {
        let folder = target_folder.join("fuzz").join(triple(arch));
        let mut command = Command::new(folder.join("release").join(&self.name));
        command
            .arg(format!("-max_len={INPUT_MAX_BYTES}"))
            .arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"))
            .arg(format!("-timeout={INPUT_MAX_S}"));
        command
    }
}

fn triple(arch: Arch) -> String {
    format!("{}-unknown-linux-gnu", arch.name())
}

/// Copies the files of a folder to another file system.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    fs::remove_dir_all(from)
}

/// The last `cov: N` of libFuzzer's log.
fn edges(log: &str) -> u64 {
    let words: Vec<&str> = log.split_whitespace().collect();
    let mut pairs = words.windows(2).rev();
    let last = pairs.find_map(|pair| match pair {
        ["cov:", number] => number.parse().ok(),
        _ => None,
    });
    last.unwrap_or(0)
}

fn count(folder: &Path) -> u64 {
    fs::read_dir(folder).map_or(0, |files| files.count() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_target_has_a_name_of_its_own_and_a_committed_corpus() {
        let targets = targets().unwrap();
        let names: BTreeSet<&str> = targets.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            names.len(),
            targets.len(),
            "they share a folder of programs"
        );
        for name in ["wire", "provisioning", "board", "flash"] {
            assert!(names.contains(name), "{name}");
        }
        for target in &targets {
            assert!(
                count(&target.corpus()) > 0,
                "{target}: cargo xtask fuzz {target} --keep"
            );
        }
    }

    #[test]
    fn an_unknown_target_is_told_with_those_that_there_are() {
        let why = chosen(Some("decoders")).unwrap_err().to_string();
        assert!(
            why.contains("no fuzz target decoders; there are") && why.contains("wire"),
            "{why}"
        );
    }

    #[test]
    fn the_edges_are_those_of_the_last_line() {
        let log = "#2\tINITED cov: 12 ft: 30 corp: 3/9b\n#90\tDONE   cov: 345 ft: 900\nstat::x: 1";
        assert_eq!(edges(log), 345);
        assert_eq!(edges("nothing"), 0);
    }
}
