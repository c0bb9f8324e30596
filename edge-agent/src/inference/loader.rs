//! The thread that loads models: at the start, when the repository changes, and when an admin asks. It alone decides
//! which versions serve; [`Models`] holds them, and queues requests while one replaces another.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use edge_hal::board::ExecutionProvider;
use edge_protocol::Id;
use tracing::{error, info, warn};

use super::{
    Models, Runtime,
    crew::Load,
    graph::Signature,
    manifest::{self, Completeness},
    memory::{self, Room},
    model_config::ModelConfig,
    models::Loaded,
    policy,
    providers::Book,
    quarantine::Quarantine,
    repository::{Mark, ModelEntry, ModelFolder, NONE_GIVEN, scan},
    warmup::warm_up,
    watch::{self, Arrival},
    weights::Weights,
};

/// Requests to load or unload that may wait.
const WAITING_MAX: usize = 64;

/// Why a version waits that is there, but did not come in one go.
const WAITS: &str = "it was not renamed into place and has no manifest.sha256, so it may not be complete; ask for it with load";

/// Where models and what runs them come from.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// The model repository.
    pub dir: PathBuf,
    /// ONNX Runtime's library; loaded with the first model.
    pub onnxruntime: PathBuf,
    /// Memory that all models together may take, in bytes.
    pub memory_max_bytes: u64,
}

/// Why a model was not loaded or unloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The repository has no such model.
    #[error("there is no model {0} in the repository")]
    Unknown(Id),
    /// A version cannot be loaded, or the model's folder not be read.
    #[error("the model {model} could not be loaded: {why}")]
    Failed {
        /// The model.
        model: Id,
        /// What is wrong with it; with several versions each stands in it.
        why: String,
    },
    /// Too many wait for the thread already, or it ends.
    #[error("the box is busy loading models; try again")]
    Busy,
}

/// Takes the result of a request to load or unload.
pub type Done = Box<dyn FnOnce(Result<(), LoadError>) + Send>;

enum Command {
    Changed(BTreeSet<Arrival>),
    Load(Id, Done),
    Unload(Id, Done),
    Wanted(Id),
    Stop,
}

/// Why a version was not brought up.
enum Trouble {
    /// Something is wrong with it.
    Fails(String),
    /// Others take the room for now.
    NoRoom(String),
}

/// The thread's handle.
pub struct Loader {
    commands: Sender<Command>,
    is_stopping: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Loader {
    /// Loads what the repository holds, on a thread of its own, and goes on watching it. A model that does not load
    /// costs only itself. Without models ONNX Runtime is not loaded at all.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        models: Arc<Models>,
        library: Library,
        quarantine: Quarantine,
        book: Book,
    ) -> io::Result<Self> {
        let (commands, inbox) = bounded(WAITING_MAX);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let changes = commands.clone();
        let tell = move |arrivals| changes.send(Command::Changed(arrivals)).is_ok();
        if let Err(error) = watch::start(&library.dir, tell) {
            let dir = library.dir.display();
            warn!(%dir, %error, "the model repository is not watched; a new version has to be asked for");
        }
        let wishes = commands.clone();
        models.wake_with(move |name| wishes.try_send(Command::Wanted(name.clone())).is_ok());
        let state = State {
            models,
            library,
            runtime: None,
            in_place: BTreeSet::new(),
            served: BTreeMap::new(),
            failed: BTreeMap::new(),
            unloaded: BTreeSet::new(),
            sizes: BTreeMap::new(),
            quarantine,
            book,
            is_stopping: is_stopping.clone(),
        };
        let thread = thread::Builder::new()
            .name("model-loader".into())
            .spawn(move || {
                // The threads that run models are started by this one.
                state.models.cores().bind();
                state.work(&inbox);
            })?;
        Ok(Self {
            commands,
            is_stopping,
            thread,
        })
    }

    /// Loads the versions of a model that its settings name, whatever it takes: one that has failed is tried again, and
    /// one that has changed on disk is replaced.
    pub fn load(&self, model: Id, done: Done) {
        self.ask(Command::Load(model, done));
    }

    /// Gives a model up until it is asked for again or the agent starts anew.
    pub fn unload(&self, model: Id, done: Done) {
        self.ask(Command::Unload(model, done));
    }

    fn ask(&self, command: Command) {
        match self.commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => {
                if let Command::Load(_, done) | Command::Unload(_, done) = command {
                    done(Err(LoadError::Busy));
                }
            }
        }
    }

    /// Loads nothing more. What is being loaded goes on: ONNX Runtime does not survive the end of the process meanwhile.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.commands.try_send(Command::Stop).ok();
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// What a copy was loaded from.
type Origin = (Mark, ModelConfig);

struct State {
    models: Arc<Models>,
    library: Library,
    runtime: Option<Arc<Runtime>>,
    /// Versions that are complete, though no manifest says so.
    in_place: BTreeSet<(Id, u64)>,
    served: BTreeMap<(Id, u64), Origin>,
    failed: BTreeMap<(Id, u64), (Origin, String)>,
    /// Models that an admin has given up.
    unloaded: BTreeSet<Id>,
    /// Memory that versions took when they were last loaded, in bytes.
    sizes: BTreeMap<(Id, u64), u64>,
    quarantine: Quarantine,
    book: Book,
    is_stopping: Arc<AtomicBool>,
}

impl State {
    fn work(mut self, inbox: &Receiver<Command>) {
        self.look(true);
        while !self.is_stopping.load(Ordering::Relaxed)
            && let Ok(command) = inbox.recv()
        {
            match command {
                Command::Stop => break,
                Command::Changed(arrivals) => {
                    self.arrived(arrivals);
                    self.look(false);
                }
                Command::Load(name, done) => done(self.load(&name)),
                Command::Unload(name, done) => done(self.unload(&name)),
                Command::Wanted(name) => self.wake(&name),
            }
        }
    }

    fn arrived(&mut self, arrivals: BTreeSet<Arrival>) {
        for arrival in arrivals {
            match arrival {
                Arrival::Version(model, version) => {
                    self.in_place.insert((model, version));
                }
                Arrival::Model(name) => {
                    let path = self.library.dir.join(name.as_str());
                    if let Ok(folder) = ModelFolder::read(name, &path) {
                        self.trust(&folder);
                    }
                }
            }
        }
    }

    /// All versions of a model are complete: they lay there at the start, an admin says so, or they came in one go.
    fn trust(&mut self, folder: &ModelFolder) {
        let versions = folder.versions.keys();
        self.in_place
            .extend(versions.map(|version| (folder.name.clone(), *version)));
    }

    /// Looks through the whole repository.
    fn look(&mut self, is_start: bool) {
        let dir = self.library.dir.clone();
        let found = match scan(&dir) {
            Ok(found) => found,
            Err(error) => {
                error!(%error, "the model repository cannot be read; what serves goes on");
                self.models.scanned();
                return;
            }
        };
        if found.is_empty() && is_start {
            info!(dir = %dir.display(), "the model repository is empty");
        }
        let names: BTreeSet<&Id> = found.iter().map(|(name, _)| name).collect();
        for name in self.models.names() {
            if !names.contains(&name) {
                self.give_up(&name);
                self.models.forget(&name);
                info!(model = %name, "the model has gone from the repository");
            }
        }
        if is_start {
            for folder in found.iter().filter_map(|(_, folder)| folder.as_ref().ok()) {
                self.trust(folder);
                if let Some(newest) = folder.newest() {
                    self.models.loading(&newest.name, newest.version);
                }
            }
            self.models.scanned();
        }
        for (name, folder) in found {
            if self.is_stopping.load(Ordering::Relaxed) {
                return;
            }
            match folder {
                _ if self.unloaded.contains(&name) => {}
                // What is wrong with it has been told where it was found.
                // At the start nobody is known to be idle.
                Ok(folder) => drop(self.update(&folder, !is_start)),
                Err(error) => self.models.in_trouble(&name, Some(error.to_string())),
            }
        }
    }

    fn load(&mut self, name: &Id) -> Result<(), LoadError> {
        let path = self.library.dir.join(name.as_str());
        if !path.is_dir() {
            return Err(LoadError::Unknown(name.clone()));
        }
        self.unloaded.remove(name);
        self.quarantine.release(name);
        let failures = match ModelFolder::read(name.clone(), &path) {
            Ok(folder) => {
                self.trust(&folder);
                self.failed.retain(|(model, _), _| model != name);
                self.update(&folder, true)
            }
            Err(error) => {
                self.models.in_trouble(name, Some(error.to_string()));
                vec![error.to_string()]
            }
        };
        if failures.is_empty() {
            return Ok(());
        }
        Err(LoadError::Failed {
            model: name.clone(),
            why: failures.join("; "),
        })
    }

    fn unload(&mut self, name: &Id) -> Result<(), LoadError> {
        if !self.models.names().contains(name) {
            return Err(LoadError::Unknown(name.clone()));
        }
        self.unloaded.insert(name.clone());
        self.give_up(name);
        self.models.unloaded(name);
        info!(model = %name, "the model is unloaded");
        Ok(())
    }

    fn give_up(&mut self, name: &Id) {
        self.served.retain(|(model, _), _| model != name);
        self.failed.retain(|(model, _), _| model != name);
        self.in_place.retain(|(model, _)| model != name);
    }

    /// Loads and gives up versions of a model until those serve that shall. What is wrong with those that shall and
    /// do not.
    fn update(&mut self, folder: &ModelFolder, may_evict: bool) -> Vec<String> {
        let name = &folder.name;
        let available: BTreeSet<u64> = folder.versions.keys().copied().collect();
        let stays = |(model, version): &(Id, u64)| model != name || available.contains(version);
        self.served.retain(|key, _| stays(key));
        self.failed.retain(|key, _| stays(key));
        self.sizes.retain(|key, _| stays(key));
        self.in_place.retain(stays);
        let plan = policy::plan(&folder.config.version_policy, &available);
        let (mut chosen, mut failures) = (BTreeSet::new(), Vec::new());
        for version in &plan.candidates {
            if chosen.len() == plan.count {
                break;
            }
            let failure = self.serve(folder, *version, may_evict).err();
            // A copy made of other files or settings goes on serving, and what has no room is loaded when it is asked for.
            if failure.is_none() || self.served.contains_key(&(name.clone(), *version)) {
                chosen.insert(*version);
            }
            failures.extend(failure.map(|why| format!("version {version}: {why}")));
        }
        let serving = self.models.serving(name);
        for version in policy::given_up(&serving, &chosen, &available) {
            self.served.remove(&(name.clone(), version));
            self.models.retire(name, version);
            info!(model = %name, version, "the version is given up; what it was asked is still answered");
        }
        // What failed and has gone since is no news any more.
        self.models.keep_versions(name, &available);
        let trouble = plan.candidates.is_empty().then(|| NONE_GIVEN.to_owned());
        self.models.in_trouble(name, trouble.clone());
        failures.extend(trouble);
        failures
    }

    /// Lets a version serve, if it does not and there is a point in trying.
    ///
    /// # Errors
    /// Why it does not.
    fn serve(&mut self, folder: &ModelFolder, version: u64, may_evict: bool) -> Result<(), String> {
        let key = (folder.name.clone(), version);
        let (Some(entry), Some(files)) = (folder.entry(version), folder.versions.get(&version))
        else {
            return Ok(());
        };
        let origin = (files.mark, folder.config.clone());
        let is_served = match self.served.get(&key) {
            Some(serving) if *serving == origin => return Ok(()),
            serving => serving.is_some(),
        };
        if let Some((failed, why)) = self.failed.get(&key)
            && *failed == origin
        {
            return Err(why.clone());
        }
        let is_complete = match manifest::check(&files.path) {
            Completeness::Complete => Ok(()),
            Completeness::Unknown if self.in_place.contains(&key) => Ok(()),
            Completeness::Unknown => Err(WAITS.to_owned()),
            Completeness::Incomplete(why) => Err(format!("it is not complete: {why}")),
        };
        // What is not complete is looked at again with the next change.
        let is_final = is_complete.is_ok();
        let may_load =
            is_complete.and_then(|()| self.quarantine.why_not(&entry).map_or(Ok(()), Err));
        let may_load = may_load.map_err(Trouble::Fails);
        match may_load.and_then(|()| self.bring_up(&entry, may_evict)) {
            Ok(()) => {
                self.failed.remove(&key);
                self.served.insert(key, origin);
                Ok(())
            }
            Err(Trouble::NoRoom(why)) if self.models.serving(&key.0).is_empty() => {
                if self.models.no_room(&key.0, version, &why) {
                    warn!(model = %key.0, version, why, "the model is loaded when it is asked for and there is room");
                }
                self.served.insert(key, origin);
                Err(why)
            }
            Err(Trouble::NoRoom(why)) => {
                self.tell_failed(&key, is_served, &why);
                Err(why)
            }
            Err(Trouble::Fails(why)) => {
                self.tell_failed(&key, is_served, &why);
                if is_final {
                    self.failed.insert(key, (origin, why.clone()));
                }
                Err(why)
            }
        }
    }

    fn tell_failed(&self, (name, version): &(Id, u64), is_served: bool, why: &str) {
        let is_news = self.models.failed(name, *version, why);
        if is_news && is_served {
            error!(model = %name, version, why, "a new copy does not serve; the old one goes on");
        } else if is_news {
            error!(model = %name, version, why, "model is not served");
        }
    }

    /// Loads versions of a model that requests wait for.
    fn wake(&mut self, name: &Id) {
        let path = self.library.dir.join(name.as_str());
        for version in self.models.wanted(name) {
            let folder = ModelFolder::read(name.clone(), &path).map_err(|error| error.to_string());
            let gone = || "its files have gone".to_owned();
            let entry = folder.and_then(|folder| folder.entry(version).ok_or_else(gone));
            let entry = entry.and_then(|entry| match self.quarantine.why_not(&entry) {
                Some(why) => Err(why),
                None => Ok(entry),
            });
            let loaded = entry
                .map_err(Trouble::Fails)
                .and_then(|entry| self.bring_up(&entry, true));
            match loaded {
                Ok(()) => {}
                Err(Trouble::NoRoom(why)) => {
                    self.models.no_room(name, version, &why);
                }
                Err(Trouble::Fails(why)) => {
                    self.served.remove(&(name.clone(), version));
                    self.tell_failed(&(name.clone(), version), false, &why);
                }
            }
        }
    }

    /// Lets idle models give way until there is room for a version.
    fn make_room(&self, bytes: u64, may_evict: bool) -> Result<(), Trouble> {
        let (budget, held) = (self.library.memory_max_bytes, self.models.held());
        match memory::make_room(budget, bytes, &held, may_evict, Instant::now()) {
            Room::After(gone) => {
                for (model, version) in gone {
                    self.models.evict(&model, version);
                    info!(%model, version, "an idle model gives way to another one");
                }
                Ok(())
            }
            Room::NotNow(why) => Err(Trouble::NoRoom(why)),
            Room::Never(why) => Err(Trouble::Fails(why)),
        }
    }

    /// Loads a version, tries it out, and lets it take requests.
    fn bring_up(&mut self, entry: &ModelEntry, may_evict: bool) -> Result<(), Trouble> {
        let began = Instant::now();
        self.models.loading(&entry.name, entry.version);
        let runtime = self.runtime().map_err(Trouble::Fails)?;
        let key = (entry.name.clone(), entry.version);
        let least = memory::least_bytes(entry);
        let known = self.sizes.get(&key).copied().unwrap_or(0);
        self.make_room(least.max(known), may_evict)?;
        let choice = self.book.choose(entry);
        let provider = choice.provider;
        let signature = Arc::new(OnceLock::new());
        let before = memory::resident_bytes();
        let load = self.loading(runtime, entry.clone(), provider, signature.clone());
        let started = self.models.start(entry, load).map_err(Trouble::Fails)?;
        let bytes = memory::resident_bytes().saturating_sub(before).max(least);
        self.sizes.insert(key, bytes);
        self.make_room(bytes, may_evict)?;
        let loaded = Loaded {
            // Set by the first copy.
            signature: signature.get().cloned().unwrap_or_default(),
            choice,
            bytes,
        };
        self.models
            .ready(&entry.name, entry.version, started, loaded);
        info!(
            model = %entry.name,
            version = entry.version,
            load_ms = began.elapsed().as_millis(),
            %provider,
            "serving model"
        );
        Ok(())
    }

    fn runtime(&mut self) -> Result<Arc<Runtime>, String> {
        if let Some(runtime) = &self.runtime {
            return Ok(runtime.clone());
        }
        let runtime =
            Runtime::load(&self.library.onnxruntime).map_err(|error| error.to_string())?;
        Ok(self.runtime.insert(Arc::new(runtime)).clone())
    }

    /// Loads copies of a model, now and when a thread of it is replaced.
    fn loading(
        &self,
        runtime: Arc<Runtime>,
        entry: ModelEntry,
        provider: ExecutionProvider,
        seen: Arc<OnceLock<Signature>>,
    ) -> Load {
        let sim = self.book.sim();
        let weights = Weights::of(&entry);
        Arc::new(move || {
            let mut model = runtime.copy(&entry, provider, sim, weights.as_ref())?;
            let signature = model.graph().signature();
            warm_up(&mut *model, &signature.inputs, &entry.config)?;
            seen.get_or_init(|| signature);
            Ok(model)
        })
    }
}
