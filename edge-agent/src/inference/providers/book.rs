//! Remembers what came of trying models on execution providers, over starts of the agent, and has tried what it does not
//! know yet. A trial holds for these files of a model on this provider with this driver.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use edge_hal::board::{AcceleratorsConfig, ExecutionProvider, SimProvider};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::choice::{Choice, Trial, choose};
use crate::{
    chain::chain,
    child::{self, ChildError},
    durable,
    inference::{Library, ModelEntry, manifest::hash_of},
};

/// File of the book in the data folder.
const FILE: &str = "provider-trials.json";
/// Trials that are remembered; the oldest are forgotten.
const TRIALS_MAX: usize = 256;
/// Longest book that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Time that one trial may take.
const TRIAL_MAX: Duration = Duration::from_secs(60);

/// Trials, and what the board has to try.
pub struct Book {
    accelerators: AcceleratorsConfig,
    library: Library,
    /// None for nowhere.
    file: Option<PathBuf>,
    trials: Vec<Entry>,
    /// Identifies the library and the kernel; found when it is first needed.
    system: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Hash of model, provider and driver, in hex.
    key: String,
    trial: Trial,
}

impl Default for Book {
    /// Nothing to choose from, nothing remembered.
    fn default() -> Self {
        Self {
            accelerators: AcceleratorsConfig {
                execution_providers: vec![ExecutionProvider::Cpu],
                inference_clusters: Vec::new(),
                sim: None,
            },
            library: Library::default(),
            file: None,
            trials: Vec::new(),
            system: None,
        }
    }
}

impl Book {
    /// The book in the data folder.
    #[must_use]
    pub fn open(accelerators: AcceleratorsConfig, library: Library, data: &Path) -> Self {
        let file = data.join(FILE);
        let trials = match read(&file) {
            Ok(trials) => trials,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                warn!(%error, "cannot read how models did on the board's accelerators; they are tried again");
                Vec::new()
            }
        };
        Self {
            accelerators,
            library,
            file: Some(file),
            trials,
            system: None,
        }
    }

    /// What runs a version of a model. What has not been tried is tried now, which may take a minute each.
    pub(in super::super) fn choose(&mut self, entry: &ModelEntry) -> Choice {
        let chain = self.accelerators.execution_providers.clone();
        choose(&chain, |provider| self.trial(entry, provider))
    }

    /// What the simulated accelerator does, where the board has one.
    pub(in super::super) const fn sim(&self) -> Option<SimProvider> {
        self.accelerators.sim
    }

    fn trial(&mut self, entry: &ModelEntry, provider: ExecutionProvider) -> Trial {
        let key = match self.key(entry, provider) {
            Ok(key) => key,
            Err(error) => {
                let why = format!("the model's files cannot be read: {error}");
                return Trial::Failed { why };
            }
        };
        if let Some(known) = self.trials.iter().find(|known| known.key == key) {
            return known.trial.clone();
        }
        let answer = child::ask(self.question(entry, provider), TRIAL_MAX);
        let is_of_the_provider = !matches!(answer, Err(ChildError::Start(_)));
        let trial = answer.unwrap_or_else(|error| {
            let why = chain(&error);
            Trial::Failed { why }
        });
        info!(model = %entry.name, version = entry.version, %provider, ?trial, "an execution provider was tried");
        if is_of_the_provider {
            self.remember(key, trial.clone());
        }
        trial
    }

    /// The command line of a trial.
    fn question(&self, entry: &ModelEntry, provider: ExecutionProvider) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["probe", "trial", entry.name.as_str()]
            .map(OsString::from)
            .into();
        words.push(entry.version.to_string().into());
        words.push(provider.name().into());
        words.extend(["--models".into(), self.library.dir.clone().into()]);
        words.extend([
            "--onnxruntime".into(),
            self.library.onnxruntime.clone().into(),
        ]);
        if let Some(sim) = self.accelerators.sim {
            words.extend(["--sim".into(), sim.name().into()]);
        }
        words
    }

    fn remember(&mut self, key: String, trial: Trial) {
        self.trials.push(Entry { key, trial });
        let excess = self.trials.len().saturating_sub(TRIALS_MAX);
        self.trials.drain(..excess);
        let Some(file) = &self.file else { return };
        let kept = serde_json::to_vec(&self.trials)
            .map_err(io::Error::from)
            .and_then(|text| durable::replace(file, &text));
        if let Err(error) = kept {
            warn!(%error, "cannot keep how a model did on an accelerator; it is tried again at the next start");
        }
    }

    /// What a trial depends on: the model's files and settings, the provider, its library and the kernel with its drivers.
    fn key(&mut self, entry: &ModelEntry, provider: ExecutionProvider) -> io::Result<String> {
        let system = match &self.system {
            Some(system) => system,
            None => self.system.insert(system(&self.library.onnxruntime)?),
        };
        let mut hash = Sha256::new();
        hash.update(system);
        hash.update(provider.name());
        hash.update(self.accelerators.sim.map_or("", |sim| sim.name()));
        if let Some(own) = provider_library(provider) {
            for folder in library_folders(&self.library.onnxruntime) {
                add_file(&mut hash, &folder.join(own))?;
            }
        }
        let version = entry.graph.parent().unwrap_or(Path::new("."));
        // Weights may lie beside the graph.
        let mut files: Vec<PathBuf> = fs::read_dir(version)?
            .map(|file| Ok(file?.path()))
            .collect::<io::Result<_>>()?;
        files.sort();
        files.push(version.join("../model.toml"));
        for file in &files {
            add_file(&mut hash, file)?;
        }
        Ok(hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }
}

fn read(file: &Path) -> io::Result<Vec<Entry>> {
    let mut text = Vec::new();
    File::open(file)?
        .take(FILE_MAX_BYTES)
        .read_to_end(&mut text)?;
    let mut trials: Vec<Entry> = serde_json::from_slice(&text)?;
    trials.truncate(TRIALS_MAX);
    Ok(trials)
}

/// ONNX Runtime's library, and the kernel that brings the drivers.
fn system(onnxruntime: &Path) -> io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    add_file(&mut hash, onnxruntime)?;
    let kernel = nix::sys::utsname::uname()?;
    hash.update(kernel.release().as_encoded_bytes());
    hash.update(kernel.version().as_encoded_bytes());
    Ok(hash.finalize().to_vec())
}

/// The library of a provider's own that ONNX Runtime loads for it.
const fn provider_library(provider: ExecutionProvider) -> Option<&'static str> {
    match provider {
        ExecutionProvider::QnnGpu => Some("libQnnGpu.so"),
        ExecutionProvider::QnnHtp => Some("libQnnHtp.so"),
        ExecutionProvider::Cpu
        | ExecutionProvider::Xnnpack
        | ExecutionProvider::Acl
        | ExecutionProvider::Sim => None,
    }
}

/// Where such a library may lie.
fn library_folders(onnxruntime: &Path) -> impl Iterator<Item = PathBuf> {
    let beside = onnxruntime.parent().map(Path::to_owned);
    let usual = ["/usr/lib", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib"];
    beside.into_iter().chain(usual.map(PathBuf::from))
}

/// Adds a file's name and what it holds, if it is there.
fn add_file(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    hash.update("/");
    hash.update(hash_of(path)?);
    Ok(())
}
