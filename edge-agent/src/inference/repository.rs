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
    /// Requests that may wait; more are refused with 503.
    pub max_queue_size: usize,
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
            max_queue_size: 128,
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
    for (key, value, max) in [
        ("max_queue_size", config.max_queue_size, 512),
        ("instances", config.instances, 16),
        ("intra_op_threads", config.intra_op_threads, 64),
    ] {
        if !(1..=max).contains(&value) {
            return Err(RepositoryError::Range {
                path: path.to_owned(),
                key,
                min: 1,
                max,
            });
        }
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
