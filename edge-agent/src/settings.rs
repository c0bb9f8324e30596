//! Settings of the agent: each one is a flag and a key of the TOML file; flags win.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use edge_hal::identity::{KeyPlace, TPM_DEVICE};
use edge_identity::key::CertificateFingerprint;
use edge_protocol::{BrokerUrl, Id};
use serde::Deserialize;

use crate::{health::WatchdogUse, identity::Enrolment, service_url::ServiceUrl};

const DEFAULT_MODELS: &str = "/var/lib/edge-agent/models";
const DEFAULT_DATA: &str = "/var/lib/edge-agent";
const DEFAULT_ONNXRUNTIME: &str = "/usr/lib/edge-agent/libonnxruntime.so";

/// What a user may say, on the command line or in the file.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Region that the box belongs to
    #[arg(long, env = "EDGE_REGION")]
    pub region: Option<Id>,
    /// Name of this box, unique in its region: a-z, 0-9 and '-', at most 63 characters
    #[arg(long, env = "EDGE_BOX_ID")]
    pub box_id: Option<Id>,
    /// The region's MQTT broker, as mqtts://HOST:PORT; mqtt://HOST:PORT is without any protection
    #[arg(long, env = "EDGE_BROKER", value_name = "URL")]
    pub broker: Option<BrokerUrl>,
    /// Board, by name or as a path to its file [default: as the device tree says; host-sim without one]
    #[arg(long, env = "EDGE_BOARD")]
    pub board: Option<String>,
    /// Model repository, laid out as DIR/{model}/{version}/model.onnx [default: /var/lib/edge-agent/models]
    #[arg(long, env = "EDGE_MODELS", value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Where the agent keeps its state [default: /var/lib/edge-agent]
    #[arg(long, env = "EDGE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The ONNX Runtime library [default: /usr/lib/edge-agent/libonnxruntime.so]
    #[arg(long, env = "EDGE_ONNXRUNTIME", value_name = "FILE")]
    pub onnxruntime: Option<PathBuf>,
    /// Seconds between two looks at the box's state; what changed is reported [default: 10]
    #[arg(long, env = "EDGE_TELEMETRY_INTERVAL_S", value_name = "SECONDS")]
    pub telemetry_interval_s: Option<u32>,
    /// Seconds without change after which the box says that it lives [default: 60]
    #[arg(long, env = "EDGE_HEARTBEAT_S", value_name = "SECONDS")]
    pub heartbeat_s: Option<u32>,
    /// Seconds that requests in progress may take to end after SIGTERM [default: 10]
    #[arg(long, env = "EDGE_DRAIN_TIMEOUT_S", value_name = "SECONDS")]
    pub drain_timeout_s: Option<u32>,
    /// Memory for the answers that are kept for repeated requests, in MiB [default: 64]
    #[arg(long, env = "EDGE_ANSWER_CACHE_MIB", value_name = "MIB")]
    pub answer_cache_mib: Option<u32>,
    /// Memory that all models together may take, in MiB; idle ones give way to one that is asked for [default: half of
    /// the machine's]
    #[arg(long, env = "EDGE_MODEL_MEMORY_MIB", value_name = "MIB")]
    pub model_memory_mib: Option<u32>,
    /// The region's indexer, as https://HOST:PORT: the box enrols there, and doctor asks it what the region says of it
    #[arg(long, env = "EDGE_INDEXER", value_name = "URL")]
    pub indexer: Option<ServiceUrl>,
    /// Fingerprint of the region's root certificate, as `edgectl ca fingerprint` prints it
    #[arg(long, env = "EDGE_REGION_CA_SHA256", value_name = "HEX")]
    pub region_ca_sha256: Option<CertificateFingerprint>,
    /// File with a one-time enrolment token [default: an admin approves the box's fingerprint]
    #[arg(long, env = "EDGE_ENROLMENT_TOKEN_FILE", value_name = "FILE")]
    pub enrolment_token_file: Option<PathBuf>,
    /// The TPM that holds the box's key where there is one [default: /dev/tpmrm0]
    #[arg(long, env = "EDGE_TPM", value_name = "DEVICE")]
    pub tpm: Option<PathBuf>,
    /// Repository of updates, as http://HOST:PORT/PATH; without it the box gets none
    #[arg(long, env = "EDGE_UPDATE_SERVER", value_name = "URL")]
    pub update_server: Option<ServiceUrl>,
    /// Script of what happens to a simulated board: heat, stuck fans, lost sensors
    #[arg(long, env = "EDGE_SIMULATE", value_name = "FILE")]
    pub simulate: Option<PathBuf>,
    /// Seconds that one run of a model may take before it is stopped [default: 30]
    #[arg(long, env = "EDGE_RUN_TIMEOUT_S", value_name = "SECONDS")]
    pub run_timeout_s: Option<u32>,
    /// Whether the board's watchdog is used [default: auto]
    #[arg(long, env = "EDGE_WATCHDOG", value_enum, value_name = "USE")]
    pub watchdog: Option<WatchdogUse>,
    /// Serve the Open Inference Protocol over HTTP as well, such as at 127.0.0.1:8000. It knows no identities: whoever
    /// reaches the address may ask, and programs on the box itself may load and unload models
    #[arg(long, env = "EDGE_HTTP", value_name = "HOST:PORT")]
    pub http: Option<SocketAddr>,
    /// Milliseconds after which a request is written to the log as slow, 0 for never [default: 1000]
    #[arg(long, env = "EDGE_SLOW_REQUEST_MS", value_name = "MS")]
    pub slow_request_ms: Option<u32>,
    /// Clients that may load and unload models and see the repository over MQTT, separated by commas
    #[arg(
        long,
        env = "EDGE_ADMINS",
        value_name = "CLIENTS",
        value_delimiter = ','
    )]
    pub admins: Option<Vec<Id>>,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The region.
    pub region: Id,
    /// This box.
    pub box_id: Id,
    /// The broker.
    pub broker: BrokerUrl,
    /// Board name or path; none to go by the device tree.
    pub board: Option<String>,
    /// Model repository.
    pub models: PathBuf,
    /// State directory; exists and is writable.
    pub data: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// Telemetry interval.
    pub telemetry_interval_s: u32,
    /// Longest silence of the telemetry.
    pub heartbeat_s: u32,
    /// Time to drain.
    pub drain_timeout_s: u32,
    /// Bound on cached answers.
    pub answer_cache_bytes: usize,
    /// Bound on models, if one is set.
    pub model_memory_bytes: Option<u64>,
    /// Script for a simulated board.
    pub simulate: Option<PathBuf>,
    /// Time that one run of a model may take.
    pub run_timeout_s: u32,
    /// Whether the board's watchdog is used.
    pub watchdog: WatchdogUse,
    /// Address for HTTP; none for off.
    pub http: Option<SocketAddr>,
    /// Clients that may change what is served.
    pub admins: Vec<Id>,
    /// A request that takes longer is written to the log.
    pub slow_request: Duration,
    /// Where the box's key lies.
    pub(crate) key_place: KeyPlace,
    /// How the box gets its certificate; none where the broker is reached without TLS.
    pub(crate) enrolment: Option<Enrolment>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not what is expected.
    #[error("cannot understand the settings file {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A setting without default.
    #[error("no {key} is set; give --{flag} or write {key} = \"...\" into the settings file")]
    Missing {
        /// Key in the file.
        key: &'static str,
        /// Name of the flag.
        flag: &'static str,
    },
    /// A broker over TLS, and nowhere to enrol.
    #[error(
        "the broker is reached over TLS, so {key} is needed too; give --{flag}, or set {key} in the settings file"
    )]
    Enrolment {
        /// Key in the file.
        key: &'static str,
        /// Name of the flag, and what it takes.
        flag: &'static str,
    },
    /// A number out of its range.
    #[error("{key} is {value}, but must lie between {min} and {max}")]
    Range {
        /// Key in the file.
        key: &'static str,
        /// What was given.
        value: u32,
        /// Smallest value.
        min: u32,
        /// Largest value.
        max: u32,
    },
    /// The state directory cannot be made or written to.
    #[error("cannot create and write to the data directory {path}; give another one with --data")]
    Data {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Options {
    /// Reads the settings file.
    ///
    /// # Errors
    /// [`SettingsError::Read`] and [`SettingsError::Parse`].
    pub fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| SettingsError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// These options, and where one is not given, that of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            region: self.region.or(other.region),
            box_id: self.box_id.or(other.box_id),
            broker: self.broker.or(other.broker),
            board: self.board.or(other.board),
            models: self.models.or(other.models),
            data: self.data.or(other.data),
            onnxruntime: self.onnxruntime.or(other.onnxruntime),
            telemetry_interval_s: self.telemetry_interval_s.or(other.telemetry_interval_s),
            heartbeat_s: self.heartbeat_s.or(other.heartbeat_s),
            drain_timeout_s: self.drain_timeout_s.or(other.drain_timeout_s),
            answer_cache_mib: self.answer_cache_mib.or(other.answer_cache_mib),
            model_memory_mib: self.model_memory_mib.or(other.model_memory_mib),
            indexer: self.indexer.or(other.indexer),
            region_ca_sha256: self.region_ca_sha256.or(other.region_ca_sha256),
            enrolment_token_file: self.enrolment_token_file.or(other.enrolment_token_file),
            tpm: self.tpm.or(other.tpm),
            update_server: self.update_server.or(other.update_server),
            simulate: self.simulate.or(other.simulate),
            run_timeout_s: self.run_timeout_s.or(other.run_timeout_s),
            watchdog: self.watchdog.or(other.watchdog),
            http: self.http.or(other.http),
            admins: self.admins.or(other.admins),
            slow_request_ms: self.slow_request_ms.or(other.slow_request_ms),
        }
    }

    /// The data directory, set or not.
    pub(crate) fn data_dir(&self) -> PathBuf {
        path_or(self.data.as_ref(), DEFAULT_DATA)
    }

    /// Where the box's key lies, set or not.
    pub(crate) fn key_place(&self) -> KeyPlace {
        KeyPlace {
            folder: self.data_dir(),
            tpm: path_or(self.tpm.as_ref(), TPM_DEVICE),
        }
    }

    /// The model repository, set or not.
    pub(crate) fn models_dir(&self) -> PathBuf {
        path_or(self.models.as_ref(), DEFAULT_MODELS)
    }

    /// The ONNX Runtime library, set or not.
    pub(crate) fn onnxruntime_library(&self) -> PathBuf {
        path_or(self.onnxruntime.as_ref(), DEFAULT_ONNXRUNTIME)
    }

    /// Fills in defaults, checks ranges and creates the data directory.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting and what to do.
    pub fn check(self) -> Result<Settings, SettingsError> {
        let missing = |key, flag| SettingsError::Missing { key, flag };
        let data = self.data_dir();
        let key_place = self.key_place();
        let models = self.models_dir();
        let onnxruntime = self.onnxruntime_library();
        std::fs::create_dir_all(&data).map_err(|source| SettingsError::Data {
            path: data.clone(),
            source,
        })?;
        // Found out now rather than when the first state is kept.
        let probe = data.join(".writable");
        std::fs::write(&probe, "")
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|source| SettingsError::Data {
                path: data.clone(),
                source,
            })?;
        let answer_cache_mib = in_range("answer_cache_mib", self.answer_cache_mib, 64, 1, 4096)?;
        let region = self.region.ok_or_else(|| missing("region", "region"))?;
        let box_id = self.box_id.ok_or_else(|| missing("box_id", "box-id"))?;
        let broker = self.broker.ok_or_else(|| missing("broker", "broker"))?;
        let enrolment = if broker.tls {
            let needed = |key, flag| SettingsError::Enrolment { key, flag };
            let server = self.indexer.as_ref().and_then(ServiceUrl::tls_server);
            Some(Enrolment {
                server: server.ok_or_else(|| needed("indexer", "indexer https://HOST:PORT"))?,
                root: self
                    .region_ca_sha256
                    .ok_or_else(|| needed("region_ca_sha256", "region-ca-sha256 HEX"))?,
                token_file: self.enrolment_token_file,
                region: region.clone(),
                box_id: box_id.clone(),
                place: key_place.clone(),
            })
        } else {
            None
        };
        Ok(Settings {
            region,
            box_id,
            broker,
            key_place,
            enrolment,
            board: self.board,
            models,
            data,
            onnxruntime,
            telemetry_interval_s: in_range(
                "telemetry_interval_s",
                self.telemetry_interval_s,
                10,
                1,
                3600,
            )?,
            heartbeat_s: in_range("heartbeat_s", self.heartbeat_s, 60, 1, 3600)?,
            drain_timeout_s: in_range("drain_timeout_s", self.drain_timeout_s, 10, 0, 600)?,
            simulate: self.simulate,
            run_timeout_s: in_range("run_timeout_s", self.run_timeout_s, 30, 1, 3600)?,
            watchdog: self.watchdog.unwrap_or_default(),
            http: self.http,
            admins: self.admins.unwrap_or_default(),
            slow_request: match in_range(
                "slow_request_ms",
                self.slow_request_ms,
                1_000,
                0,
                3_600_000,
            )? {
                0 => Duration::MAX,
                ms => Duration::from_millis(ms.into()),
            },
            model_memory_bytes: match self.model_memory_mib {
                None => None,
                mib => {
                    let mib = in_range("model_memory_mib", mib, 1, 1, 1 << 20)?;
                    Some(u64::from(mib) << 20)
                }
            },
            answer_cache_bytes: (answer_cache_mib as usize) << 20,
        })
    }
}

fn path_or(path: Option<&PathBuf>, default: &str) -> PathBuf {
    path.cloned().unwrap_or_else(|| PathBuf::from(default))
}

fn in_range(
    key: &'static str,
    value: Option<u32>,
    default: u32,
    min: u32,
    max: u32,
) -> Result<u32, SettingsError> {
    let value = value.unwrap_or(default);
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(SettingsError::Range {
            key,
            value,
            min,
            max,
        })
    }
}
