//! The threads of one model: starts them, stops a run, and puts another thread in the place of one that hangs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use edge_protocol::{Id, Status};
use parking_lot::Mutex;
use tracing::{error, info};

use super::{
    Cores, Permits, Statistics,
    batching::{self, Wish},
    queue::{Line, Queue},
    schedule::Policy,
    worker::{self, Identity, Run, Station, Task},
};
use crate::{
    health::{Part, Vitals, WorkerId},
    outcome::Outcome,
};

/// Loads one more copy of the model.
pub(super) type Load = Arc<dyn Fn() -> Result<Box<dyn Run>, String> + Send + Sync>;

/// What the crews of all models share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) vitals: Vitals,
    pub(super) permits: Arc<Permits>,
    pub(super) cores: Cores,
    /// Threads given up that have not come back.
    pub(super) abandoned: Arc<AtomicUsize>,
    /// Number of the next worker.
    next: AtomicU64,
}

impl Shared {
    pub(super) fn new(vitals: Vitals, cores: Cores) -> Self {
        Self {
            vitals,
            cores,
            ..Self::default()
        }
    }
}

/// What a crew works on.
pub(super) struct Work {
    pub(super) model: Id,
    pub(super) version: u64,
    /// How its queue is run; how many rows run together and whether runs are steady, the graph says.
    pub(super) policy: Policy,
    pub(super) batching: Wish,
    pub(super) instances: usize,
    pub(super) load: Load,
    /// Time between two attempts to load another copy in place of one that hangs.
    pub(super) load_again: Duration,
    pub(super) statistics: Arc<Statistics>,
}

/// The threads of one model.
pub(super) struct Crew {
    work: Work,
    line: Arc<Line>,
    shared: Arc<Shared>,
    stations: Mutex<Vec<Arc<Station>>>,
}

impl Crew {
    /// Loads the copies of a model and starts their threads: the crew, and the queue that it takes turns from.
    ///
    /// They end, after what is in the queue, when the queue is dropped.
    pub(super) fn start(work: Work, shared: Arc<Shared>) -> Result<(Arc<Self>, Queue), String> {
        let next = || WorkerId {
            model: work.model.clone(),
            number: shared.next.fetch_add(1, Ordering::Relaxed),
        };
        let first = next();
        let (copy, policy) = watched(&shared.vitals, &first, || {
            let mut copy = (work.load)()?;
            let policy = batching::policy(&mut *copy, &work.model, &work.policy, work.batching);
            Ok((copy, policy))
        })?;
        let queue = Queue::new(work.model.clone(), policy, work.statistics.clone());
        let others: Vec<WorkerId> = (1..work.instances).map(|_| next()).collect();
        let crew = Arc::new(Self {
            work,
            line: queue.line(),
            shared,
            stations: Mutex::default(),
        });
        crew.hire(first, copy)?;
        for worker in others {
            let copy = watched(&crew.shared.vitals, &worker, || (crew.work.load)())?;
            crew.hire(worker, copy)?;
        }
        Ok((crew, queue))
    }

    fn next_worker(&self) -> WorkerId {
        WorkerId {
            model: self.work.model.clone(),
            number: self.shared.next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Whether all threads have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.stations.lock().is_empty()
    }

    /// Starts the thread of a copy.
    fn hire(self: &Arc<Self>, worker: WorkerId, mut copy: Box<dyn Run>) -> Result<(), String> {
        let pulse = self.shared.vitals.watch(Part::Worker(worker.clone()));
        let abandoned = self.shared.abandoned.clone();
        let station = Arc::new(Station::new(worker, pulse, copy.stopper(), abandoned));
        let identity = Identity {
            name: self.work.model.to_string(),
            version: self.work.version.to_string(),
        };
        let line = self.line.clone();
        let permits = self.shared.permits.clone();
        permits.join();
        self.stations.lock().push(station.clone());
        let started = thread::Builder::new()
            // The kernel keeps 15 characters of a thread's name.
            .name(format!("{}-{}", station.worker().number, identity.name))
            .spawn({
                let (station, crew) = (station.clone(), self.clone());
                move || {
                    worker::work(&mut *copy, &identity, &line, &permits, &station);
                    // The queue has ended, or another thread has taken over.
                    crew.dismiss(station.worker());
                }
            });
        match started {
            Ok(_) => Ok(()),
            Err(error) => {
                self.dismiss(station.worker());
                Err(format!("cannot start an inference thread: {error}"))
            }
        }
    }

    /// Takes a worker off the crew.
    fn dismiss(&self, worker: &WorkerId) -> Option<Arc<Station>> {
        self.shared.vitals.forget(&Part::Worker(worker.clone()));
        let mut stations = self.stations.lock();
        let index = stations.iter().position(|s| s.worker() == worker)?;
        self.shared.permits.leave();
        Some(stations.swap_remove(index))
    }

    /// Tells a run to end.
    pub(super) fn stop(&self, worker: &WorkerId) {
        let station = {
            let stations = self.stations.lock();
            stations.iter().find(|s| s.worker() == worker).cloned()
        };
        if let Some(station) = station {
            station.stop();
        }
    }

    /// Gives a thread up. Its caller is answered and another thread started by a thread of their own, since answering
    /// and loading may wait.
    pub(super) fn replace(self: &Arc<Self>, worker: &WorkerId) {
        let Some(station) = self.dismiss(worker) else {
            return;
        };
        let next = self.next_worker();
        let part = Part::Load(next.clone());
        // Stuck like any load, when it takes too long or fails for too long.
        self.shared.vitals.watch(part.clone()).beat();
        let crew = self.clone();
        let started = thread::Builder::new()
            .name("model-reload".into())
            .spawn(move || {
                crew.shared.cores.bind();
                if let Some(Task { replies, receipt, .. }) = station.abandon() {
                    let why = "the model did not end in time, nor when it was told to; its thread was replaced";
                    crew.line.ran(receipt, None);
                    for reply in replies {
                        let encoding = reply.encoding();
                        let outcome = Outcome::failure(Status::RuntimeFailed, why, encoding);
                        crew.line.answer(reply, outcome);
                    }
                }
                let hire = || crew.hire(next.clone(), (crew.work.load)()?);
                while let Err(why) = hire() {
                    error!(model = %next.model, why, "cannot load the model again");
                    thread::sleep(crew.work.load_again);
                }
                info!(model = %next.model, worker = next.number, "another thread serves the model");
                crew.shared.vitals.forget(&part);
            });
        if let Err(error) = started {
            error!(model = %worker.model, %error, "cannot start a thread to replace one that hangs");
        }
    }
}

/// Loads a copy for a worker, watched.
fn watched<T>(
    vitals: &Vitals,
    worker: &WorkerId,
    load: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let part = Part::Load(worker.clone());
    vitals.watch(part.clone()).beat();
    let loaded = load();
    vitals.forget(&part);
    loaded
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            atomic::AtomicBool,
            mpsc::{self, Receiver as Pipe},
        },
        time::Instant,
    };

    use edge_protocol::{
        Datatype,
        oip::{Answer, Encoding, Tensor},
    };

    use super::*;
    use crate::inference::{
        Job, Reply,
        graph::{Graph, Port, Prepared},
        model::ModelError,
        worker::Stop,
    };

    const PATIENCE: Duration = Duration::from_secs(10);

    /// What simulated copies of a model do, in the order in which they are loaded.
    #[derive(Clone, Copy)]
    enum Does {
        Answer,
        /// Ends when told to.
        RunLong,
        /// Ends when the test lets it.
        Hang,
        Panic,
        NotLoad,
        /// Gives back its inputs each time that the test lets it; fails when one of them is [`BAD`].
        Echo,
        /// As `Echo`, but for several requests only one row.
        OneRow,
    }

    /// What [`Does::Echo`] fails on.
    const BAD: f32 = 13.0;

    struct SimModel {
        does: Does,
        release: Arc<Mutex<Pipe<()>>>,
        stop: Arc<SimStop>,
        /// Gets the number of requests of each run.
        is_running: mpsc::Sender<usize>,
    }

    #[derive(Default)]
    struct SimStop(AtomicBool);

    impl Stop for SimStop {
        fn stop(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
        fn reset(&self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    impl Run for SimModel {
        fn graph(&self) -> Arc<Graph> {
            let port = |name: &str| Port {
                name: name.into(),
                datatype: Datatype::Fp32,
                shape: vec![-1],
            };
            Arc::new(Graph {
                inputs: vec![port("x")],
                outputs: vec![port("y")],
                allow_non_finite: false,
            })
        }

        fn run(&mut self, requests: &[Prepared]) -> Result<Vec<Vec<Tensor>>, ModelError> {
            self.is_running.send(requests.len()).ok();
            let echo = || {
                requests
                    .iter()
                    .map(|request| request.inputs.clone())
                    .collect()
            };
            match self.does {
                Does::Answer | Does::NotLoad => Ok(echo()),
                Does::Hang => {
                    self.release.lock().recv().ok();
                    Ok(echo())
                }
                Does::Echo | Does::OneRow => {
                    self.release.lock().recv().ok();
                    let is_bad = |request: &Prepared| *request.inputs[0].data == BAD.to_le_bytes();
                    if requests.iter().any(is_bad) {
                        return Err(ModelError::RawInputs(2));
                    }
                    if matches!(self.does, Does::OneRow) && requests.len() > 1 {
                        return Err(ModelError::Rows {
                            name: "y".into(),
                            expected: requests.len(),
                            actual: Some(1),
                        });
                    }
                    Ok(echo())
                }
                Does::RunLong => {
                    while !self.stop.0.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                    Err(ModelError::RawInputs(2))
                }
                Does::Panic => panic!("simulated"),
            }
        }

        fn stopper(&self) -> Arc<dyn Stop> {
            self.stop.clone()
        }
    }

    struct Bench {
        crew: Arc<Crew>,
        queue: Queue,
        shared: Arc<Shared>,
        running: Pipe<usize>,
        release: mpsc::Sender<()>,
    }

    fn bench(does: &[Does], instances: usize) -> Bench {
        bench_with(does, instances, Wish::Rows(1))
    }

    fn bench_with(does: &[Does], instances: usize, batching: Wish) -> Bench {
        let (release, released) = mpsc::channel();
        let (is_running, running) = mpsc::channel();
        let released = Arc::new(Mutex::new(released));
        let plan = Mutex::new(does.iter().copied().collect::<VecDeque<_>>());
        let is_running = Mutex::new(is_running);
        let load: Load = Arc::new(move || {
            let does = plan.lock().pop_front().ok_or("no more copies")?;
            if matches!(does, Does::NotLoad) {
                return Err("told not to load".into());
            }
            Ok(Box::new(SimModel {
                does,
                release: released.clone(),
                stop: Arc::default(),
                is_running: is_running.lock().clone(),
            }))
        });
        let shared = Arc::new(Shared::default());
        let work = Work {
            model: Id::new("digits").unwrap(),
            version: 1,
            policy: Policy {
                max_queue_size: 8,
                ..Policy::default()
            },
            batching,
            instances,
            load,
            load_again: Duration::from_millis(1),
            statistics: Arc::default(),
        };
        let (crew, queue) = Crew::start(work, shared.clone()).unwrap();
        Bench {
            crew,
            queue,
            shared,
            running,
            release,
        }
    }

    impl Bench {
        fn ask(&self) -> Pipe<Outcome> {
            self.ask_for(1.0)
        }

        fn ask_for(&self, value: f32) -> Pipe<Outcome> {
            let body = format!(
                r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":[{value}]}}]}}"#
            );
            let (sender, outcome) = mpsc::channel();
            let now = Instant::now();
            let send = move |outcome| sender.send(outcome).unwrap();
            self.queue.push(Job {
                client: Id::new("sensor-1").unwrap(),
                body: body.into(),
                encoding: Encoding::Json,
                arrived: now,
                deadline: now + PATIENCE,
                reply: Reply::new(Encoding::Json, send),
            });
            outcome
        }

        /// Lets a run end as soon as it has begun: how many requests it is for.
        fn let_run(&self) -> usize {
            let requests = self.running.recv_timeout(PATIENCE).unwrap();
            self.release.send(()).unwrap();
            requests
        }

        fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
            let started = Instant::now();
            while !is_so(self) {
                assert!(started.elapsed() < PATIENCE, "{what}");
                thread::yield_now();
            }
        }

        fn busy(&self) -> Option<WorkerId> {
            let marks = self.shared.vitals.marks();
            marks.into_iter().find_map(|(part, mark)| match part {
                Part::Worker(worker) if mark.is_busy() => Some(worker),
                _ => None,
            })
        }

        fn abandoned(&self) -> usize {
            self.shared.abandoned.load(Ordering::Relaxed)
        }
    }

    fn get(outcome: &Pipe<Outcome>) -> Outcome {
        outcome.recv_timeout(PATIENCE).unwrap()
    }

    #[test]
    fn a_run_that_is_told_to_end_is_answered_and_its_thread_goes_on() {
        let bench = bench(&[Does::RunLong], 1);
        for _ in 0..2 {
            let outcome = bench.ask();
            bench.running.recv_timeout(PATIENCE).unwrap();
            bench.crew.stop(&bench.busy().unwrap());
            let outcome = get(&outcome);
            assert_eq!(outcome.status, Status::RuntimeFailed);
            assert!(outcome.message.contains("too long"), "{outcome:?}");
        }
        bench.wait("idle again", |bench| bench.busy().is_none());
        assert_eq!(bench.abandoned(), 0);
    }

    #[test]
    fn a_thread_that_hangs_is_replaced_and_counted_until_it_comes_back() {
        let bench = bench(&[Does::Hang, Does::NotLoad, Does::Answer], 1);
        let (first, second) = (bench.ask(), bench.ask());
        bench.running.recv_timeout(PATIENCE).unwrap();
        let worker = bench.busy().unwrap();
        bench.crew.stop(&worker);
        assert!(first.try_recv().is_err(), "it does not end");
        bench.crew.replace(&worker);
        // Loading fails once, and is tried again.
        let outcome = get(&first);
        assert_eq!(outcome.status, Status::RuntimeFailed);
        assert!(outcome.message.contains("replaced"), "{outcome:?}");
        assert_eq!(get(&second).status, Status::Ok);
        assert_eq!(bench.abandoned(), 1);
        bench.crew.replace(&worker);
        assert_eq!(bench.abandoned(), 1, "it is known no longer");
        bench.release.send(()).unwrap();
        bench.wait("the thread has come back", |bench| bench.abandoned() == 0);
        assert!(first.try_recv().is_err(), "answered once");
    }

    #[test]
    fn the_threads_end_with_their_queue_after_what_is_in_it() {
        let bench = bench(&[Does::Answer, Does::Answer], 2);
        let outcomes: Vec<_> = (0..4).map(|_| bench.ask()).collect();
        assert!(!bench.crew.has_ended());
        let (crew, shared) = (bench.crew.clone(), bench.shared.clone());
        drop(bench.queue);
        for outcome in &outcomes {
            assert_eq!(get(outcome).status, Status::Ok);
        }
        let started = Instant::now();
        while !crew.has_ended() {
            assert!(started.elapsed() < PATIENCE, "the threads end");
            thread::yield_now();
        }
        assert!(shared.vitals.marks().is_empty(), "nobody watches them");
        assert_eq!(shared.permits.most(), 1, "nor counts them");
    }

    #[test]
    fn others_are_served_while_one_hangs() {
        let bench = bench(&[Does::Hang, Does::Hang, Does::Answer], 2);
        let hung = [bench.ask(), bench.ask()];
        for _ in &hung {
            bench.running.recv_timeout(PATIENCE).unwrap();
        }
        let worker = bench.busy().unwrap();
        bench.crew.replace(&worker);
        for _ in 0..10 {
            assert_eq!(get(&bench.ask()).status, Status::Ok);
        }
        assert_eq!(bench.abandoned(), 1);
        bench.wait("one of them is answered", |_| {
            hung.iter().any(|outcome| outcome.try_recv().is_ok())
        });
    }

    #[test]
    fn a_thread_that_panicked_is_answered_for_at_once_and_stays_busy_until_replaced() {
        let bench = bench(&[Does::Panic, Does::Answer], 1);
        let outcome = get(&bench.ask());
        assert_eq!(outcome.status, Status::RuntimeFailed);
        let worker = bench.busy().unwrap();
        bench.crew.replace(&worker);
        assert_eq!(get(&bench.ask()).status, Status::Ok);
        assert_eq!(bench.abandoned(), 0, "a dead thread keeps nothing");
    }

    fn value(outcome: &Outcome) -> f32 {
        let answer = Answer::decode(&outcome.body.bytes, outcome.body.encoding).unwrap();
        f32::from_le_bytes(answer.outputs[0].data.as_ref().try_into().unwrap())
    }

    #[test]
    fn what_waits_runs_together_and_a_bad_one_costs_only_itself() {
        let bench = bench_with(&[Does::Echo], 1, Wish::Rows(4));
        let first = bench.ask_for(1.0);
        assert_eq!(bench.running.recv_timeout(PATIENCE).unwrap(), 1);
        let others = [2.0, BAD, 3.0, 4.0, 5.0].map(|value| bench.ask_for(value));
        bench.release.send(()).unwrap();
        assert_eq!(value(&get(&first)), 1.0);
        // Four together fail, then each by itself, then the fifth.
        let runs: Vec<usize> = (0..6).map(|_| bench.let_run()).collect();
        assert_eq!(runs, [4, 1, 1, 1, 1, 1]);
        let [a, bad, b, c, d] = others.map(|outcome| get(&outcome));
        assert_eq!([&a, &b, &c, &d].map(value), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(bad.status, Status::BadRequest);
        let statistics = &bench.crew.work.statistics;
        assert_eq!(statistics.runs(), (5, 5));
    }

    #[test]
    fn runs_are_counted_by_rows_and_by_runs() {
        let bench = bench_with(&[Does::Echo], 1, Wish::Rows(4));
        let first = bench.ask_for(1.0);
        bench.running.recv_timeout(PATIENCE).unwrap();
        let others = [2.0, 3.0, 4.0].map(|value| bench.ask_for(value));
        bench.release.send(()).unwrap();
        assert_eq!(bench.let_run(), 3);
        get(&first);
        assert_eq!(others.map(|outcome| value(&get(&outcome))), [2.0, 3.0, 4.0]);
        assert_eq!(bench.crew.work.statistics.runs(), (4, 2));
    }

    #[test]
    fn a_model_that_cannot_run_requests_together_runs_them_alone() {
        let bench = bench_with(&[Does::OneRow], 1, Wish::Rows(4));
        for turn in 0..2 {
            let first = bench.ask_for(1.0);
            bench.running.recv_timeout(PATIENCE).unwrap();
            let others = [2.0, 3.0].map(|value| bench.ask_for(value));
            bench.release.send(()).unwrap();
            get(&first);
            let expected: &[usize] = if turn == 0 { &[2, 1, 1] } else { &[1, 1] };
            let runs: Vec<usize> = expected.iter().map(|_| bench.let_run()).collect();
            assert_eq!(runs, expected);
            assert_eq!(others.map(|outcome| value(&get(&outcome))), [2.0, 3.0]);
        }
    }

    #[test]
    fn all_of_a_batch_that_hangs_are_answered_when_its_thread_is_replaced() {
        let bench = bench_with(&[Does::Echo, Does::Answer], 1, Wish::Rows(4));
        let first = bench.ask_for(1.0);
        bench.running.recv_timeout(PATIENCE).unwrap();
        let others = [2.0, 3.0].map(|value| bench.ask_for(value));
        bench.release.send(()).unwrap();
        get(&first);
        assert_eq!(bench.running.recv_timeout(PATIENCE).unwrap(), 2);
        let worker = bench.busy().unwrap();
        bench.crew.replace(&worker);
        for outcome in &others {
            assert_eq!(get(outcome).status, Status::RuntimeFailed);
        }
        assert_eq!(get(&bench.ask()).status, Status::Ok);
        bench.release.send(()).unwrap();
        bench.wait("the thread has come back", |bench| bench.abandoned() == 0);
    }
}
