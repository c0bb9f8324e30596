//! The start of a box without a screen: takes the provisioning, makes the box's key, hands both on to the rest of the
//! system in files below `/run`, and shows what it made of them. Runs at every boot, before network and agent; the
//! image's `edge-first-start.service` is its caller.
//!
//! - `area`: the provisioning partition; `kept`: the last good provisioning
//! - `decide` (pure): which of both counts
//! - `own_key`: the box's key
//! - `render` (pure): the files below `/run`
//! - `screen`: what the owner sees
//!
//! It mounts nothing, and needs no network.

mod area;
mod decide;
mod kept;
mod own_key;
mod render;
mod screen;

use std::{
    error::Error,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use clap::Args;
use edge_hal::{
    identity::{Fingerprint, KeyPlace, TPM_DEVICE},
    slots::state_file::{ReplacedFile, StateFile},
};
use edge_protocol::provisioning::{self, Provisioning};
use nix::{fcntl::OFlag, unistd::geteuid};
use serde::Serialize;

use self::{
    area::Files,
    own_key::Owner,
    render::{Content, Layout, RunFile},
    screen::{Shown, Where},
};
use crate::{chain::chain, settings::Options};

/// The last good provisioning in the state folder.
const KEPT: &str = "provisioning";
/// What programs learn of this start, in [`FirstStart::run`].
const REPORT: &str = "first-start.json";

/// Where things lie, all of it below `root`.
#[derive(Debug, Clone, Args)]
pub struct FirstStart {
    /// Where the provisioning partition is mounted
    #[arg(long, value_name = "DIR", default_value = "/run/edge/provisioning")]
    pub area: PathBuf,
    /// Where the last good provisioning is kept; it must outlive power cuts
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-box")]
    pub state: PathBuf,
    /// Where files for the rest of the system are written
    #[arg(long, value_name = "DIR", default_value = "/run/edge")]
    pub run: PathBuf,
    /// The agent's data folder, in which the box's key lies
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-agent")]
    pub data: PathBuf,
    /// The agent's user, who owns the key and may read the enrolment token
    #[arg(long, value_name = "USER", default_value = "edge-agent")]
    pub agent_user: String,
    /// Folder that stands for /; all others are looked for below it
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// What became of a first start. Its JSON is `/run/edge/first-start.json` and keeps its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `provisioned`, `kept` (by the last good file), `not-provisioned` or `bad`.
    pub state: &'static str,
    /// The box's name.
    pub box_id: Option<String>,
    /// The fingerprint of the box's key, in 64 digits.
    pub fingerprint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// Where rewards go.
    pub payout_address: Option<String>,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// Why the rest of the system does not learn of the provisioning.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct FirstStartError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FirstStart {
    /// Does all of it. What is missing or broken costs only itself: a box that cannot be provisioned still gets a
    /// network and says what is wrong.
    ///
    /// # Errors
    /// [`FirstStartError`] when a file below `/run` cannot be written.
    pub fn run(&self) -> Result<Report, FirstStartError> {
        let mut kept = ReplacedFile(self.below(&self.state).join(KEPT));
        self.run_with(&mut kept)
    }

    /// The same with another file for the last good provisioning; tests cut its power.
    ///
    /// # Errors
    /// As [`FirstStart::run`].
    pub fn run_with(&self, kept: &mut dyn StateFile) -> Result<Report, FirstStartError> {
        let mut faults = Vec::new();
        let zones = PathBuf::from("/usr/share/zoneinfo");
        let check = |files: &Files| self.check(files, &zones);
        let last_good = match kept.read() {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => kept::decode(&bytes)
                .map(Some)
                .ok_or_else(|| "the last good file is damaged".to_owned()),
            Err(error) => Err(format!("the last good file cannot be read: {error}")),
        };
        let decision = decide::decide(area::read(&self.below(&self.area)), last_good, &check);
        if let Some(files) = &decision.keep
            && let Err(error) = self.keep(kept, files)
        {
            faults.push(format!(
                "the provisioning cannot be kept for later starts: {error}"
            ));
        }
        let accepted = decision.accepted.as_ref();
        let owner = own_key::owner(&self.agent_user);
        let place = KeyPlace {
            folder: self.below(&self.data),
            tpm: self.below(Path::new(TPM_DEVICE)),
        };
        let key = owner
            .as_ref()
            .map_err(|error| chain(error))
            .and_then(|owner| own_key::ensure(&place, *owner).map_err(|error| chain(&error)));
        let key = key.map_err(|error| faults.push(error)).ok();
        let box_id = accepted
            .and_then(|accepted| accepted.provisioning.box_id.as_ref())
            .map(ToString::to_string)
            .or_else(|| key.as_ref().map(derived_id));
        let layout = Layout {
            run: self.run.clone(),
            zones,
            networkd: PathBuf::from("/run/systemd/network"),
        };
        let fingerprint = key.as_ref().map(ToString::to_string);
        let shown = |faults: &[String], place| {
            let shown = Shown {
                box_id: box_id.as_deref(),
                fingerprint: fingerprint.as_deref(),
                accepted,
                state: &decision.state,
                faults,
            };
            screen::lines(&shown, place)
        };
        let files = render::files(accepted, box_id.as_deref(), &layout);
        let written = files
            .iter()
            .try_for_each(|file| self.put(file, owner.as_ref().ok().copied()));
        faults.extend(written.as_ref().err().map(|error| chain(error)));
        if let Some(box_id) = &box_id
            && let Err(error) =
                fs::write(self.below(Path::new("/proc/sys/kernel/hostname")), box_id)
        {
            faults.push(format!("the host name cannot be set: {error}"));
        }
        if let Err(error) = screen::light(&decision.state, &self.root) {
            faults.push(format!("the lights do not show it: {}", chain(&error)));
        }
        let console = OpenOptions::new()
            .write(true)
            .custom_flags((OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits())
            .open(self.below(Path::new("/dev/console")))
            .and_then(|mut console| console.write_all(shown(&faults, Where::Console).as_bytes()));
        if let Err(error) = console {
            faults.push(format!("the console does not show it: {error}"));
        }
        let report = Report {
            state: decision.state.name(),
            box_id: box_id.clone(),
            fingerprint: key.as_ref().map(Fingerprint::to_hex),
            region: accepted.map(|accepted| accepted.provisioning.region.to_string()),
            payout_address: accepted
                .and_then(|accepted| accepted.provisioning.payout_address.clone()),
            problems: [decision.state.problems(), &faults].concat(),
        };
        for (path, text) in [
            (
                PathBuf::from("/run/issue.d/edge.issue"),
                shown(&faults, Where::Prompt),
            ),
            (
                self.run.join(REPORT),
                serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
            ),
        ] {
            let content = Content::Public(text.into_bytes());
            self.put(&RunFile { path, content }, None)?;
        }
        written.map(|()| report)
    }

    /// What the files mean, or all that is wrong with them.
    fn check(&self, files: &Files, zones: &Path) -> Result<Provisioning, Vec<String>> {
        let zones = self.below(zones);
        let knows_time_zone = |name: &str| zones.join(name).is_file();
        let mut problems = Vec::new();
        let provisioning = provisioning::parse(&files.provisioning, &knows_time_zone)
            .map_err(|all| problems.extend(all.0.iter().map(ToString::to_string)));
        if let Some(root) = &files.update_root
            && let Err(problem) = provisioning::check_update_root(root)
        {
            problems.push(problem);
        }
        if let Ok(provisioning) = &provisioning
            && let Some(problem) = self.refusal_of_agent(provisioning)
        {
            problems.push(problem);
        }
        provisioning
            .ok()
            .filter(|_| problems.is_empty())
            .ok_or(problems)
    }

    /// Why this system's agent would not start by it. A provisioning may be made for a newer one; without this the
    /// agent would end with an error that nobody sees.
    fn refusal_of_agent(&self, provisioning: &Provisioning) -> Option<String> {
        let settings = render::settings(provisioning, "box", &self.run);
        let error = toml::from_str::<Options>(&settings).err()?;
        let why = error.message().split(", expected").next()?.to_owned();
        Some(format!(
            "this system's agent does not take it: {why}; leave that out, or update the system"
        ))
    }

    fn keep(&self, kept: &mut dyn StateFile, files: &Files) -> io::Result<()> {
        fs::create_dir_all(self.below(&self.state))?;
        kept.write(&kept::encode(files))
    }

    fn below(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Puts a file below `/run` in its place, so that readers find the old or the new one.
    fn put(&self, file: &RunFile, owner: Option<Owner>) -> Result<(), FirstStartError> {
        let path = self.below(&file.path);
        let put = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut new = path.clone().into_os_string();
            new.push(".new");
            let new = PathBuf::from(new);
            remove(&new)?;
            match &file.content {
                Content::Absent => return remove(&path),
                Content::Link(target) => symlink(target, &new)?,
                Content::Public(bytes) => write(&new, bytes, 0o644)?,
                Content::Agent(bytes) => {
                    write(&new, bytes, 0o400)?;
                    let owner =
                        owner.ok_or_else(|| io::Error::other("there is no user to own it"))?;
                    if geteuid().as_raw() != owner.uid {
                        chown(&new, Some(owner.uid), Some(owner.gid))?;
                    }
                }
            }
            fs::rename(&new, &path)
        };
        put().map_err(|source| FirstStartError {
            path: path.clone(),
            source,
        })
    }
}

/// What the journal gets.
#[must_use]
pub fn log(report: &Report) -> String {
    let unknown = "unknown";
    let mut text = format!(
        "box {}, fingerprint {}: {}\n",
        report.box_id.as_deref().unwrap_or(unknown),
        report.fingerprint.as_deref().unwrap_or(unknown),
        report.state
    );
    for problem in &report.problems {
        text.push_str(&format!("{problem}\n"));
    }
    text
}

/// The name of a box that was given none: twelve digits of its key's fingerprint.
fn derived_id(fingerprint: &Fingerprint) -> String {
    let digits: String = fingerprint.to_hex().chars().take(12).collect();
    format!("box-{digits}")
}

/// Prints the fingerprint of the key in `data` or the TPM for [`FirstStart`], which started this process as the key's owner.
///
/// # Errors
/// What is wrong with the key, in words.
pub fn print_own_key(data: PathBuf, tpm: PathBuf) -> Result<(), Box<dyn Error>> {
    let fingerprint = own_key::make(&KeyPlace { folder: data, tpm })?;
    Ok(writeln!(io::stdout(), "{}", fingerprint.to_hex())?)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // The process's umask may have taken more away than it should.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
