//! All models of the box: loads them on a thread of its own, queues jobs, reports their state.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use edge_protocol::{Id, Status};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tracing::{error, info};

use super::{
    Job, Permits, Runtime, Statistics, batching,
    crew::{Crew, Load, Shared, Work},
    model::Model,
    queue::Queue,
    repository::{ModelEntry, scan},
    worker::Run,
};
use crate::{
    health::{Vitals, WorkerId, Workers},
    outcome::Outcome,
};

/// How long a client is asked to wait for a model that is warming up.
const WARM_UP_RETRY: Duration = Duration::from_secs(1);

/// Time between two attempts to load a model in place of a copy that hangs.
const LOAD_AGAIN: Duration = Duration::from_secs(5);

/// All models of the box.
pub struct Models {
    served: RwLock<BTreeMap<Id, Served>>,
    /// Whether the repository has been looked through, so that a model that is not in `served` is none.
    is_scanned: AtomicBool,
    ready: watch::Sender<Vec<Id>>,
    shared: Arc<Shared>,
    crews: Mutex<BTreeMap<Id, Arc<Crew>>>,
}

struct Served {
    version: u64,
    state: State,
    statistics: Arc<Statistics>,
}

enum State {
    Loading,
    Ready(Queue),
    Failed(String),
}

/// State of a model, for people and telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded and warmed up.
    Loading,
    /// Serving.
    Ready,
    /// Not served, with the reason.
    Failed(String),
}

/// What is known of a model.
pub struct ModelReport {
    /// Its name.
    pub name: Id,
    /// Its version.
    pub version: u64,
    /// Its state.
    pub state: ModelState,
    /// What it has done.
    pub statistics: Arc<Statistics>,
}

/// Execution provider of every model: ONNX Runtime's own CPU kernels.
pub const PROVIDER: &str = "CPUExecutionProvider";

impl Models {
    /// No models.
    #[must_use]
    pub fn new() -> Self {
        Self::watched(Vitals::default())
    }

    /// No models; what will be loaded shows its progress in `vitals`.
    #[must_use]
    pub fn watched(vitals: Vitals) -> Self {
        Self {
            shared: Arc::new(Shared::new(vitals)),
            crews: Mutex::default(),
            served: RwLock::default(),
            is_scanned: AtomicBool::new(false),
            ready: watch::Sender::new(Vec::new()),
        }
    }

    /// What says how many models may compute at once.
    pub fn permits(&self) -> Arc<Permits> {
        self.shared.permits.clone()
    }

    /// The models that are ready, kept up to date.
    pub fn watch_ready(&self) -> watch::Receiver<Vec<Id>> {
        self.ready.subscribe()
    }

    /// Loads what the repository at `dir` holds, on a thread of its own. A model that does not load costs only
    /// itself. Without models ONNX Runtime is not loaded at all.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn load(
        self: &Arc<Self>,
        dir: PathBuf,
        onnxruntime: PathBuf,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        let models = self.clone();
        thread::Builder::new()
            .name("model-loader".into())
            .spawn(move || models.load_all(&dir, &onnxruntime))
    }

    fn load_all(&self, dir: &std::path::Path, onnxruntime: &std::path::Path) {
        let entries = match scan(dir) {
            Ok(entries) => entries,
            Err(error) => {
                error!(%error, "no models are served");
                self.is_scanned.store(true, Ordering::Release);
                return;
            }
        };
        if entries.is_empty() {
            info!(dir = %dir.display(), "the model repository is empty");
        }
        let mut good = Vec::new();
        for (name, entry) in entries {
            match entry {
                Ok(entry) => {
                    self.set(&name, entry.version, State::Loading);
                    good.push(entry);
                }
                Err(error) => self.fail(&name, 0, error.to_string()),
            }
        }
        self.is_scanned.store(true, Ordering::Release);
        if good.is_empty() {
            return;
        }
        match Runtime::load(onnxruntime) {
            Ok(runtime) => {
                let runtime = Arc::new(runtime);
                for entry in good {
                    let load = loading(runtime.clone(), entry.clone());
                    self.load_one(&entry, load);
                }
            }
            Err(error) => {
                for entry in good {
                    self.fail(&entry.name, entry.version, error.to_string());
                }
            }
        }
    }

    fn load_one(&self, entry: &ModelEntry, load: Load) {
        let started = Instant::now();
        let statistics = self.statistics(&entry.name);
        let (policy, batching) = batching::wish(&entry.config);
        let work = Work {
            model: entry.name.clone(),
            version: entry.version,
            policy,
            batching,
            instances: entry.config.instances,
            load,
            load_again: LOAD_AGAIN,
            statistics,
        };
        match Crew::start(work, self.shared.clone()) {
            Ok((crew, queue)) => {
                self.crews.lock().insert(entry.name.clone(), crew);
                info!(
                    model = %entry.name,
                    version = entry.version,
                    load_ms = started.elapsed().as_millis(),
                    "serving model"
                );
                self.set(&entry.name, entry.version, State::Ready(queue));
                self.ready
                    .send_modify(|ready| ready.push(entry.name.clone()));
            }
            Err(why) => self.fail(&entry.name, entry.version, why),
        }
    }

    fn fail(&self, name: &Id, version: u64, why: String) {
        error!(model = %name, version, why, "model is not served");
        self.set(name, version, State::Failed(why));
    }

    /// Changes the state of a model; what it has done goes on being counted.
    fn set(&self, name: &Id, version: u64, state: State) {
        let served = Served {
            version,
            state,
            statistics: self.statistics(name),
        };
        self.served.write().insert(name.clone(), served);
    }

    fn statistics(&self, name: &Id) -> Arc<Statistics> {
        let served = self.served.read();
        served
            .get(name)
            .map_or_else(Arc::default, |model| model.statistics.clone())
    }

    /// Counts a request for this model that was refused before it came to its queue.
    pub fn refused(&self, name: &Id, status: Status) {
        if let Some(model) = self.served.read().get(name) {
            model.statistics.ended(status);
        }
    }

    /// Gives a job to its model, or answers why not.
    pub fn queue(&self, name: &Id, job: Job) {
        let served = self.served.read();
        let Some(model) = served.get(name) else {
            if !self.is_scanned.load(Ordering::Acquire) {
                let why = "the box is still looking for its models";
                refuse(job, Status::Unavailable, why, Some(WARM_UP_RETRY), None);
                return;
            }
            let why = format!("there is no model {name}");
            refuse(job, Status::NotFound, &why, None, None);
            return;
        };
        let statistics = Some(&*model.statistics);
        match &model.state {
            State::Loading => {
                let why = format!("the model {name} is warming up");
                refuse(
                    job,
                    Status::Unavailable,
                    &why,
                    Some(WARM_UP_RETRY),
                    statistics,
                );
            }
            State::Failed(why) => {
                let why = format!("the model {name} could not be loaded: {why}");
                refuse(job, Status::RuntimeFailed, &why, None, statistics);
            }
            State::Ready(queue) => queue.push(job),
        }
    }

    /// What is known of each model, by name.
    #[must_use]
    pub fn report(&self) -> Vec<ModelReport> {
        self.served
            .read()
            .iter()
            .map(|(name, served)| ModelReport {
                name: name.clone(),
                version: served.version,
                state: match &served.state {
                    State::Loading => ModelState::Loading,
                    State::Ready(_) => ModelState::Ready,
                    State::Failed(why) => ModelState::Failed(why.clone()),
                },
                statistics: served.statistics.clone(),
            })
            .collect()
    }
}

impl Default for Models {
    fn default() -> Self {
        Self::new()
    }
}

fn refuse(
    job: Job,
    status: Status,
    why: &str,
    retry_after: Option<Duration>,
    statistics: Option<&Statistics>,
) {
    let mut outcome = Outcome::failure(status, why, job.encoding);
    outcome.retry_after = retry_after;
    if let Some(statistics) = statistics {
        statistics.ended(status);
    }
    job.reply.send(outcome);
}

/// Loads copies of a model, now and when a thread of it is replaced.
fn loading(runtime: Arc<Runtime>, entry: ModelEntry) -> Load {
    Arc::new(move || {
        let session = runtime.session(&entry).map_err(|error| error.to_string())?;
        let model = Model::new(session, &entry).map_err(|error| error.to_string())?;
        Ok(Box::new(model) as Box<dyn Run>)
    })
}

impl Workers for Models {
    fn stop(&self, worker: &WorkerId) {
        let crew = self.crews.lock().get(&worker.model).cloned();
        if let Some(crew) = crew {
            crew.stop(worker);
        }
    }

    fn replace(&self, worker: &WorkerId) {
        let crew = self.crews.lock().get(&worker.model).cloned();
        if let Some(crew) = crew {
            crew.replace(worker);
        }
    }

    fn abandoned(&self) -> usize {
        self.shared.abandoned.load(Ordering::Relaxed)
    }

    fn served(&self) -> Option<usize> {
        if !self.is_scanned.load(Ordering::Acquire) {
            return None;
        }
        let served = self.served.read();
        let mut ready = 0;
        for model in served.values() {
            match model.state {
                State::Loading => return None,
                State::Ready(_) => ready += 1,
                State::Failed(_) => {}
            }
        }
        Some(ready)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use edge_protocol::oip::Encoding;

    use super::*;
    use crate::inference::Reply;

    fn ask(models: &Models, name: &Id) -> Outcome {
        let (sender, outcome) = mpsc::channel();
        let now = Instant::now();
        let reply = Reply::new(Encoding::Json, move |outcome| sender.send(outcome).unwrap());
        models.queue(
            name,
            Job {
                client: Id::new("sensor-1").unwrap(),
                body: "{}".into(),
                encoding: Encoding::Json,
                arrived: now,
                deadline: now + Duration::from_secs(1),
                reply,
            },
        );
        outcome.recv().unwrap()
    }

    /// The broker delivers what it kept as soon as the box is back: a 404 then would be final.
    #[test]
    fn a_model_is_unknown_only_after_the_repository_was_read() {
        let (models, name) = (Arc::new(Models::new()), Id::new("digits").unwrap());
        let early = ask(&models, &name);
        assert_eq!(early.status, Status::Unavailable);
        assert_eq!(early.retry_after, Some(WARM_UP_RETRY));
        let empty = tempfile::tempdir().unwrap();
        let loader = models.load(empty.path().to_owned(), "nowhere.so".into());
        loader.unwrap().join().unwrap();
        assert_eq!(ask(&models, &name).status, Status::NotFound);
    }

    #[test]
    fn what_was_refused_while_loading_stays_counted() {
        let (models, name) = (Models::new(), Id::new("digits").unwrap());
        models.set(&name, 1, State::Loading);
        assert_eq!(ask(&models, &name).status, Status::Unavailable);
        models.refused(&name, Status::TooLarge);
        models.fail(&name, 1, "no runtime".into());
        let report = models.report();
        let count = |status| {
            report[0]
                .statistics
                .outcomes()
                .find(|o| o.0 == status)
                .unwrap()
                .1
        };
        assert_eq!(count(Status::Unavailable), 1);
        assert_eq!(count(Status::TooLarge), 1);
    }
}
