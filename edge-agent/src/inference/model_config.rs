//! `model.toml`: how a model is served. Reads and checks the file; knows nothing of graphs, queues or threads.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// `model.toml`: how a model is served. Every key has a default; names are Triton's where Triton has the same.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Most rows of one run, 0 to 1,024. Requests of several clients are joined along the first dimension of every
    /// input up to this. 0 and 1: every request runs alone. Absent: as many as a trial at the start shows to be worth
    /// it, where the first dimension of every input and output may have any length.
    pub max_batch_size: Option<usize>,
    /// Longest time that a request waits for others to join its batch, in microseconds, 0 to 1,000,000.
    pub max_queue_delay_microseconds: u64,
    /// Requests that may wait, 1 to 512; more are refused with 503.
    pub max_queue_size: usize,
    /// Levels of the request's parameter `priority`: 1 is served first, this one last, 0 to 16. 0: all are alike.
    pub priority_levels: u32,
    /// Level of a request that names none, or one that there is not, 1 to 16.
    pub default_priority_level: u32,
    /// Requests a minute that one client may send on average, 0 to 60,000,000; more are refused with 429. 0: as many
    /// as it wants.
    pub client_requests_per_minute: u32,
    /// Requests that one client may send at once after a pause, 1 to 100,000.
    pub client_burst: u32,
    /// Copies of the model that run side by side, 1 to 16.
    pub instances: usize,
    /// Threads that one run uses, 1 to 64.
    pub intra_op_threads: usize,
    /// Whether inputs may hold NaN and infinities; otherwise they are refused with 400. Also lets the outputs of a
    /// warm-up hold them.
    pub allow_non_finite: bool,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// Requests that every copy of the model must answer before it serves; see [`ModelConfig::warmup`].
    warmup: Option<Vec<Warmup>>,
    /// Names of the classes, by index: for people, and in answers to the parameter `classification`.
    pub labels: Vec<String>,
}

/// Which versions of a model are served. A request that names none gets the highest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionPolicy {
    /// The highest so many: `{ latest = 2 }`. Where one of them cannot be loaded, the next lower takes its place.
    Latest(usize),
    /// Every version: `"all"`.
    All,
    /// These versions: `{ given = [1, 3] }`.
    Given(Vec<u64>),
}

/// A request that warms a model up and shows that it works.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Warmup {
    /// How often it is made, 1 to 100.
    pub count: usize,
    /// By name of the model's input; those not named are zeros of the graph's shape.
    pub inputs: BTreeMap<String, WarmupInput>,
    /// What those not named are instead.
    #[serde(skip)]
    pub(super) others: Fill,
}

/// An input of a [`Warmup`].
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmupInput {
    /// Its shape; absent: the graph's, with 1 where the graph takes any length.
    pub shape: Option<Vec<u64>>,
    /// Its elements.
    pub fill: Fill,
}

/// Elements of a [`WarmupInput`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// Zeros, `false`, empty texts.
    #[default]
    Zeros,
    /// The same numbers from 0 to 1 each time (0 or 1 for integers); texts of letters.
    Random,
}

/// What is wrong with a `model.toml`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path} in the model repository: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is not understood.
    #[error("cannot understand {path}: {source}")]
    Parse {
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
        min: u64,
        /// Largest value.
        max: u64,
    },
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            max_batch_size: None,
            max_queue_delay_microseconds: 0,
            max_queue_size: 128,
            priority_levels: 0,
            default_priority_level: 1,
            client_requests_per_minute: 0,
            client_burst: 10,
            instances: 1,
            intra_op_threads: 1,
            allow_non_finite: false,
            version_policy: VersionPolicy::Latest(1),
            warmup: None,
            labels: Vec::new(),
        }
    }
}

impl Default for Warmup {
    fn default() -> Self {
        Self {
            count: 1,
            inputs: BTreeMap::new(),
            others: Fill::Zeros,
        }
    }
}

impl Warmup {
    /// A request of such elements and the graph's shapes.
    pub(super) fn filled(others: Fill) -> Self {
        Self {
            others,
            ..Self::default()
        }
    }
}

impl ModelConfig {
    /// Reads `path`; a file that is not there stands for the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// The requests of a warm-up. Without the key `warmup`, one of zeros; none after `warmup = []`.
    #[must_use]
    pub fn warmup(&self) -> Vec<Warmup> {
        self.warmup
            .clone()
            .unwrap_or_else(|| vec![Warmup::default()])
    }

    /// The requests of a warm-up that the file gives; none where it does not say, or wants none.
    #[must_use]
    pub fn given_warmup(&self) -> &[Warmup] {
        self.warmup.as_deref().unwrap_or_default()
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        match config.out_of_range() {
            Some((key, min, max)) => Err(ConfigError::Range {
                path: path.to_owned(),
                key,
                min,
                max,
            }),
            None => Ok(config),
        }
    }

    /// The first setting that is out of its range, with the range.
    fn out_of_range(&self) -> Option<(&'static str, u64, u64)> {
        let warmups = self.warmup.as_deref().unwrap_or_default();
        let fixed = [
            (
                "max_batch_size",
                self.max_batch_size.unwrap_or(0) as u64,
                0,
                1024,
            ),
            (
                "max_queue_delay_microseconds",
                self.max_queue_delay_microseconds,
                0,
                1_000_000,
            ),
            ("max_queue_size", self.max_queue_size as u64, 1, 512),
            ("priority_levels", self.priority_levels.into(), 0, 16),
            (
                "default_priority_level",
                self.default_priority_level.into(),
                1,
                16,
            ),
            (
                "client_requests_per_minute",
                self.client_requests_per_minute.into(),
                0,
                60_000_000,
            ),
            ("client_burst", self.client_burst.into(), 1, 100_000),
            ("instances", self.instances as u64, 1, 16),
            ("intra_op_threads", self.intra_op_threads as u64, 1, 64),
            ("the number of warmup entries", warmups.len() as u64, 0, 16),
        ];
        let versions = match &self.version_policy {
            VersionPolicy::Latest(count) => {
                vec![("version_policy.latest", *count as u64, 1, VERSIONS_MAX)]
            }
            VersionPolicy::All => Vec::new(),
            VersionPolicy::Given(given) => vec![(
                "the number of versions in version_policy.given",
                given.len() as u64,
                1,
                VERSIONS_MAX,
            )],
        };
        let counts = warmups
            .iter()
            .map(|warmup| ("warmup.count", warmup.count as u64, 1, 100));
        fixed
            .into_iter()
            .chain(versions)
            .chain(counts)
            .find(|(_, value, min, max)| !(min..=max).contains(&value))
            .map(|(key, _, min, max)| (key, min, max))
    }
}

/// Versions of one model that are served at once.
pub(super) const VERSIONS_MAX: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModelConfig, String> {
        ModelConfig::parse(text, Path::new("model.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_stands_for_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config, ModelConfig::default());
        assert_eq!(config.warmup(), [Warmup::default()], "one request of zeros");
    }

    #[test]
    fn reads_every_key() {
        let config = parse(
            r#"
            max_batch_size = 8
            max_queue_delay_microseconds = 500
            max_queue_size = 64
            priority_levels = 3
            default_priority_level = 2
            client_requests_per_minute = 600
            client_burst = 20
            instances = 2
            intra_op_threads = 4
            allow_non_finite = true
            version_policy = { given = [1, 3] }
            labels = ["cat", "dog"]

            [[warmup]]
            count = 2
            inputs.pixels = { shape = [8, 64], fill = "random" }
            inputs.scale = {}
            "#,
        )
        .unwrap();
        let pixels = WarmupInput {
            shape: Some(vec![8, 64]),
            fill: Fill::Random,
        };
        let wanted = ModelConfig {
            max_batch_size: Some(8),
            max_queue_delay_microseconds: 500,
            max_queue_size: 64,
            priority_levels: 3,
            default_priority_level: 2,
            client_requests_per_minute: 600,
            client_burst: 20,
            instances: 2,
            intra_op_threads: 4,
            allow_non_finite: true,
            version_policy: VersionPolicy::Given(vec![1, 3]),
            warmup: Some(vec![Warmup {
                count: 2,
                inputs: BTreeMap::from([
                    ("pixels".into(), pixels),
                    ("scale".into(), WarmupInput::default()),
                ]),
                others: Fill::Zeros,
            }]),
            labels: vec!["cat".into(), "dog".into()],
        };
        assert_eq!(config, wanted);
    }

    #[test]
    fn version_policies_and_the_warm_up_that_is_switched_off() {
        let policy = |text| parse(text).unwrap().version_policy;
        assert_eq!(policy(r#"version_policy = "all""#), VersionPolicy::All);
        assert_eq!(
            policy("version_policy = { latest = 2 }"),
            VersionPolicy::Latest(2)
        );
        assert!(parse("warmup = []").unwrap().warmup().is_empty());
    }

    #[test]
    fn a_key_that_is_misspelt_or_out_of_range_is_named() {
        for (text, wanted) in [
            ("instnaces = 2", "instnaces"),
            ("instances = 0", "instances must lie between 1 and 16"),
            (
                "max_batch_size = 4096",
                "max_batch_size must lie between 0 and 1024",
            ),
            (
                "max_queue_delay_microseconds = 2000000",
                "max_queue_delay_microseconds must lie between 0 and 1000000",
            ),
            (
                "priority_levels = 17",
                "priority_levels must lie between 0 and 16",
            ),
            (
                "version_policy = { latest = 0 }",
                "version_policy.latest must lie between 1 and 16",
            ),
            (
                "version_policy = { given = [] }",
                "version_policy.given must lie between 1 and 16",
            ),
            ("version_policy = 'newest'", "newest"),
            (
                "[[warmup]]\ncount = 0",
                "warmup.count must lie between 1 and 100",
            ),
            ("[[warmup]]\ninputs.x = { fill = 'ones' }", "ones"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
