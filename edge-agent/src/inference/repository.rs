//! The model repository on disk, as Triton lays it out: `DIR/{model}/{version}/model.onnx`, and beside the versions
//! an optional `model.toml`. Says what lies there.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use edge_protocol::Id;

use super::model_config::{ConfigError, ModelConfig, VersionPolicy};

/// Name of a version's graph.
const GRAPH: &str = "model.onnx";

/// A version of a model, with what it takes to load it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelEntry {
    /// Name of the model: that of its folder.
    pub name: Id,
    /// Its version.
    pub version: u64,
    /// Its graph.
    pub graph: PathBuf,
    /// Which file the graph is.
    pub mark: Mark,
    /// Its settings.
    pub config: ModelConfig,
}

/// A model's folder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// Name of the model: that of the folder.
    pub name: Id,
    /// Its settings.
    pub config: ModelConfig,
    /// Its versions that have a graph; at least one.
    pub versions: BTreeMap<u64, VersionFolder>,
}

/// A version's folder.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionFolder {
    /// The folder.
    pub path: PathBuf,
    /// The graph in it.
    pub graph: PathBuf,
    /// Which file the graph is: another one has another mark.
    pub mark: Mark,
}

/// Tells a file from one that was later put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) bytes: u64,
    pub(super) modified: Option<SystemTime>,
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
    /// A model's settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model without a version that can be loaded.
    #[error("{path} has no version: put the graph into {path}/1/model.onnx")]
    NoVersion {
        /// The model's folder.
        path: PathBuf,
    },
}

/// What is wrong with a model whose `version_policy` names none of its versions.
pub(crate) const NONE_GIVEN: &str =
    "none of the versions that version_policy gives in model.toml is there";

/// Folders of the repository that have a model's name, in order, each with its model or with what is wrong with it.
pub(super) type Scan = Vec<(Id, Result<ModelFolder, RepositoryError>)>;

/// The models of the repository at `dir` by name, or what is wrong with each. Folders whose name is no model name
/// are passed over.
///
/// # Errors
/// [`RepositoryError::Read`] when `dir` itself cannot be read.
pub fn scan(dir: &Path) -> Result<Scan, RepositoryError> {
    let mut models = Vec::new();
    for (name, path) in folders(dir)? {
        if let Ok(name) = Id::new(&name) {
            models.push((name.clone(), ModelFolder::read(name, &path)));
        }
    }
    models.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(models)
}

impl ModelFolder {
    /// Reads the folder at `path`.
    ///
    /// # Errors
    /// [`RepositoryError`] says what is wrong with it.
    pub(super) fn read(name: Id, path: &Path) -> Result<Self, RepositoryError> {
        let versions: BTreeMap<_, _> = folders(path)?
            .into_iter()
            .filter_map(|(version, path)| {
                Some((version_number(&version)?, VersionFolder::find(path)?))
            })
            .collect();
        if versions.is_empty() {
            return Err(RepositoryError::NoVersion {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            name,
            config: ModelConfig::read(&path.join("model.toml"))?,
            versions,
        })
    }

    /// What it takes to load a version.
    #[must_use]
    pub fn entry(&self, version: u64) -> Option<ModelEntry> {
        let files = self.versions.get(&version)?;
        Some(ModelEntry {
            name: self.name.clone(),
            version,
            graph: files.graph.clone(),
            mark: files.mark,
            config: self.config.clone(),
        })
    }

    /// The version that a request gets which names none, if it can be loaded.
    #[must_use]
    pub fn newest(&self) -> Option<ModelEntry> {
        let mut versions = self.versions.keys().rev();
        let newest = match &self.config.version_policy {
            VersionPolicy::Latest(_) | VersionPolicy::All => versions.next(),
            VersionPolicy::Given(given) => versions.find(|version| given.contains(version)),
        };
        self.entry(*newest?)
    }
}

impl VersionFolder {
    fn find(path: PathBuf) -> Option<Self> {
        let graph = path.join(GRAPH);
        let metadata = std::fs::metadata(&graph)
            .ok()
            .filter(std::fs::Metadata::is_file)?;
        let mark = Mark {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        };
        Some(Self { path, graph, mark })
    }
}

/// The version that a folder of this name holds: a whole number from 1, without leading zeros.
pub(super) fn version_number(name: &str) -> Option<u64> {
    let version: u64 = name.parse().ok()?;
    (version > 0 && version.to_string() == name).then_some(version)
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
    fn versions_are_numbers_and_the_highest_is_the_newest() {
        let dir = repository(&[
            ("digits/2/model.onnx", ""),
            ("digits/10/model.onnx", ""),
            ("digits/012/model.onnx", "12 has no leading zero"),
            ("digits/0/model.onnx", "versions begin at 1"),
            ("digits/11/note.txt", "no graph"),
            ("digits/draft/model.onnx", "not a version"),
            ("digits/model.toml", "instances = 2"),
            ("Not A Name/1/model.onnx", ""),
        ]);
        let models = scan(dir.path()).unwrap();
        let [(name, Ok(folder))] = models.as_slice() else {
            panic!("one model: {models:?}")
        };
        assert_eq!(name.as_str(), "digits");
        let versions: Vec<_> = folder.versions.keys().copied().collect();
        assert_eq!(versions, [2, 10]);
        let entry = folder.newest().unwrap();
        assert_eq!(entry.version, 10);
        assert_eq!(entry.config.instances, 2);
    }

    #[test]
    fn the_newest_version_is_one_that_is_given() {
        let dir = repository(&[
            ("digits/2/model.onnx", ""),
            ("digits/3/model.onnx", ""),
            ("digits/model.toml", "version_policy = { given = [2, 9] }"),
        ]);
        let models = scan(dir.path()).unwrap();
        let folder = models[0].1.as_ref().unwrap();
        assert_eq!(folder.newest().unwrap().version, 2);
    }

    #[test]
    fn a_graph_that_is_replaced_has_another_mark() {
        let dir = repository(&[("digits/1/model.onnx", "one"), ("two", "two")]);
        let mark = || {
            let models = scan(dir.path()).unwrap();
            models[0].1.as_ref().unwrap().versions[&1].mark
        };
        let before = mark();
        assert_eq!(mark(), before);
        fs::rename(
            dir.path().join("two"),
            dir.path().join("digits/1/model.onnx"),
        )
        .unwrap();
        assert_ne!(mark(), before);
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
                Ok(folder) => format!("{name}: {:?}", folder.versions.keys()),
                Err(error) => format!("{name}: {error}"),
            })
            .collect();
        assert_eq!(messages.len(), 4);
        assert!(messages[0].contains("has no version"), "{messages:?}");
        assert_eq!(messages[1], "good: [1]");
        assert!(messages[2].contains("instnaces"), "{messages:?}");
        assert!(
            messages[3].contains("instances must lie between 1 and 16"),
            "{messages:?}"
        );
    }
}
