//! The feeding thread with a simulated hardware watchdog, a real socket for systemd and simulated workers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    os::unix::{ffi::OsStrExt, net::UnixDatagram},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use edge_agent::{
    exit::Exit,
    health::{
        Feeder, Limits, Part, Vitals, WorkerId, Workers,
        feeder::Equipment,
        ladder::History,
        notify::Notify,
        store::{self, Kept, Store},
    },
};
use edge_hal::{sim::SimReading, watchdog::SimWatchdog};
use edge_protocol::Id;

const PATIENCE: Duration = Duration::from_secs(10);
/// Of the simulated hardware. Short, so that the tests are: every limit below is a fraction of it.
const TIMEOUT: Duration = Duration::from_millis(120);

#[derive(Default)]
struct SimWorkers {
    done: Mutex<Vec<(&'static str, WorkerId)>>,
    abandoned: AtomicUsize,
    vitals: Vitals,
}

impl Workers for SimWorkers {
    fn stop(&self, worker: &WorkerId) {
        self.done.lock().unwrap().push(("stop", worker.clone()));
    }

    fn replace(&self, worker: &WorkerId) {
        self.vitals.forget(&Part::Worker(worker.clone()));
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        self.done.lock().unwrap().push(("replace", worker.clone()));
    }

    fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::Relaxed)
    }

    fn served(&self) -> Option<usize> {
        Some(1)
    }
}

struct Box1 {
    watchdog: SimWatchdog,
    systemd: UnixDatagram,
    vitals: Vitals,
    workers: Arc<SimWorkers>,
    ends: mpsc::Receiver<Exit>,
    feeder: Option<Feeder>,
    folder: tempfile::TempDir,
}

impl Box1 {
    fn start(past: History) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let watchdog = SimWatchdog {
            timeout: TIMEOUT,
            meals: SimReading::new(0),
            armed: SimReading::new(true),
            caused_last_reset: SimReading::new(false),
        };
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(PATIENCE)).unwrap();
        let vitals = Vitals::default();
        let workers = Arc::new(SimWorkers {
            vitals: vitals.clone(),
            ..SimWorkers::default()
        });
        let (sender, ends) = mpsc::channel();
        let notify = Notify::open(Some(path.as_os_str().as_bytes()), Some(2 * TIMEOUT)).unwrap();
        let limit = TIMEOUT / 2;
        let feeder = Feeder::start(Equipment {
            watchdog: Some(Box::new(watchdog.clone())),
            notify,
            vitals: vitals.clone(),
            limits: Limits {
                main_loop: limit,
                connection: limit,
                run: limit,
                load: limit,
                store: PATIENCE,
            },
            past: Kept {
                boot: "this".into(),
                history: past,
            },
            store: Store::start(folder.path().to_owned(), &vitals).unwrap(),
            workers: workers.clone(),
            end: Box::new(move |exit| sender.send(exit).unwrap()),
        });
        Self {
            watchdog,
            systemd,
            vitals,
            workers,
            ends,
            feeder: Some(feeder.unwrap()),
            folder,
        }
    }

    fn meals(&self) -> u64 {
        self.watchdog.meals.read().unwrap()
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < PATIENCE, "{what}");
            std::thread::yield_now();
        }
    }

    fn is_fed(&self) {
        let meals = self.meals();
        self.wait("it is fed", |this| this.meals() > meals + 2);
    }

    /// What systemd hears, until a message that `wanted` picks.
    fn hears(&self, wanted: &str) {
        let mut buffer = [0; 512];
        loop {
            let n = self.systemd.recv(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..n]).contains(wanted) {
                return;
            }
        }
    }

    fn done(&self) -> Vec<&'static str> {
        let done = self.workers.done.lock().unwrap();
        done.iter().map(|(what, _)| *what).collect()
    }
}

fn worker() -> Part {
    let model = Id::new("digits").unwrap();
    Part::Worker(WorkerId { model, number: 1 })
}

#[test]
fn all_well_is_fed_ready_and_disarmed_at_the_end() {
    let mut one = Box1::start(History::default());
    let idle = one.vitals.watch(worker());
    one.is_fed();
    for said in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        one.hears(said);
    }
    assert!(!idle.mark().is_busy());
    let feeder = one.feeder.take().unwrap();
    feeder.stopping();
    one.hears("STOPPING=1");
    feeder.end();
    assert!(!one.watchdog.armed.read().unwrap());
}

#[test]
fn a_worker_that_hangs_is_stopped_then_replaced_and_then_all_is_well() {
    let one = Box1::start(History::default());
    one.is_fed();
    one.vitals.watch(worker()).beat();
    one.wait("it is stopped and replaced", |one| one.done().len() == 2);
    assert_eq!(one.done(), ["stop", "replace"]);
    one.is_fed();
    assert!(one.ends.try_recv().is_err());
}

#[test]
fn a_main_loop_that_hangs_ends_the_agent_and_is_not_fed() {
    let one = Box1::start(History::default());
    one.vitals.watch(Part::MainLoop).beat();
    let exit = one.ends.recv_timeout(PATIENCE).unwrap();
    assert_eq!(exit, Exit::Stuck);
    let meals = one.meals();
    let kept = store::read(one.folder.path()).unwrap();
    assert_eq!(kept.history.agent_ends, 1, "kept before the end");
    assert!(one.ends.recv_timeout(4 * TIMEOUT).is_err(), "once");
    assert_eq!(one.meals(), meals);
}

#[test]
fn the_third_end_that_did_not_help_starves_the_box_but_only_so_often() {
    let past = History {
        agent_ends: 3,
        ..History::default()
    };
    let one = Box1::start(past);
    one.vitals.watch(Part::MainLoop).beat();
    one.wait("the wish is kept", |one| {
        store::read(one.folder.path()).is_some_and(|kept| kept.history.is_reset_wanted)
    });
    let meals = one.meals();
    // The simulated hardware does not reset the box; this is seen, and the agent ends once more.
    assert_eq!(one.ends.recv_timeout(PATIENCE).unwrap(), Exit::Stuck);
    assert_eq!(one.meals(), meals, "starved all the while");
    let history = store::read(one.folder.path()).unwrap().history;
    assert_eq!((history.resets, history.is_reset_wanted), (3, false));
}

#[test]
fn a_box_that_resets_do_not_help_is_fed_though_a_part_is_stuck() {
    let past = History {
        resets: 3,
        ..History::default()
    };
    let one = Box1::start(past);
    one.workers.abandoned.store(3, Ordering::Relaxed);
    one.vitals.watch(worker()).beat();
    one.wait("it is stopped", |one| !one.done().is_empty());
    one.is_fed();
}

#[test]
fn a_watchdog_that_refuses_food_is_asked_again() {
    let one = Box1::start(History::default());
    one.is_fed();
    one.watchdog.meals.fail("no answer");
    one.hears("WATCHDOG=1");
    one.hears("WATCHDOG=1");
    one.watchdog.meals.recover();
    one.is_fed();
}

#[test]
fn a_feeder_that_is_dropped_disarms_nothing() {
    let mut one = Box1::start(History::default());
    one.is_fed();
    drop(one.feeder.take());
    one.wait("its thread is gone", |one| {
        Arc::strong_count(&one.workers) == 1
    });
    assert!(one.watchdog.armed.read().unwrap());
}
