//! A whole region on this machine: a broker, an indexer and boxes, all real processes. Knows the
//! programs' flags and the indexer's HTTP API, and what "up" means.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::blocking::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use crate::authority::{Authority, AuthorityError};
use crate::processes::{self, Process, ProcessError};

/// The region's name on the wire.
pub const NAME: &str = "demo";

/// From the start of a process to its being of use; generous, for busy machines.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often a condition is looked at while waiting for it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A region that did not come up, answer or end.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// A process of it.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A program that was not built.
    #[error("{} is missing: run `cargo build --workspace`", path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
    },
    /// No place for its files, or no port.
    #[error("could not {operation} for the region")]
    Prepare {
        /// What was attempted.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A port that was asked for is in use.
    #[error("port {port} is in use on this machine; choose another with --{flag}")]
    PortInUse {
        /// The port.
        port: u16,
        /// The option that chooses it.
        flag: &'static str,
    },
    /// The indexer's API.
    #[error("could not read {url} from the indexer")]
    Api {
        /// What was asked.
        url: String,
        /// Why it failed.
        #[source]
        source: reqwest::Error,
    },
    /// Its authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The HTTP client.
    #[error("could not start an HTTP client")]
    Client(#[source] reqwest::Error),
    /// What was awaited did not happen.
    #[error("not within {} s: {what}", limit.as_secs())]
    TooLate {
        /// What we waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
}

/// Which broker carries the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// The one inside the indexer; everybody shows a certificate, and boxes enrol with tokens.
    Secured,
    /// The one inside the indexer, without TLS and for everybody.
    Embedded,
    /// Debian's Mosquitto, with the indexer as an outside client.
    Mosquitto,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where `edge-agent`, `edge-indexer` and `edgectl` lie.
    pub programs: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// The boxes' model repository.
    pub models: PathBuf,
    /// Which broker.
    pub broker: Broker,
    /// How many boxes: `box-1`, `box-2`, ...
    pub boxes: usize,
    /// The broker's port; any free one if absent.
    pub mqtt_port: Option<u16>,
    /// The page's port; any free one if absent.
    pub http_port: Option<u16>,
}

/// A box as the indexer sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct BoxState {
    /// Its name.
    pub id: String,
    /// Is it there now?
    pub online: bool,
    /// The board it says it is.
    pub board: Option<String>,
    /// Telemetry messages taken from it.
    pub messages: u64,
    /// Requests that it answered.
    pub requests: u64,
    /// Of those, the ones not answered with 200.
    pub requests_failed: u64,
    /// The latest value of each metric.
    pub metrics: BTreeMap<String, Value>,
}

/// The region's totals.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Boxes that are there now.
    pub boxes_online: u64,
    /// Telemetry messages taken since the indexer's start.
    pub telemetry_messages: u64,
    /// Requests that the boxes counted.
    pub requests_total: u64,
}

/// How a box gets its certificate.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Where the indexer enrols boxes.
    pub indexer: String,
    /// What boxes know their region by.
    pub region_ca_sha256: String,
    /// File with a one-time token.
    pub token_file: PathBuf,
}

/// A running region. The fields end in this order when it is dropped.
#[derive(Debug)]
pub struct Region {
    boxes: Vec<Process>,
    indexer: Process,
    broker: Option<Process>,
    mqtt_port: u16,
    http_port: u16,
    https_port: u16,
    authority: Option<Authority>,
    http: Client,
    plan: Plan,
    folder: TempDir,
}

impl Region {
    /// Starts the region; returns when its page answers and every box is online.
    ///
    /// # Errors
    /// When a part of it does not come up; the message holds the end of its log.
    pub fn start(plan: Plan) -> Result<Self, RegionError> {
        let prepare = |operation| move |source| RegionError::Prepare { operation, source };
        let folder = tempfile::Builder::new()
            .prefix("edge-region-")
            .tempdir()
            .map_err(prepare("make a folder"))?;
        let [mqtt_port, http_port, https_port] =
            processes::free_ports().map_err(prepare("find free ports"))?;
        let mqtt_port = plan.mqtt_port.unwrap_or(mqtt_port);
        let http_port = plan.http_port.unwrap_or(http_port);
        for (port, flag) in [(mqtt_port, "mqtt-port"), (http_port, "http-port")] {
            if processes::is_open(port) {
                return Err(RegionError::PortInUse { port, flag });
            }
        }
        let broker = match plan.broker {
            Broker::Secured | Broker::Embedded => None,
            Broker::Mosquitto => Some(processes::mosquitto(mqtt_port, folder.path())?),
        };
        // A proxy for the outside world does not know this machine's ports.
        let http = Client::builder()
            .no_proxy()
            .build()
            .map_err(RegionError::Client)?;
        let authority = match plan.broker {
            Broker::Secured => Some(Authority::make(&program(&plan, "edgectl")?, folder.path())?),
            Broker::Embedded | Broker::Mosquitto => None,
        };
        let ports = [mqtt_port, http_port, https_port];
        let indexer = start_indexer(&plan, authority.as_ref(), ports, &http, folder.path())?;
        let boxes = Vec::new();
        let mut region = Self {
            boxes,
            indexer,
            broker,
            mqtt_port,
            http_port,
            https_port,
            authority,
            http,
            plan,
            folder,
        };
        for number in 1..=region.plan.boxes {
            let agent = region.start_box(number)?;
            region.boxes.push(agent);
        }
        region.wait_until(
            "every box is online and serves its model",
            START_LIMIT,
            |region| {
                let serving =
                    |boxes: Vec<BoxState>| boxes.iter().filter(|state| is_serving(state)).count();
                region
                    .boxes()
                    .is_ok_and(|boxes| serving(boxes) == region.plan.boxes)
            },
        )?;
        Ok(region)
    }

    /// The broker's address, as programs take it.
    #[must_use]
    pub fn broker_url(&self) -> String {
        let scheme = match self.authority {
            Some(_) => "mqtts",
            None => "mqtt",
        };
        format!("{scheme}://127.0.0.1:{}", self.mqtt_port)
    }

    /// What a box needs to enrol, with a new token; none where nobody shows certificates.
    ///
    /// # Errors
    /// When no token can be made.
    pub fn enrolment(&self, box_id: &str) -> Result<Option<Enrolment>, RegionError> {
        let Some(authority) = &self.authority else {
            return Ok(None);
        };
        let token_file = self.folder.path().join(format!("{box_id}.token"));
        authority.token(box_id, &token_file)?;
        Ok(Some(Enrolment {
            indexer: format!("https://127.0.0.1:{}", self.https_port),
            region_ca_sha256: authority.fingerprint.clone(),
            token_file,
        }))
    }

    /// Takes all rights from the box of that name, so that another key may have it.
    ///
    /// # Errors
    /// When the authority does not know it.
    pub fn revoke(&self, name: &str) -> Result<(), RegionError> {
        let authority = self.authority.as_ref();
        Ok(authority.map_or(Ok(()), |authority| authority.revoke(name))?)
    }

    /// Whom the authority knows, as `edgectl ca list` prints it; nobody where nobody shows certificates.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn holders(&self) -> Result<String, RegionError> {
        let known = self
            .authority
            .as_ref()
            .map(Authority::holders)
            .transpose()?;
        Ok(known.unwrap_or_default())
    }

    /// A certificate for a sensor, in a folder that is made the first time; none where nobody shows certificates.
    ///
    /// # Errors
    /// When it cannot be issued.
    pub fn sensor_identity(&self, name: &str) -> Result<Option<PathBuf>, RegionError> {
        let Some(authority) = &self.authority else {
            return Ok(None);
        };
        let folder = self.folder.path().join(name);
        if !folder.exists() {
            authority.issue("sensor", name, &folder)?;
        }
        Ok(Some(folder))
    }

    /// The broker's port on this machine.
    #[must_use]
    pub fn mqtt_port(&self) -> u16 {
        self.mqtt_port
    }

    /// The region's page, which is also the root of its API.
    #[must_use]
    pub fn page(&self) -> String {
        format!("http://127.0.0.1:{}/", self.http_port)
    }

    /// A folder that is removed with the region.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One of our programs.
    ///
    /// # Errors
    /// When it was not built.
    pub fn program(&self, name: &str) -> Result<PathBuf, RegionError> {
        program(&self.plan, name)
    }

    /// The processes of the boxes, `box-1` first.
    pub fn box_processes(&mut self) -> &mut Vec<Process> {
        &mut self.boxes
    }

    /// The boxes as the indexer sees them.
    ///
    /// # Errors
    /// When its API does not answer.
    pub fn boxes(&self) -> Result<Vec<BoxState>, RegionError> {
        self.get("api/v1/boxes")
    }

    /// The region's totals.
    ///
    /// # Errors
    /// When the indexer's API does not answer.
    pub fn totals(&self) -> Result<Totals, RegionError> {
        self.get("api/v1/region")
    }

    /// Ends boxes, indexer and broker, in this order, and removes the region's folder.
    ///
    /// # Errors
    /// The first process that ended badly; the others are ended all the same.
    pub fn stop(mut self) -> Result<(), RegionError> {
        for agent in &mut self.boxes {
            agent.signal(Signal::SIGTERM);
        }
        let processes = self
            .boxes
            .into_iter()
            .chain([self.indexer])
            .chain(self.broker);
        let mut result = Ok(());
        for process in processes {
            result = result.and(process.stop());
        }
        let removed = self.folder.close();
        result?;
        removed.map_err(|source| RegionError::Prepare {
            operation: "remove the folder",
            source,
        })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RegionError> {
        let url = self.page() + path;
        let answer = self
            .http
            .get(&url)
            .send()
            .and_then(|answer| answer.error_for_status()?.json());
        answer.map_err(|source| RegionError::Api { url, source })
    }

    fn start_box(&self, number: usize) -> Result<Process, RegionError> {
        let name = format!("box-{number}");
        let data = self.folder.path().join(&name);
        fs::create_dir_all(&data).map_err(|source| RegionError::Prepare {
            operation: "make a box's folder",
            source,
        })?;
        let mut arguments: Vec<String> = ["run", "--region", NAME, "--board", "host-sim"]
            .map(str::to_owned)
            .to_vec();
        let settings: [(&str, &dyn AsRef<Path>); 6] = [
            ("--box-id", &name),
            ("--broker", &self.broker_url()),
            ("--models", &self.plan.models),
            ("--data", &data),
            ("--onnxruntime", &self.plan.onnxruntime),
            ("--simulate", &crate::demo_day()),
        ];
        for (flag, value) in settings {
            arguments.push(flag.to_owned());
            arguments.push(value.as_ref().display().to_string());
        }
        if let Some(enrolment) = self.enrolment(&name)? {
            let token_file = enrolment.token_file.display().to_string();
            for (flag, value) in [
                ("--indexer", enrolment.indexer),
                ("--region-ca-sha256", enrolment.region_ca_sha256),
                ("--enrolment-token-file", token_file),
            ] {
                arguments.extend([flag.to_owned(), value]);
            }
        }
        // Telemetry each second, so that what the page and the tables show is fresh.
        arguments.extend(["--telemetry-interval-s".to_owned(), "1".to_owned()]);
        let agent = program(&self.plan, "edge-agent")?;
        Ok(Process::start(
            &name,
            &agent,
            arguments,
            self.folder.path(),
        )?)
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// When a process of the region ends first, or `limit` passes; `what` says what did not happen.
    pub fn wait_until(
        &mut self,
        what: &'static str,
        limit: Duration,
        ready: impl Fn(&Self) -> bool,
    ) -> Result<(), RegionError> {
        let started = Instant::now();
        while !ready(self) {
            for process in self
                .boxes
                .iter_mut()
                .chain([&mut self.indexer])
                .chain(&mut self.broker)
            {
                process.must_run(what)?;
            }
            if started.elapsed() > limit {
                return Err(RegionError::TooLate { what, limit });
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

/// Online, and with the digits model loaded: earlier, a request would find nobody.
#[must_use]
pub fn is_serving(state: &BoxState) -> bool {
    let model = state.metrics.get("inference/digits/state");
    state.online && model.is_some_and(|state| state == "ready")
}

fn program(plan: &Plan, name: &str) -> Result<PathBuf, RegionError> {
    let path = plan.programs.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(RegionError::NotBuilt { path })
    }
}

fn start_indexer(
    plan: &Plan,
    authority: Option<&Authority>,
    ports: [u16; 3],
    http: &Client,
    folder: &Path,
) -> Result<Process, RegionError> {
    let data = folder.join("indexer").display().to_string();
    let [mqtt, page, https] = ports.map(|port| format!("127.0.0.1:{port}"));
    let ca = authority.map(|authority| authority.online().display().to_string());
    let broker_url = format!("mqtt://{mqtt}");
    let mut arguments = vec!["run", "--region", NAME, "--http", &page, "--data", &data];
    match plan.broker {
        Broker::Secured => {
            arguments.extend(["--embedded-broker", "--mqtt", &mqtt, "--https", &https]);
        }
        Broker::Embedded => arguments.extend(["--embedded-broker", "--insecure-mqtt", &mqtt]),
        Broker::Mosquitto => arguments.extend(["--broker", &broker_url]),
    }
    if let Some(ca) = &ca {
        arguments.extend(["--ca", ca]);
    }
    let mut indexer = Process::start(
        "indexer",
        &program(plan, "edge-indexer")?,
        arguments,
        folder,
    )?;
    indexer.wait_until("its page answers", START_LIMIT, || {
        let health = http.get(format!("http://{page}/healthz")).send();
        health.is_ok_and(|answer| answer.status().is_success())
    })?;
    Ok(indexer)
}
