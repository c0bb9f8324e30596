//! The thread that looks at all parts, does what the ladder says, and feeds the watchdogs.
//!
//! It is a thread of the operating system, so that it sees the asynchronous one stand still. It waits for nothing but
//! its own clock: locks that a stuck part may hold, and writes to the card, are left to others.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use edge_hal::watchdog::Watchdog;
use tracing::{error, info, warn};

use super::{
    ladder::{Action, Ladder, Rungs, Surroundings},
    notify::Notify,
    progress::{Limits, Part, Progress, Stuck, WorkerId},
    store::{Kept, Store},
    vitals::Vitals,
};
use crate::exit::Exit;

/// Longest time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long the card may take to keep what is about to be done.
const KEEP: Duration = Duration::from_secs(2);
/// How long the watchdogs' goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The threads that run models, as far as health must know them. Nothing here may wait.
pub trait Workers: Send + Sync {
    /// Tells the run of this worker to end.
    fn stop(&self, worker: &WorkerId);
    /// Gives this worker's thread up, answers whoever waits for it, and starts another one, all on another thread.
    fn replace(&self, worker: &WorkerId);
    /// Threads given up that have not come back.
    fn abandoned(&self) -> usize;
    /// Models that are served; none before each is loaded or has failed.
    fn served(&self) -> Option<usize>;
}

/// What the feeding thread works with.
pub struct Equipment {
    /// The hardware watchdog, running.
    pub watchdog: Option<Box<dyn Watchdog>>,
    /// The line to systemd.
    pub notify: Notify,
    /// The parts.
    pub vitals: Vitals,
    /// When a part is stuck.
    pub limits: Limits,
    /// The past.
    pub past: Kept,
    /// The data folder.
    pub store: Store,
    /// The models' threads.
    pub workers: Arc<dyn Workers>,
    /// Ends the process.
    pub end: Box<dyn Fn(Exit) + Send>,
}

enum Message {
    Stopping,
    End(Sender<()>),
}

/// The feeding thread's handle. Dropped, the thread goes without disarming anything.
pub struct Feeder {
    messages: Sender<Message>,
}

impl Feeder {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(equipment: Equipment) -> io::Result<Self> {
        let (messages, queue) = bounded(2);
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || Feeding::new(equipment).feed(&queue))?;
        Ok(Self { messages })
    }

    /// The agent begins to end in order. It goes on being watched.
    pub fn stopping(&self) {
        // Full only when the thread stands still, and then the watchdogs see to it.
        let _told = self.messages.try_send(Message::Stopping);
    }

    /// The agent has ended in order: nothing is watched any more, and the hardware is stopped where it can be.
    pub fn end(self) {
        let (sender, ended) = bounded(1);
        let asked = self.messages.send_timeout(Message::End(sender), GOODBYE);
        if asked.is_err() || ended.recv_timeout(GOODBYE).is_err() {
            warn!("the watchdog was not stopped: the box is reset unless the agent starts again");
        }
    }
}

struct Feeding {
    equipment: Equipment,
    progress: Progress,
    ladder: Ladder,
    kept: Kept,
    is_kept: bool,
    tick: Duration,
    feed_every: Duration,
    hardware_fed: Option<Instant>,
    systemd_fed: Option<Instant>,
    is_feeding_refused: bool,
    stuck: Vec<Part>,
}

impl Feeding {
    fn new(equipment: Equipment) -> Self {
        let timeout = equipment.watchdog.as_ref().map(|w| w.timeout());
        let both = [timeout, equipment.notify.watchdog()];
        let shortest = both.into_iter().flatten().min();
        let feed_every = shortest.map_or(LOOK, |shortest| shortest / 3);
        let past = equipment.past.clone();
        // Written once at the start, to know whether it can be.
        let is_kept = equipment.store.keep(past.clone(), KEEP);
        let ladder = Ladder::new(Rungs::new(timeout), past.history);
        if ladder.is_out_of_resets() {
            error!(
                resets = past.history.resets,
                "resets have not helped: for an hour of calm the watchdog is fed even when a part is stuck"
            );
        }
        Self {
            progress: Progress::new(equipment.limits.clone()),
            ladder,
            kept: past,
            is_kept,
            tick: feed_every.min(LOOK).max(Duration::from_millis(1)),
            feed_every,
            hardware_fed: None,
            systemd_fed: None,
            is_feeding_refused: false,
            stuck: Vec::new(),
            equipment,
        }
    }

    fn feed(mut self, messages: &Receiver<Message>) {
        let mut last = Instant::now();
        loop {
            match messages.recv_timeout(self.tick) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stopping) => self.equipment.notify.stopping(),
                Ok(Message::End(ended)) => {
                    self.disarm();
                    // Nobody waits any more when it took too long.
                    let _told = ended.send(());
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            self.look(now, now - last);
            last = now;
        }
    }

    fn look(&mut self, now: Instant, elapsed: Duration) {
        let marks = self.equipment.vitals.marks();
        let stuck = self.progress.observe(marks, elapsed);
        self.tell(&stuck);
        let around = Surroundings {
            abandoned: self.equipment.workers.abandoned(),
            has_hardware: self.equipment.watchdog.is_some(),
            is_history_kept: self.is_kept,
        };
        let decision = self.ladder.step(&stuck, around, elapsed);
        // Before anything else is done: what comes after a reset must know of it.
        self.keep_history();
        if decision.feed_hardware {
            self.feed_hardware(now);
        }
        if decision.feed_systemd && is_due(self.systemd_fed, now, self.feed_every, self.tick) {
            self.systemd_fed = Some(now);
            self.equipment.notify.feed();
        }
        self.show(now);
        for action in &decision.actions {
            self.act(action);
        }
    }

    /// Logs what has changed.
    fn tell(&mut self, stuck: &[Stuck]) {
        for Stuck { part, still_for } in stuck {
            if !self.stuck.contains(part) {
                let still_s = still_for.as_secs();
                warn!(%part, still_s, "a part makes no progress; the watchdog is not fed");
            }
        }
        for part in &self.stuck {
            if !stuck.iter().any(|stuck| stuck.part == *part) {
                info!(%part, "the part is stuck no longer");
            }
        }
        self.stuck = stuck.iter().map(|stuck| stuck.part.clone()).collect();
    }

    fn keep_history(&mut self) {
        let history = self.ladder.history();
        if history != self.kept.history {
            self.kept.history = history;
            self.is_kept = self.equipment.store.keep(self.kept.clone(), KEEP);
        }
    }

    fn feed_hardware(&mut self, now: Instant) {
        let Some(watchdog) = &mut self.equipment.watchdog else {
            return;
        };
        if !is_due(self.hardware_fed, now, self.feed_every, self.tick) {
            return;
        }
        match watchdog.feed() {
            Ok(()) => {
                self.hardware_fed = Some(now);
                if std::mem::take(&mut self.is_feeding_refused) {
                    info!("the watchdog takes food again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_feeding_refused, true) {
                    error!(%error, "the watchdog takes no food: it may reset the box");
                }
            }
        }
    }

    fn act(&self, action: &Action) {
        let workers = &self.equipment.workers;
        match action {
            Action::Stop(worker) => {
                warn!(model = %worker.model, worker = worker.number, "telling a run that takes too long to end");
                workers.stop(worker);
            }
            Action::Replace(worker) => {
                error!(model = %worker.model, worker = worker.number, "a run does not end: its thread is replaced");
                workers.replace(worker);
            }
            Action::EndAgent(part) => {
                error!(%part, "the agent ends, so that it is started again");
                (self.equipment.end)(Exit::Stuck);
            }
            Action::Withhold(part) => {
                error!(%part, "starting the agent again has not helped: the watchdog resets the box");
            }
            Action::NoReset => {
                error!("the watchdog did not reset the box; it is fed again");
            }
        }
    }

    /// Tells systemd that the agent is ready, and people how it is.
    fn show(&mut self, now: Instant) {
        let served = self.equipment.workers.served();
        if served.is_some() && self.equipment.vitals.have_connections_tried() {
            self.equipment.notify.ready();
        }
        let line = self.line(served);
        self.equipment.notify.status(&line, now);
    }

    fn line(&self, served: Option<usize>) -> String {
        let vitals = &self.equipment.vitals;
        let mut line = match served {
            Some(1) => "serving 1 model".to_owned(),
            Some(models) => format!("serving {models} models"),
            None => "loading models".to_owned(),
        };
        line += if vitals.connected() > 0 {
            ", broker connected"
        } else {
            ", no broker"
        };
        if let Some(what) = vitals.waits_for() {
            line = what;
        }
        if let Some(millicelsius) = vitals.hottest_millicelsius() {
            line += &format!(", {} °C", (millicelsius + 500).div_euclid(1000));
        }
        for part in &self.stuck {
            line += &format!(", stuck: {part}");
        }
        let abandoned = self.equipment.workers.abandoned();
        if abandoned > 0 {
            line += &format!(", {abandoned} threads given up");
        }
        if let Some(fault) = self.equipment.store.fault() {
            line += &format!(", data folder: {fault}");
        }
        line
    }

    fn disarm(&mut self) {
        if let Some(watchdog) = &mut self.equipment.watchdog {
            match watchdog.disarm() {
                Ok(()) => info!("the watchdog is stopped"),
                Err(error) => {
                    warn!(%error, "the watchdog goes on: start the agent again before it resets the box");
                }
            }
        }
    }
}

/// Whether it is time to feed: rather a look too early than one too late.
fn is_due(last: Option<Instant>, now: Instant, every: Duration, tick: Duration) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) + tick > every)
}
