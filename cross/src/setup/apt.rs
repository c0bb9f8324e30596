//! Packages of another Debian suite, such as backports, through an apt state of our own.
//!
//! The mirror is the one that this machine's apt already uses; its own sources, lists and cache
//! stay as they are, and nothing is installed: packages are unpacked into a folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::cache::Cache;
use crate::shell::{self, CommandError};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package of another suite could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// No Debian mirror in the machine's own apt.
    #[error("no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d")]
    NoMirror,
    /// An apt program failed.
    #[error("could not fetch from Debian's {suite}")]
    Command {
        /// The suite asked.
        suite: String,
        /// What failed.
        #[source]
        source: CommandError,
    },
    /// The suite has the package, but not in the version wanted.
    #[error("Debian's {suite} has no {package} {version}")]
    NoVersion {
        /// The suite asked.
        suite: String,
        /// The package.
        package: String,
        /// The upstream version wanted.
        version: String,
    },
    /// A file of the private state could not be written or read.
    #[error("could not use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// An apt of our own for one suite.
#[derive(Debug)]
pub struct Apt {
    suite: String,
    /// Debian's name of a processor; this machine's where it is none.
    architecture: Option<&'static str>,
    folder: PathBuf,
}

/// Sources of a suite with its updates and security updates, in the form of `sources.list`, from the mirrors that this
/// machine uses.
///
/// # Errors
/// When no mirror is known.
pub fn sources_of(suite: &str) -> Result<Vec<String>, AptError> {
    let mirror = mirror_of_this_machine("").ok_or(AptError::NoMirror)?;
    let line =
        |mirror: &str, suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main");
    let mut sources = vec![
        line(&mirror, suite),
        line(&mirror, &format!("{suite}-updates")),
    ];
    if let Some(mirror) = mirror_of_this_machine("-security") {
        sources.push(line(&mirror, &format!("{suite}-security")));
    }
    Ok(sources)
}

impl Apt {
    /// Prepares the state and reads the suite's package list.
    ///
    /// # Errors
    /// When no mirror is known or it does not answer.
    pub fn new(cache: &Cache, suite: &str) -> Result<Self, AptError> {
        let mirror = mirror_of_this_machine("").ok_or(AptError::NoMirror)?;
        let sources = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        Self::prepare(suite, None, cache.apt(suite), &sources)
    }

    /// The same for another processor, with the suite's updates.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn foreign(
        cache: &Cache,
        suite: &str,
        architecture: &'static str,
    ) -> Result<Self, AptError> {
        let folder = cache.apt(&format!("{suite}-{architecture}"));
        let sources = sources_of(suite)?.join("\n") + "\n";
        Self::prepare(suite, Some(architecture), folder, &sources)
    }

    fn prepare(
        suite: &str,
        architecture: Option<&'static str>,
        folder: PathBuf,
        sources: &str,
    ) -> Result<Self, AptError> {
        let apt = Self {
            suite: suite.to_owned(),
            architecture,
            folder,
        };
        for folder in ["lists/partial", "cache/archives/partial"] {
            let path = apt.folder.join(folder);
            fs::create_dir_all(&path).map_err(|source| AptError::Io { path, source })?;
        }
        let path = apt.folder.join("sources.list");
        fs::write(&path, sources).map_err(|source| AptError::Io { path, source })?;
        apt.run(apt.command("apt-get").args(["--quiet", "update"]))?;
        Ok(apt)
    }

    /// Fetches a package and unpacks it below `folder`; returns where. `version` is the upstream version; any will do
    /// where it is none.
    ///
    /// # Errors
    /// When the suite does not have that version, or it cannot be fetched.
    pub fn unpack(
        &self,
        package: &str,
        version: Option<&str>,
        folder: &Path,
    ) -> Result<PathBuf, AptError> {
        let download = match version {
            None => package.to_owned(),
            Some(version) => {
                let known = self.run(self.command("apt-cache").args(["madison", package]))?;
                let full = pick_version(&known, version).ok_or_else(|| AptError::NoVersion {
                    suite: self.suite.clone(),
                    package: package.to_owned(),
                    version: version.to_owned(),
                })?;
                format!("{package}={full}")
            }
        };
        let mut apt_get = self.command("apt-get");
        self.run(
            apt_get
                .args(["--quiet", "download", &download])
                .current_dir(folder),
        )?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
        let file = fs::read_dir(folder)
            .map_err(|source| AptError::Io {
                path: folder.to_path_buf(),
                source,
            })?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(is_package)
            .ok_or_else(|| AptError::Io {
                path: folder.to_path_buf(),
                source: io::Error::other("apt-get left no package here"),
            })?;
        let unpacked = folder.join("unpacked");
        self.run(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&file)
                .arg(&unpacked),
        )?;
        Ok(unpacked)
    }

    /// What a package depends on directly.
    ///
    /// # Errors
    /// When the package is not known.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>, AptError> {
        let text = self.run(self.command("apt-cache").args(["depends", package]))?;
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let settings = [
            ("Dir::State::lists", self.folder.join("lists")),
            ("Dir::Etc::sourcelist", self.folder.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::Cache", self.folder.join("cache")),
            // Its sandbox user cannot reach a cache in somebody's home.
            ("APT::Sandbox::User", PathBuf::from("root")),
        ];
        for (name, value) in settings {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            command.arg("-o").arg(setting);
        }
        if let Some(architecture) = self.architecture {
            for name in ["APT::Architecture", "APT::Architectures"] {
                command.arg("-o").arg(format!("{name}={architecture}"));
            }
            // What is installed here is no answer for another processor.
            command.args(["-o", "Dir::State::status=/dev/null"]);
        }
        command
    }

    fn run(&self, command: &mut Command) -> Result<String, AptError> {
        shell::output(command).map_err(|source| AptError::Command {
            suite: self.suite.clone(),
            source,
        })
    }
}

/// The backports of this machine's release, such as `bookworm-backports`.
#[must_use]
pub fn backports_of_this_machine() -> String {
    let codename = codename().unwrap_or_else(|| "stable".to_owned());
    format!("{codename}-backports")
}

fn codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let mut lines = release.lines();
    let codename = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(codename.to_owned())
}

/// The mirror that this machine's apt uses for its release, or for a part of it such as `-security`.
fn mirror_of_this_machine(part: &str) -> Option<String> {
    let codename = &(codename()? + part);
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let mut files: Vec<PathBuf> = parts.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.insert(0, PathBuf::from("/etc/apt/sources.list"));
    files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "list" => mirror_in_list(&text, codename),
            "sources" => mirror_in_deb822(&text, codename),
            _ => None,
        }
    })
}

/// The mirror in one-line sources: `deb [options] URI SUITE COMPONENT...`.
fn mirror_in_list(text: &str, codename: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.trim().strip_prefix("deb")?.trim_start();
        let line = match line.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => line,
        };
        let mut words = line.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        (suite == codename && words.any(|word| word == "main")).then(|| uri.to_owned())
    })
}

/// The mirror in deb822 sources: paragraphs of `Field: values`.
fn mirror_in_deb822(text: &str, codename: &str) -> Option<String> {
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    text.split("\n\n").find_map(|paragraph| {
        let values = |field: &str| {
            let line = paragraph.lines().find_map(|line| {
                let (name, values) = line.split_once(':')?;
                name.trim().eq_ignore_ascii_case(field).then_some(values)
            });
            line.unwrap_or_default().split_whitespace()
        };
        let is_ours = values("Types").any(|kind| kind == "deb")
            && values("Suites").any(|suite| suite == codename)
            && values("Components").any(|component| component == "main");
        is_ours.then(|| values("URIs").next().map(str::to_owned))?
    })
}

/// The newest Debian version of an upstream version, out of `apt-cache madison`.
fn pick_version(madison: &str, upstream: &str) -> Option<String> {
    madison.lines().find_map(|line| {
        let version = line.split('|').nth(1)?.trim();
        let rest = version.strip_prefix(upstream)?;
        rest.starts_with(['+', '-', '~'])
            .then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_from_one_line_sources() {
        let text = "# comment\n\
                    deb https://packages.example.org/apt cloud main\n\
                    deb http://mirror.example.org/debian-security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.example.org/debian bookworm main contrib\n";
        let mirror = mirror_in_list(text, "bookworm");
        assert_eq!(mirror.as_deref(), Some("http://mirror.example.org/debian"));
        assert_eq!(mirror_in_list(text, "trixie"), None);
    }

    #[test]
    fn mirrors_are_read_from_deb822_sources() {
        let text = "Types: deb\nURIs: https://example.org/node\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb deb-src\n# a snapshot\nURIs: http://mirror.example.org/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n";
        let mirror = mirror_in_deb822(text, "bookworm");
        assert_eq!(mirror.as_deref(), Some("http://mirror.example.org/debian"));
        assert_eq!(mirror_in_deb822(text, "bookworm-security"), None);
    }

    #[test]
    fn only_the_wanted_upstream_version_is_picked() {
        let madison = " rust-src | 1.96.1+dfsg1-2 | http://mirror trixie-backports/main\n \
                       rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror trixie-backports/main\n";
        assert_eq!(
            pick_version(madison, "1.95.0").as_deref(),
            Some("1.95.0+dfsg1-2~bpo13+1")
        );
        assert_eq!(pick_version(madison, "1.9"), None);
    }
}
