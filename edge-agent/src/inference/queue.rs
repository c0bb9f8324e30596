//! The queue of a model, between those who bring requests and the threads that run them: does what the scheduler says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use edge_protocol::{Id, Status, oip::Encoding};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::warn;

use super::{
    Job, Permits, Reply, Statistics,
    graph::{Graph, Prepared, ReadError},
    permits::Permit,
    schedule::{
        Arrival, Arrived, Batch, Number, Policy, Reading, Receipt, Refusal, RefusalKind, Schedule,
        Step,
    },
    worker::Station,
};
use crate::outcome::Outcome;

/// Text of up to this many bytes is read in less time than most models run.
const QUICKLY_READ_BYTES: usize = 16 << 10;

/// Why a request did not run.
pub(super) const LATE: &str = "the deadline passed while the request waited";

/// The end of the queue where requests come in. Once it is dropped, what waits still runs, and then the threads end.
pub(super) struct Queue(Arc<Line>);

/// The queue as its threads see it.
pub(super) struct Line {
    model: Id,
    state: Mutex<State>,
    changed: Condvar,
    /// Turns that have not ended.
    running: AtomicUsize,
    statistics: Arc<Statistics>,
}

struct State {
    schedule: Schedule<Waiting>,
    is_closed: bool,
}

/// A request that waits.
struct Waiting {
    content: Content,
    order: Order,
    reply: Reply,
}

enum Content {
    Body(Bytes),
    Prepared(Prepared),
}

/// What is asked for beside the inference itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) encoding: Encoding,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
    /// Time that it took to read it.
    pub(super) reading: Duration,
}

/// What a thread does next: requests, orders and replies in the same order, at least one.
pub(super) struct Turn {
    pub(super) requests: Vec<Prepared>,
    pub(super) orders: Vec<Order>,
    pub(super) replies: Vec<Reply>,
    pub(super) receipt: Receipt,
    pub(super) permit: Option<Permit>,
}

impl Queue {
    /// An empty queue.
    pub(super) fn new(model: Id, policy: Policy, statistics: Arc<Statistics>) -> Self {
        Self(Arc::new(Line {
            model,
            state: Mutex::new(State {
                schedule: Schedule::new(policy),
                is_closed: false,
            }),
            changed: Condvar::new(),
            running: AtomicUsize::new(0),
            statistics,
        }))
    }

    pub(super) fn line(&self) -> Arc<Line> {
        self.0.clone()
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting()
    }

    /// Whether requests run or wait.
    pub(super) fn is_busy(&self) -> bool {
        self.0.running.load(Ordering::Relaxed) > 0 || self.waiting() > 0
    }

    /// Takes a job in; it or another one is answered at once when there is no room.
    pub(super) fn push(&self, job: Job) {
        let Job {
            client,
            body,
            encoding,
            arrived,
            deadline,
            reply,
        } = job;
        let is_quickly_read = match encoding {
            Encoding::Json => body.len() <= QUICKLY_READ_BYTES,
            Encoding::Binary { header_length } => header_length <= QUICKLY_READ_BYTES,
            Encoding::Cbor => true,
        };
        let order = Order {
            encoding,
            arrived,
            deadline,
            reading: Duration::ZERO,
        };
        let content = Content::Body(body);
        let arrival = Arrival {
            client,
            deadline,
            is_quickly_read,
            job: Waiting {
                content,
                order,
                reply,
            },
        };
        let arrived = self.0.state.lock().schedule.arrive(arrival, Instant::now());
        match arrived {
            Arrived::Queued => {
                self.0.changed.notify_one();
            }
            Arrived::InPlaceOf(other, refusal) => {
                self.0.changed.notify_one();
                self.0.refuse(other, &refusal);
            }
            Arrived::Refused(waiting, refusal) => self.0.refuse(waiting, &refusal),
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.state.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Line {
    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().schedule.len()
    }

    /// Whether its other end is gone.
    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    pub(super) const fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }

    /// Waits for something to run. `None` when the queue has ended, or another thread has taken over.
    pub(super) fn next(
        &self,
        graph: &Graph,
        permits: &Arc<Permits>,
        station: &Station,
    ) -> Option<Turn> {
        let mut permit = None;
        let mut state = self.state.lock();
        loop {
            match state.schedule.step(Instant::now(), permit.is_some()) {
                Step::Wait(until) => {
                    permit = None;
                    match until {
                        _ if state.is_closed && state.schedule.is_empty() => return None,
                        Some(until) => {
                            self.changed.wait_until(&mut state, until);
                        }
                        None => self.changed.wait(&mut state),
                    }
                }
                Step::Late(waiting) => MutexGuard::unlocked(&mut state, || self.late(waiting)),
                Step::Read(number) => {
                    self.read(&mut state, number, graph, station)?;
                }
                // None once that time has passed; then the next step says what is late.
                Step::Permit(until) => {
                    permit = MutexGuard::unlocked(&mut state, || permits.take(until));
                }
                Step::Run(batch) => {
                    if !state.schedule.is_empty() {
                        self.changed.notify_one();
                    }
                    self.running.fetch_add(1, Ordering::Relaxed);
                    drop(state);
                    return Some(turn(batch, permit));
                }
            }
        }
    }

    /// Reads a request. `None` when another thread has taken over meanwhile.
    fn read(
        &self,
        state: &mut MutexGuard<'_, State>,
        number: Number,
        graph: &Graph,
        station: &Station,
    ) -> Option<()> {
        let waiting = state.schedule.get_mut(number);
        let Some((body, order)) = waiting.and_then(|waiting| match &waiting.content {
            Content::Body(body) => Some((body.clone(), waiting.order)),
            Content::Prepared(_) => None,
        }) else {
            return Some(());
        };
        let started = Instant::now();
        let read = MutexGuard::unlocked(state, || {
            let mut removal = Removal {
                line: Some(self),
                number,
            };
            let read = station.read(|| graph.read(&body, order.encoding));
            removal.line = None;
            read
        })?;
        let took = started.elapsed();
        match read {
            Ok(prepared) => {
                let timeout = prepared.request.timeout_us.map(Duration::from_micros);
                let timed_out = timeout.and_then(|timeout| order.arrived.checked_add(timeout));
                let reading = Reading {
                    priority: prepared
                        .request
                        .priority
                        .and_then(|level| u32::try_from(level).ok()),
                    deadline: timed_out.unwrap_or(order.deadline).min(order.deadline),
                    rows: prepared.rows,
                    shape: prepared.shape.clone(),
                };
                if let Some(waiting) = state.schedule.get_mut(number) {
                    waiting.order.deadline = reading.deadline;
                    waiting.order.reading = took;
                    waiting.content = Content::Prepared(prepared);
                    state.schedule.read(number, reading, took);
                }
            }
            Err(error) => {
                if let Some(waiting) = state.schedule.remove_charged(number, took) {
                    let status = match &error {
                        ReadError::Model(error) if !error.is_the_requests_fault() => {
                            Status::RuntimeFailed
                        }
                        _ => Status::BadRequest,
                    };
                    MutexGuard::unlocked(state, || self.fail(waiting, status, &error.to_string()));
                }
            }
        }
        Some(())
    }

    /// A turn has ended: its clients are charged what it took.
    pub(super) fn ran(&self, receipt: Receipt, took: Option<Duration>) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.state
            .lock()
            .schedule
            .ran(receipt, took, Instant::now());
    }

    /// This model cannot run requests together.
    pub(super) fn stop_batching(&self, why: &str) {
        warn!(model = %self.model, why, "from now on every request runs alone; set max_batch_size = 1 in model.toml");
        self.state.lock().schedule.stop_batching();
    }

    fn refuse(&self, waiting: Waiting, refusal: &Refusal) {
        let model = &self.model;
        let (status, why) = match refusal.kind {
            RefusalKind::Quota => (
                Status::QuotaExceeded,
                format!("your quota for the model {model} is used up"),
            ),
            RefusalKind::Full => (
                Status::Unavailable,
                format!("the queue of the model {model} is full"),
            ),
        };
        let outcome = Outcome::failure(status, &why, waiting.order.encoding);
        self.answer(waiting.reply, outcome.retry_after(refusal.retry_after));
    }

    fn late(&self, waiting: Waiting) {
        self.fail(waiting, Status::DeadlinePassed, LATE);
    }

    fn fail(&self, waiting: Waiting, status: Status, why: &str) {
        let outcome = Outcome::failure(status, why, waiting.order.encoding);
        self.answer(waiting.reply, outcome);
    }

    /// Answers, and counts it.
    pub(super) fn answer(&self, reply: Reply, outcome: Outcome) {
        self.statistics.ended(outcome.status);
        reply.send(outcome);
    }
}

/// Takes a request out when the thread that reads it ends; its [`Reply`] then answers with 500.
struct Removal<'a> {
    /// None once it was read.
    line: Option<&'a Line>,
    number: Number,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.line {
            let waiting = line.state.lock().schedule.remove(self.number);
            drop(waiting);
        }
    }
}

fn turn(batch: Batch<Waiting>, permit: Option<Permit>) -> Turn {
    let count = batch.jobs.len();
    let mut turn = Turn {
        requests: Vec::with_capacity(count),
        orders: Vec::with_capacity(count),
        replies: Vec::with_capacity(count),
        receipt: batch.receipt,
        permit,
    };
    for Waiting {
        content,
        order,
        reply,
    } in batch.jobs
    {
        // The scheduler runs what was read; anything else would be answered with 500 by its reply.
        if let Content::Prepared(prepared) = content {
            turn.requests.push(prepared);
            turn.orders.push(order);
            turn.replies.push(reply);
        }
    }
    turn
}
