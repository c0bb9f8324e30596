//! All models of the box with their versions: queues jobs, lets one version take the place of another, reports their
//! state. [`super::loader`] decides what is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edge_hal::board::ExecutionProvider;
use edge_protocol::{Id, Status};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tracing::error;

use super::{
    Cores, Job, Permits, Statistics, batching,
    crew::{Crew, Load, Shared, Work},
    graph::Signature,
    memory::Held,
    providers::Choice,
    queue::Queue,
    repository::ModelEntry,
};
use crate::{
    health::{Vitals, WorkerId, Workers},
    outcome::Outcome,
};

/// How long a client is asked to wait for a model that is warming up.
const WARM_UP_RETRY: Duration = Duration::from_secs(1);

/// Time between two attempts to load a model in place of a copy that hangs.
const LOAD_AGAIN: Duration = Duration::from_secs(5);

/// Requests for one version that wait until it is loaded again.
const PARKED_MAX: usize = 128;

/// Asks the loader for a model; whether it has heard.
type Wake = Box<dyn Fn(&Id) -> bool + Send + Sync>;

/// All models of the box.
pub struct Models {
    served: RwLock<BTreeMap<Id, Served>>,
    /// Whether the repository has been looked through, so that a model that is not in `served` is none.
    is_scanned: AtomicBool,
    ready: watch::Sender<Vec<Id>>,
    shared: Arc<Shared>,
    crews: Mutex<BTreeMap<Id, Vec<Arc<Crew>>>>,
    wake: OnceLock<Wake>,
}

/// A model, with its versions that are in the repository or serve.
#[derive(Default)]
pub(super) struct Served {
    pub(super) versions: BTreeMap<u64, Version>,
    /// What is wrong with the model as a whole.
    pub(super) trouble: Option<String>,
    /// An admin has given it up.
    pub(super) is_unloaded: bool,
    statistics: Arc<Statistics>,
}

/// A version of a model.
#[derive(Default)]
pub(super) struct Version {
    pub(super) state: State,
    /// Why it, or a newer copy of it, could not be loaded.
    pub(super) trouble: Option<String>,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Loading,
    Ready(Ready),
    Evicted(Evicted),
    Failed,
}

/// A version that gave way to others, or had no room yet: it is loaded when it is asked for.
#[derive(Default)]
pub(super) struct Evicted {
    /// None where it never was.
    loaded: Option<Loaded>,
    statistics: Option<Arc<Statistics>>,
    /// Requests that wait for it.
    parked: Mutex<Vec<Job>>,
}

/// What is known of a version that was loaded.
pub(super) struct Loaded {
    pub(super) signature: Signature,
    pub(super) choice: Choice,
    /// Memory that it takes.
    pub(super) bytes: u64,
}

/// A version whose threads wait for requests.
pub(super) struct Started {
    pub(super) queue: Queue,
    pub(super) statistics: Arc<Statistics>,
}

/// What a version that takes requests is.
pub(super) struct Ready {
    queue: Queue,
    loaded: Loaded,
    pub(super) statistics: Arc<Statistics>,
    /// When it was last asked, or loaded.
    used: Mutex<Instant>,
}

impl Version {
    /// Whether it takes requests.
    const fn takes_requests(&self) -> bool {
        matches!(self.state, State::Ready(_) | State::Evicted(_))
    }

    /// What is known of it, where it was loaded.
    pub(super) const fn loaded(&self) -> Option<&Loaded> {
        match &self.state {
            State::Ready(ready) => Some(&ready.loaded),
            State::Evicted(evicted) => evicted.loaded.as_ref(),
            State::Loading | State::Failed => None,
        }
    }

    /// The requests that wait for it to be loaded.
    fn parked(&self) -> Vec<Job> {
        match &self.state {
            State::Evicted(evicted) => std::mem::take(&mut *evicted.parked.lock()),
            State::Loading | State::Ready(_) | State::Failed => Vec::new(),
        }
    }
}

impl Ready {
    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.waiting()
    }
}

impl Served {
    /// Versions that take requests, the highest last.
    pub(super) fn taking(&self) -> impl DoubleEndedIterator<Item = (u64, &Version)> {
        let versions = self.versions.iter().map(|(version, it)| (*version, it));
        versions.filter(|(_, it)| it.takes_requests())
    }

    /// The version that a request gets.
    pub(super) fn of_request(&self, version: Option<u64>) -> Option<(u64, &Version)> {
        match version {
            None => self.taking().next_back(),
            Some(version) => self.taking().find(|(taking, _)| *taking == version),
        }
    }

    /// Versions that are in memory, the highest last.
    pub(super) fn ready(&self) -> impl DoubleEndedIterator<Item = (u64, &Ready)> {
        self.versions
            .iter()
            .filter_map(|(version, it)| match &it.state {
                State::Ready(ready) => Some((*version, ready)),
                State::Loading | State::Evicted(_) | State::Failed => None,
            })
    }

    /// Versions that could not be loaded, or of which a newer copy could not be, with the reason.
    pub(super) fn failures(&self) -> impl DoubleEndedIterator<Item = (u64, String)> {
        self.versions
            .iter()
            .filter_map(|(version, it)| Some((*version, it.trouble.clone()?)))
    }

    /// Why a request gets no version, as a status and in words.
    pub(super) fn why_not(&self, name: &Id, version: Option<u64>) -> (Status, String) {
        let asked = version.map(|version| (version, self.versions.get(&version)));
        let is_unloaded = (
            Status::Unavailable,
            format!("the model {name} was unloaded from this box"),
        );
        let is_loading = (
            Status::Unavailable,
            format!("the model {name} is warming up"),
        );
        match asked {
            _ if self.is_unloaded => is_unloaded,
            Some((version, None)) => {
                let why = format!("the model {name} has no version {version} that is served");
                (Status::NotFound, why)
            }
            Some((_, Some(it))) => match (&it.state, &it.trouble) {
                (State::Failed, Some(why)) => could_not(name, why),
                (State::Evicted(_), why) => has_no_room(name, why.as_deref()),
                _ => is_loading,
            },
            None => match self.summary().1 {
                ModelState::Failed(why) => could_not(name, &why),
                ModelState::Unloaded => is_unloaded,
                ModelState::Evicted => has_no_room(name, None),
                ModelState::Loading | ModelState::Ready => is_loading,
            },
        }
    }

    /// The state of the model as a whole, with the version that it is about: that which a request gets which names none.
    fn summary(&self) -> (u64, ModelState) {
        if let Some((version, it)) = self.taking().next_back() {
            let is_evicted = matches!(it.state, State::Evicted(_));
            let state = if is_evicted {
                ModelState::Evicted
            } else {
                ModelState::Ready
            };
            return (version, state);
        }
        let newest = self.versions.iter().next_back();
        let mut versions = self.versions.iter().rev();
        match versions.find(|(_, it)| matches!(it.state, State::Loading)) {
            Some((version, _)) => (*version, ModelState::Loading),
            None => {
                let why = newest
                    .and_then(|(_, it)| it.trouble.as_ref())
                    .or(self.trouble.as_ref());
                let version = newest.map_or(0, |(version, _)| *version);
                let state = match why {
                    _ if self.is_unloaded => ModelState::Unloaded,
                    Some(why) => ModelState::Failed(why.clone()),
                    None => ModelState::Loading,
                };
                (version, state)
            }
        }
    }
}

/// State of a model, for people and telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded and warmed up.
    Loading,
    /// Serving.
    Ready,
    /// Not in memory, since others are; loaded when it is asked for.
    Evicted,
    /// Not served, with the reason.
    Failed(String),
    /// Given up by an admin.
    Unloaded,
}

/// What is known of a model.
pub struct ModelReport {
    /// Its name.
    pub name: Id,
    /// The version that a request gets which names none.
    pub version: u64,
    /// Its state.
    pub state: ModelState,
    /// Execution provider that runs it; none while none does.
    pub provider: Option<ExecutionProvider>,
    /// The board's other providers, as `PROVIDER: REASON`.
    pub refused_providers: Vec<String>,
    /// The highest version that could not be loaded, with the reason, where it is that which serves or a higher one.
    pub failed: Option<(u64, String)>,
    /// Requests that wait.
    pub waiting: usize,
    /// What it has done.
    pub statistics: Arc<Statistics>,
}

impl Models {
    /// No models.
    #[must_use]
    pub fn new() -> Self {
        Self::watched(Vitals::default(), Cores::default())
    }

    /// No models; what will be loaded shows its progress in `vitals`, and runs on `cores`.
    #[must_use]
    pub fn watched(vitals: Vitals, cores: Cores) -> Self {
        Self {
            shared: Arc::new(Shared::new(vitals, cores)),
            crews: Mutex::default(),
            served: RwLock::default(),
            is_scanned: AtomicBool::new(false),
            ready: watch::Sender::new(Vec::new()),
            wake: OnceLock::new(),
        }
    }

    /// What says how many models may compute at once.
    pub fn permits(&self) -> Arc<Permits> {
        self.shared.permits.clone()
    }

    /// What models run on.
    pub(super) fn cores(&self) -> &Cores {
        &self.shared.cores
    }

    /// The models that are ready, kept up to date.
    pub fn watch_ready(&self) -> watch::Receiver<Vec<Id>> {
        self.ready.subscribe()
    }

    /// Asks the loader for a model that is not in memory.
    pub(super) fn wake_with(&self, wake: impl Fn(&Id) -> bool + Send + Sync + 'static) {
        // There is one loader.
        self.wake.set(Box::new(wake)).ok();
    }

    /// The repository has been looked through.
    pub(super) fn scanned(&self) {
        self.is_scanned.store(true, Ordering::Release);
    }

    /// Names of all models that are known.
    pub(super) fn names(&self) -> Vec<Id> {
        self.served.read().keys().cloned().collect()
    }

    /// Starts the threads of a version; what it is once [`Models::ready`] says so.
    pub(super) fn start(&self, entry: &ModelEntry, load: Load) -> Result<Started, String> {
        let statistics = self.version_statistics(&entry.name, entry.version);
        let (policy, batching) = batching::wish(&entry.config);
        let work = Work {
            model: entry.name.clone(),
            version: entry.version,
            policy,
            batching,
            instances: entry.config.instances,
            load,
            load_again: LOAD_AGAIN,
            statistics: statistics.clone(),
        };
        let (crew, queue) = Crew::start(work, self.shared.clone())?;
        let mut crews = self.crews.lock();
        let crews = crews.entry(entry.name.clone()).or_default();
        crews.retain(|crew| !crew.has_ended());
        crews.push(crew);
        Ok(Started { queue, statistics })
    }

    /// A version is being loaded; a copy of it that serves goes on.
    pub(super) fn loading(&self, name: &Id, version: u64) {
        self.change(name, |model| {
            model.is_unloaded = false;
            let version = model.versions.entry(version).or_default();
            if !version.takes_requests() {
                version.state = State::Loading;
            }
        });
    }

    /// A version takes requests from now on. A copy of it that did so ends with those that it has.
    pub(super) fn ready(&self, name: &Id, version: u64, started: Started, loaded: Loaded) {
        let Started { queue, statistics } = started;
        let parked = self.change(name, |model| {
            let state = State::Ready(Ready {
                queue,
                loaded,
                statistics,
                used: Mutex::new(Instant::now()),
            });
            let version_now = Version {
                state,
                trouble: None,
            };
            let before = model.versions.insert(version, version_now);
            before.map_or_else(Vec::new, |before| before.parked())
        });
        for job in parked {
            self.queue(name, Some(version), job);
        }
    }

    /// A version gives way to others. It ends with the requests that it has, and is loaded again with the next.
    pub(super) fn evict(&self, name: &Id, version: u64) {
        self.change(name, |model| {
            if let Some(version) = model.versions.get_mut(&version)
                && let State::Ready(ready) = std::mem::take(&mut version.state)
            {
                version.state = State::Evicted(Evicted {
                    loaded: Some(ready.loaded),
                    statistics: Some(ready.statistics),
                    parked: Mutex::default(),
                });
            }
        });
    }

    /// There is no room for a version now: those who wait for it are told. Whether that is news.
    pub(super) fn no_room(&self, name: &Id, version: u64, why: &str) -> bool {
        let (parked, is_news) = self.change(name, |model| {
            let version = model.versions.entry(version).or_default();
            let before = version.trouble.replace(why.to_owned());
            if !version.takes_requests() {
                version.state = State::Evicted(Evicted::default());
            }
            (version.parked(), before.as_deref() != Some(why))
        });
        let (status, why) = has_no_room(name, Some(why));
        self.give_back(name, parked, status, &why);
        is_news
    }

    /// Versions that requests wait for.
    pub(super) fn wanted(&self, name: &Id) -> Vec<u64> {
        let served = self.served.read();
        let versions = served.get(name).map(|model| model.versions.iter());
        let is_wanted = |it: &Version| match &it.state {
            State::Evicted(evicted) => !evicted.parked.lock().is_empty(),
            State::Loading | State::Ready(_) | State::Failed => false,
        };
        let versions = versions.into_iter().flatten();
        versions
            .filter(|(_, it)| is_wanted(it))
            .map(|(version, _)| *version)
            .collect()
    }

    /// What is in memory.
    pub(super) fn held(&self) -> Vec<Held> {
        let served = self.served.read();
        let of_model = |(name, model): (&Id, &Served)| {
            let held = |(version, ready): (u64, &Ready)| Held {
                model: name.clone(),
                version,
                bytes: ready.loaded.bytes,
                used: *ready.used.lock(),
                is_busy: ready.queue.is_busy(),
            };
            model.ready().map(held).collect::<Vec<_>>()
        };
        served.iter().flat_map(of_model).collect()
    }

    /// Answers requests that waited for a version to be loaded.
    fn give_back(&self, name: &Id, parked: Vec<Job>, status: Status, why: &str) {
        for job in parked {
            let retry = (status == Status::Unavailable).then_some(WARM_UP_RETRY);
            let served = self.served.read();
            let statistics = served.get(name).map(|model| model.statistics.clone());
            drop(served);
            refuse(job, status, why, retry, statistics.as_deref());
        }
    }

    /// Answers those who wait for versions that have gone.
    fn let_go<'a>(&self, name: &Id, versions: impl IntoIterator<Item = &'a Version>) {
        let parked = versions.into_iter().flat_map(Version::parked).collect();
        let why = format!("the model {name} has gone from this box");
        self.give_back(name, parked, Status::Unavailable, &why);
    }

    /// A version could not be loaded; a copy of it that serves goes on. Whether that is news.
    pub(super) fn failed(&self, name: &Id, version: u64, why: &str) -> bool {
        let (parked, is_news) = self.change(name, |model| {
            let version = model.versions.entry(version).or_default();
            let before = version.trouble.replace(why.to_owned());
            let parked = version.parked();
            if !matches!(version.state, State::Ready(_)) {
                version.state = State::Failed;
            }
            (parked, before.as_deref() != Some(why))
        });
        let (status, why) = could_not(name, why);
        self.give_back(name, parked, status, &why);
        is_news
    }

    /// A version takes no requests any more; it ends with those that it has.
    pub(super) fn retire(&self, name: &Id, version: u64) {
        let gone = self.change(name, |model| model.versions.remove(&version));
        self.let_go(name, &gone);
    }

    /// Forgets versions that neither serve nor lie in the repository.
    pub(super) fn keep_versions(&self, name: &Id, available: &BTreeSet<u64>) {
        self.change(name, |model| {
            model
                .versions
                .retain(|version, it| available.contains(version) || it.takes_requests());
        });
    }

    /// What is wrong with a model's folder or settings, if anything is.
    pub(super) fn in_trouble(&self, name: &Id, trouble: Option<String>) {
        self.change(name, |model| {
            let is_news = model.trouble != trouble;
            let serves = model.taking().next().is_some();
            match trouble.as_ref().filter(|_| is_news) {
                Some(why) if serves => {
                    error!(model = %name, why, "the model's folder is in trouble; what serves goes on");
                }
                Some(why) => error!(model = %name, why, "model is not served"),
                None => {}
            }
            model.trouble = trouble;
        });
    }

    /// An admin has given a model up.
    pub(super) fn unloaded(&self, name: &Id) {
        let gone = self.change(name, |model| {
            model.trouble = None;
            model.is_unloaded = true;
            std::mem::take(&mut model.versions)
        });
        self.let_go(name, gone.values());
    }

    /// The model has gone from the repository.
    pub(super) fn forget(&self, name: &Id) {
        let gone = self.served.write().remove(name);
        self.tell_ready();
        self.let_go(name, gone.iter().flat_map(|model| model.versions.values()));
    }

    /// Versions of a model that take requests.
    pub(super) fn serving(&self, name: &Id) -> BTreeSet<u64> {
        let served = self.served.read();
        let versions = served.get(name).map(Served::taking);
        versions
            .into_iter()
            .flatten()
            .map(|(version, _)| version)
            .collect()
    }

    fn change<T>(&self, name: &Id, change: impl FnOnce(&mut Served) -> T) -> T {
        let changed = change(self.served.write().entry(name.clone()).or_default());
        self.tell_ready();
        changed
    }

    /// Tells who waits for it which models take requests.
    fn tell_ready(&self) {
        let served = self.served.read();
        let is_ready = |model: &Served| model.taking().next().is_some();
        let ready: Vec<Id> = served
            .iter()
            .filter(|(_, model)| is_ready(model))
            .map(|(name, _)| name.clone())
            .collect();
        self.ready.send_if_modified(|known| {
            let is_news = *known != ready;
            *known = ready;
            is_news
        });
    }

    /// The threads of a model's versions, of those too that are given up and have not ended.
    fn crews(&self, name: &Id) -> Vec<Arc<Crew>> {
        self.crews.lock().get(name).cloned().unwrap_or_default()
    }

    /// What a version has done; a copy that takes its place goes on counting.
    fn version_statistics(&self, name: &Id, version: u64) -> Arc<Statistics> {
        let served = self.served.read();
        let model = served.get(name);
        let known = model.and_then(|model| match &model.versions.get(&version)?.state {
            State::Ready(ready) => Some(ready.statistics.clone()),
            State::Evicted(evicted) => evicted.statistics.clone(),
            State::Loading | State::Failed => None,
        });
        known.unwrap_or_else(|| {
            let whole = model.map_or_else(Arc::default, |model| model.statistics.clone());
            Arc::new(Statistics::of_version(whole))
        })
    }

    /// Counts a request for this model that was refused before it came to its queue.
    pub fn refused(&self, name: &Id, status: Status) {
        if let Some(model) = self.served.read().get(name) {
            let ready = model.ready().next_back();
            let statistics = ready.map_or(&model.statistics, |(_, ready)| &ready.statistics);
            statistics.ended(status);
        }
    }

    /// Gives a job to a version of its model, or answers why not. Without a version it is the highest that takes
    /// requests.
    pub fn queue(&self, name: &Id, version: Option<u64>, job: Job) {
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
        match model.of_request(version).map(|(_, it)| &it.state) {
            Some(State::Ready(ready)) => {
                *ready.used.lock() = job.arrived;
                ready.queue.push(job);
            }
            Some(State::Evicted(evicted)) => self.park(name, evicted, job),
            Some(State::Loading | State::Failed) | None => {
                let (status, why) = model.why_not(name, version);
                let retry = (status == Status::Unavailable).then_some(WARM_UP_RETRY);
                refuse(job, status, &why, retry, Some(&*model.statistics));
            }
        }
    }

    /// Keeps a request until its version is loaded, for which it asks.
    fn park(&self, name: &Id, evicted: &Evicted, job: Job) {
        let mut parked = evicted.parked.lock();
        let wakes = || self.wake.get().is_some_and(|wake| wake(name));
        if parked.len() < PARKED_MAX && (!parked.is_empty() || wakes()) {
            parked.push(job);
            return;
        }
        drop(parked);
        let why = format!("too many wait for the model {name} to be loaded");
        let (status, retry) = (Status::Unavailable, Some(WARM_UP_RETRY));
        refuse(job, status, &why, retry, evicted.statistics.as_deref());
    }

    /// What is known of each model, by name.
    #[must_use]
    pub fn report(&self) -> Vec<ModelReport> {
        let report = |(name, model): (&Id, &Served)| {
            let (version, state) = model.summary();
            let loaded = model.taking().next_back().and_then(|(_, it)| it.loaded());
            let choice = loaded.map(|loaded| &loaded.choice);
            let refused = choice.map(|choice| choice.refused.iter());
            let refused = refused.into_iter().flatten();
            ModelReport {
                provider: choice.map(|choice| choice.provider),
                refused_providers: refused
                    .map(|(other, why)| format!("{other}: {why}"))
                    .collect(),
                name: name.clone(),
                version,
                state,
                failed: model.failures().rfind(|(failed, _)| *failed >= version),
                waiting: model.ready().map(|(_, ready)| ready.waiting()).sum(),
                statistics: model.statistics.clone(),
            }
        };
        self.served.read().iter().map(report).collect()
    }

    /// What the catalogue reads.
    pub(super) fn look<T>(&self, look: impl FnOnce(&BTreeMap<Id, Served>) -> T) -> T {
        look(&self.served.read())
    }
}

fn could_not(name: &Id, why: &str) -> (Status, String) {
    let why = format!("the model {name} could not be loaded: {why}");
    (Status::RuntimeFailed, why)
}

fn has_no_room(name: &Id, why: Option<&str>) -> (Status, String) {
    let why = why.unwrap_or("others take the room");
    let why = format!("the model {name} is not in memory: {why}");
    (Status::Unavailable, why)
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

impl Workers for Models {
    fn stop(&self, worker: &WorkerId) {
        for crew in self.crews(&worker.model) {
            crew.stop(worker);
        }
    }

    fn replace(&self, worker: &WorkerId) {
        for crew in self.crews(&worker.model) {
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
            match model.summary().1 {
                ModelState::Loading => return None,
                ModelState::Ready | ModelState::Evicted => ready += 1,
                ModelState::Failed(_) | ModelState::Unloaded => {}
            }
        }
        Some(ready)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Instant};

    use edge_protocol::oip::Encoding;

    use super::*;
    use crate::inference::{
        Book, Library, Loader, Quarantine, Reply, queue::Line, schedule::Policy,
    };

    fn job() -> (Job, mpsc::Receiver<Outcome>) {
        let (sender, outcome) = mpsc::channel();
        let now = Instant::now();
        let job = Job {
            client: Id::new("sensor-1").unwrap(),
            body: "{}".into(),
            encoding: Encoding::Json,
            arrived: now,
            deadline: now + Duration::from_secs(1),
            reply: Reply::new(Encoding::Json, move |outcome| {
                sender.send(outcome).ok();
            }),
        };
        (job, outcome)
    }

    fn ask(models: &Models, name: &Id, version: Option<u64>) -> Outcome {
        let (job, outcome) = job();
        models.queue(name, version, job);
        outcome.recv().unwrap()
    }

    fn digits() -> Id {
        Id::new("digits").unwrap()
    }

    fn serve(models: &Models, version: u64) -> Arc<Line> {
        let statistics = models.version_statistics(&digits(), version);
        let queue = Queue::new(digits(), Policy::default(), statistics.clone());
        let line = queue.line();
        let started = Started { queue, statistics };
        let loaded = Loaded {
            signature: Signature::default(),
            choice: Choice::CPU,
            bytes: 1,
        };
        models.ready(&digits(), version, started, loaded);
        line
    }

    /// The broker delivers what it kept as soon as the box is back: a 404 then would be final.
    #[test]
    fn a_model_is_unknown_only_after_the_repository_was_read() {
        let models = Arc::new(Models::new());
        let early = ask(&models, &digits(), None);
        assert_eq!(early.status, Status::Unavailable);
        assert_eq!(early.retry_after, Some(WARM_UP_RETRY));
        let empty = tempfile::tempdir().unwrap();
        let library = Library {
            dir: empty.path().to_owned(),
            onnxruntime: "nowhere.so".into(),
            memory_max_bytes: 0,
        };
        let (quarantine, book) = (Quarantine::default(), Book::default());
        let loader = Loader::start(models.clone(), library, quarantine, book).unwrap();
        let (done, is_done) = mpsc::channel();
        loader.unload(digits(), Box::new(move |result| done.send(result).unwrap()));
        is_done.recv().unwrap().unwrap_err();
        assert_eq!(ask(&models, &digits(), None).status, Status::NotFound);
    }

    #[test]
    fn what_was_refused_while_loading_stays_counted() {
        let (models, name) = (Models::new(), digits());
        models.loading(&name, 1);
        assert_eq!(ask(&models, &name, None).status, Status::Unavailable);
        models.refused(&name, Status::TooLarge);
        models.failed(&name, 1, "no runtime");
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

    #[test]
    fn a_request_gets_the_version_that_it_names_or_the_highest() {
        let models = Models::new();
        let (one, two) = (serve(&models, 1), serve(&models, 2));
        models.queue(&digits(), None, job().0);
        models.queue(&digits(), Some(1), job().0);
        assert_eq!((one.waiting(), two.waiting()), (1, 1));
        let unknown = ask(&models, &digits(), Some(3));
        assert_eq!(unknown.status, Status::NotFound);
        assert!(unknown.message.contains("no version 3"), "{unknown:?}");
    }

    #[test]
    fn the_old_version_keeps_what_it_has_and_gets_no_more() {
        let models = Models::new();
        let mut ready = models.watch_ready();
        let one = serve(&models, 1);
        assert_eq!(*ready.borrow_and_update(), [digits()]);
        models.queue(&digits(), None, job().0);
        models.loading(&digits(), 2);
        assert!(!ready.has_changed().unwrap(), "one version serves");
        let two = serve(&models, 2);
        models.retire(&digits(), 1);
        models.queue(&digits(), None, job().0);
        assert_eq!((one.waiting(), two.waiting()), (1, 1));
        assert!(one.is_closed(), "its threads end after what it has");
        assert!(!ready.has_changed().unwrap());
    }

    #[test]
    fn a_version_that_fails_leaves_the_old_one_serving_and_is_reported() {
        let models = Models::new();
        let _one = serve(&models, 1);
        models.loading(&digits(), 2);
        assert!(models.failed(&digits(), 2, "bad graph"), "that is news");
        assert!(
            !models.failed(&digits(), 2, "bad graph"),
            "and then it is none"
        );
        let report = models.report().remove(0);
        assert_eq!((report.version, report.state), (1, ModelState::Ready));
        assert_eq!(report.failed, Some((2, "bad graph".to_owned())));
        let two = ask(&models, &digits(), Some(2));
        assert_eq!(two.status, Status::RuntimeFailed);
        assert!(two.message.contains("bad graph"), "{two:?}");
    }

    #[test]
    fn a_request_for_an_evicted_version_waits_until_it_is_loaded_again() {
        let models = Models::new();
        let (asked, wishes) = mpsc::channel();
        let asked = Mutex::new(asked);
        models.wake_with(move |name| asked.lock().send(name.clone()).is_ok());
        let mut ready = models.watch_ready();
        let one = serve(&models, 1);
        ready.borrow_and_update();
        models.evict(&digits(), 1);
        assert!(one.is_closed(), "its threads end");
        assert!(!ready.has_changed().unwrap(), "it takes requests still");
        assert_eq!(models.report()[0].state, ModelState::Evicted);
        assert!(models.held().is_empty());
        let (first, first_outcome) = job();
        models.queue(&digits(), None, first);
        models.queue(&digits(), Some(1), job().0);
        assert_eq!(wishes.try_iter().count(), 1, "asked for once");
        assert_eq!(models.wanted(&digits()), [1]);
        models.loading(&digits(), 1);
        let again = serve(&models, 1);
        assert_eq!(again.waiting(), 2);
        assert!(first_outcome.try_recv().is_err());
        assert!(models.wanted(&digits()).is_empty());
    }

    #[test]
    fn who_waits_for_an_evicted_version_hears_why_it_does_not_come() {
        let models = Models::new();
        models.wake_with(|_| true);
        let (waits, outcome) = job();
        models.no_room(&digits(), 1, "busy");
        models.queue(&digits(), None, waits);
        models.no_room(&digits(), 1, "all in use");
        let refused = outcome.recv().unwrap();
        assert_eq!(refused.status, Status::Unavailable);
        assert!(refused.message.contains("all in use"), "{refused:?}");
        assert!(refused.retry_after.is_some());
        for end in [Models::forget, Models::unloaded] {
            let (waits, outcome) = job();
            models.no_room(&digits(), 1, "busy");
            models.queue(&digits(), None, waits);
            end(&models, &digits());
            assert_eq!(outcome.recv().unwrap().status, Status::Unavailable);
        }
        let (waits, outcome) = job();
        models.no_room(&digits(), 1, "busy");
        models.queue(&digits(), None, waits);
        models.failed(&digits(), 1, "bad graph");
        assert_eq!(outcome.recv().unwrap().status, Status::RuntimeFailed);
    }

    #[test]
    fn a_model_that_was_unloaded_may_come_back() {
        let models = Models::new();
        let mut ready = models.watch_ready();
        let one = serve(&models, 1);
        ready.borrow_and_update();
        models.unloaded(&digits());
        assert!(one.is_closed(), "its queue has ended");
        assert!(ready.borrow_and_update().is_empty());
        let refused = ask(&models, &digits(), None);
        assert_eq!(
            refused.status,
            Status::Unavailable,
            "another box may serve it"
        );
        assert_eq!(models.report()[0].state, ModelState::Unloaded);
        models.loading(&digits(), 1);
        assert_eq!(models.report()[0].state, ModelState::Loading);
    }
}
