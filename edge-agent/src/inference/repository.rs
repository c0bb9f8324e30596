//! The model repository on disk, as Triton lays it out: `DIR/{model}/{version}/model.onnx`, and beside the versions
//! an optional `model.toml`.

use std::path::{Path, PathBuf};

use edge_protocol::Id;
use serde::Deserialize;

/// A model found in the repository.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelEntry {
    /// Name of the model: that of its folder.
    pub name: Id,
    /// Highest version that has a `model.onnx`.
    pub version: u64,
    /// Its graph.
    pub graph: PathBuf,
    /// Its settings.
    pub config: ModelConfig,
}

/// `model.toml`: how a model is served.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Most rows of one run: requests of several clients run together along the first dimension of every input up to
    /// this. 1, or Triton's 0: every request runs alone. Absent: where the graph allows it and a trial run at the start
    /// shows that the answers are the same and that it saves time.
    pub max_batch_size: Option<usize>,
    /// Longest time that a request waits for others to run with, in microseconds.
    pub max_queue_delay_microseconds: u64,
    /// Requests that may wait; more are refused with 503, those of the client first that has most.
    pub max_queue_size: usize,
    /// Priorities that a request may have: 1 goes first, this one last. 0: all are alike.
    pub priority_levels: u64,
    /// Priority of a request that names none. 0: the last.
    pub default_priority_level: u64,
    /// Requests a second that one client may send, on average; more are refused with 429. 0: as many as it wants.
    pub client_requests_per_second: f64,
    /// Requests that one client may send at once after a pause, where `client_requests_per_second` is set.
    pub client_burst: u32,
    /// Copies of the model that run side by side.
    pub instances: usize,
    /// Threads that one run uses.
    pub intra_op_threads: usize,
    /// Whether inputs may hold NaN and infinities; otherwise they are refused with 400.
    pub allow_non_finite: bool,
    /// Names of the classes, for people.
    pub labels: Vec<String>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            max_batch_size: None,
            max_queue_delay_microseconds: 0,
            max_queue_size: 128,
            priority_levels: 0,
            default_priority_level: 0,
            client_requests_per_second: 0.0,
            client_burst: 10,
            instances: 1,
            intra_op_threads: 1,
            allow_non_finite: false,
            labels: Vec::new(),
        }
    }
}

/// What is wrong with the repository or a model in it.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A folder or file cannot be read.
    #[error("cannot read {path} in the model repository: {source}")]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A model's settings are not understood.
    #[error("cannot understand {path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A setting out of its range.
    #[error("{path}: {key} must lie between {min} and {max}")]
    Range {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// Smallest value.
        min: usize,
        /// Largest value.
        max: usize,
    },
    /// A quota that is none.
    #[error("{path}: client_requests_per_second must be 0 or lie between 1/3600 and 1000000")]
    Rate {
        /// The file.
        path: PathBuf,
    },
    /// A model without a version that can be loaded.
    #[error("{path} has no version: put the graph into {path}/1/model.onnx")]
    NoVersion {
        /// The model's folder.
        path: PathBuf,
    },
}

/// Folders of the repository that have a model's name, in order, each with its model or with what is wrong with it.
pub(super) type Scan = Vec<(Id, Result<ModelEntry, RepositoryError>)>;

/// The models of the repository at `dir` by name, or what is wrong with each. Folders whose name is no model name
/// are passed over.
///
/// # Errors
/// [`RepositoryError::Read`] when `dir` itself cannot be read.
pub fn scan(dir: &Path) -> Result<Scan, RepositoryError> {
    let mut models = Vec::new();
    for (name, path) in folders(dir)? {
        if let Ok(name) = Id::new(&name) {
            models.push((name.clone(), read_model(name, &path)));
        }
    }
    models.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(models)
}

fn read_model(name: Id, path: &Path) -> Result<ModelEntry, RepositoryError> {
    let (version, graph) = folders(path)?
        .into_iter()
        .filter_map(|(version, path)| Some((version.parse().ok()?, path.join("model.onnx"))))
        .filter(|(version, graph): &(u64, PathBuf)| *version > 0 && graph.is_file())
        .max()
        .ok_or_else(|| RepositoryError::NoVersion {
            path: path.to_owned(),
        })?;
    Ok(ModelEntry {
        name,
        version,
        graph,
        config: read_config(&path.join("model.toml"))?,
    })
}

fn read_config(path: &Path) -> Result<ModelConfig, RepositoryError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(RepositoryError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let config: ModelConfig = toml::from_str(&text).map_err(|source| RepositoryError::Config {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let whole = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    for (key, value, min, max) in [
        (
            "max_batch_size",
            config.max_batch_size.unwrap_or(0),
            0,
            1_024,
        ),
        (
            "max_queue_delay_microseconds",
            whole(config.max_queue_delay_microseconds),
            0,
            1_000_000,
        ),
        ("max_queue_size", config.max_queue_size, 1, 512),
        ("priority_levels", whole(config.priority_levels), 0, 16),
        (
            "default_priority_level",
            whole(config.default_priority_level),
            0,
            whole(config.priority_levels.max(1)),
        ),
        ("client_burst", config.client_burst as usize, 1, 10_000),
        ("instances", config.instances, 1, 16),
        ("intra_op_threads", config.intra_op_threads, 1, 64),
    ] {
        if !(min..=max).contains(&value) {
            return Err(RepositoryError::Range {
                path: path.to_owned(),
                key,
                min,
                max,
            });
        }
    }
    // Less than one an hour would be no service, and more than a million a second no limit.
    let rate = config.client_requests_per_second;
    if rate != 0.0 && !(1.0 / 3_600.0..=1e6).contains(&rate) {
        return Err(RepositoryError::Rate {
            path: path.to_owned(),
        });
    }
    Ok(config)
}

fn folders(dir: &Path) -> Result<Vec<(String, PathBuf)>, RepositoryError> {
    let error = |source| RepositoryError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.is_dir()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            folders.push((name.to_owned(), path));
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn takes_the_highest_version_by_number() {
        let dir = repository(&[
            ("digits/2/model.onnx", ""),
            ("digits/10/model.onnx", ""),
            ("digits/11/note.txt", "no graph"),
            ("digits/draft/model.onnx", "not a version"),
            ("digits/model.toml", "instances = 2"),
            ("Not A Name/1/model.onnx", ""),
        ]);
        let models = scan(dir.path()).unwrap();
        let [(name, Ok(entry))] = models.as_slice() else {
            panic!("one model: {models:?}")
        };
        assert_eq!(name.as_str(), "digits");
        assert_eq!(entry.version, 10);
        assert_eq!(entry.config.instances, 2);
    }

    #[test]
    fn a_broken_model_does_not_hide_the_others() {
        let dir = repository(&[
            ("empty/readme.txt", ""),
            ("good/1/model.onnx", ""),
            ("typo/1/model.onnx", ""),
            ("typo/model.toml", "instnaces = 2"),
            ("zero/1/model.onnx", ""),
            ("zero/model.toml", "instances = 0"),
        ]);
        let messages: Vec<String> = scan(dir.path())
            .unwrap()
            .into_iter()
            .map(|(name, entry)| match entry {
                Ok(entry) => format!("{name}: {}", entry.version),
                Err(error) => format!("{name}: {error}"),
            })
            .collect();
        assert_eq!(messages.len(), 4);
        assert!(messages[0].contains("has no version"), "{messages:?}");
        assert_eq!(messages[1], "good: 1");
        assert!(messages[2].contains("instnaces"), "{messages:?}");
        assert!(
            messages[3].contains("instances must lie between 1 and 16"),
            "{messages:?}"
        );
    }
}
