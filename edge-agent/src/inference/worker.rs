//! The threads that compute: each owns one loaded copy of a model and takes turns from the model's queue.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use edge_protocol::{
    Status, limit,
    oip::{Answer, Body, Tensor},
};
use parking_lot::Mutex;

use super::{
    Permits, Reply, Times,
    graph::{Graph, Prepared},
    model::ModelError,
    permits::Permit,
    queue::{LATE, Line, Order, Turn},
    schedule::Receipt,
};
use crate::{
    health::{Pulse, WorkerId},
    outcome::Outcome,
};

/// A loaded copy of a model.
pub(super) trait Run: Send {
    /// What the model takes and gives.
    fn graph(&self) -> Arc<Graph>;

    /// Runs the requests together: for each the outputs that it wants, in the order in which it names them.
    fn run(&mut self, requests: &[Prepared]) -> Result<Vec<Vec<Tensor>>, ModelError>;

    /// What ends a run from another thread.
    fn stopper(&self) -> Arc<dyn Stop>;
}

/// Ends a run from another thread.
pub(super) trait Stop: Send + Sync {
    /// Tells the run to end.
    fn stop(&self);
    /// Lets the next run go on.
    fn reset(&self);
}

/// What a worker needs to know of its model.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) version: String,
}

/// What a worker shares with those who watch it.
pub(super) struct Station {
    worker: WorkerId,
    pulse: Arc<Pulse>,
    stopper: Arc<dyn Stop>,
    abandoned: Arc<AtomicUsize>,
    current: Mutex<Current>,
}

/// The run in progress.
#[derive(Default)]
struct Current {
    task: Option<Task>,
    is_stopped: bool,
    is_abandoned: bool,
    /// Its thread panicked.
    is_dead: bool,
}

/// What hangs on a run: those who wait, in order, who pays, and the right to compute.
pub(super) struct Task {
    pub(super) replies: VecDeque<Reply>,
    pub(super) receipt: Receipt,
    permit: Option<Permit>,
}

impl Station {
    pub(super) fn new(
        worker: WorkerId,
        pulse: Arc<Pulse>,
        stopper: Arc<dyn Stop>,
        abandoned: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            worker,
            pulse,
            stopper,
            abandoned,
            current: Mutex::default(),
        }
    }

    pub(super) const fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// Reads, watched. `None` when another thread has taken over meanwhile.
    pub(super) fn read<T>(&self, read: impl FnOnce() -> T) -> Option<T> {
        self.pulse.beat();
        let read = read();
        self.pulse.rest();
        (!self.current.lock().is_abandoned).then_some(read)
    }

    fn begin(&self, task: Task) {
        let mut current = self.current.lock();
        self.stopper.reset();
        current.is_stopped = false;
        current.task = Some(task);
        self.pulse.beat();
    }

    /// Tells the run in progress, and no later one, to end.
    pub(super) fn stop(&self) {
        let mut current = self.current.lock();
        if current.task.is_some() {
            current.is_stopped = true;
            self.stopper.stop();
        }
    }

    /// The run has ended: what hangs on it, and whether it was told to. `None` when another thread has taken over.
    fn end(&self) -> Option<(Task, bool)> {
        let mut current = self.current.lock();
        self.pulse.rest();
        let task = current.task.take()?;
        Some((task, current.is_stopped))
    }

    /// Gives the thread up: what hangs on its run, if it runs.
    pub(super) fn abandon(&self) -> Option<Task> {
        let mut current = self.current.lock();
        current.is_abandoned = true;
        if !current.is_dead {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        let mut task = current.task.take()?;
        // What it goes on computing must not keep the others from it.
        task.permit = None;
        Some(task)
    }
}

/// Notes the end of a worker's thread, however it comes.
struct Leaving<'a> {
    station: &'a Station,
    line: &'a Line,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut current = self.station.current.lock();
        if current.is_abandoned {
            self.station.abandoned.fetch_sub(1, Ordering::Relaxed);
        }
        if thread::panicking() {
            // The pulse stays busy, so that health puts another thread in this one's place.
            current.is_dead = true;
        } else {
            self.station.pulse.rest();
        }
        let task = current.task.take();
        drop(current);
        if let Some(Task {
            replies, receipt, ..
        }) = task
        {
            self.line.ran(receipt, None);
            // Answers with 500.
            drop(replies);
        }
    }
}

/// Takes turns until the queue's other end is gone, or another thread has taken over.
pub(super) fn work(
    model: &mut dyn Run,
    identity: &Identity,
    line: &Line,
    permits: &Arc<Permits>,
    station: &Station,
) {
    let _leaving = Leaving { station, line };
    let graph = model.graph();
    let mut worker = Worker {
        model,
        identity,
        line,
        station,
    };
    while let Some(turn) = line.next(&graph, permits, station) {
        if worker.take_turn(turn).is_none() {
            return;
        }
    }
}

struct Worker<'a> {
    model: &'a mut dyn Run,
    identity: &'a Identity,
    line: &'a Line,
    station: &'a Station,
}

/// Why requests failed.
struct Failure {
    status: Status,
    why: String,
    /// The outputs have not the rows of the inputs.
    is_no_batch: bool,
}

impl Worker<'_> {
    /// Runs the requests of a turn and answers them. `None` when another thread has taken over.
    fn take_turn(&mut self, turn: Turn) -> Option<()> {
        let Turn {
            requests,
            orders,
            replies,
            receipt,
            permit,
        } = turn;
        let began = Instant::now();
        let mut task = Task {
            replies: replies.into(),
            receipt,
            permit,
        };
        let mut result;
        (task, result) = self.run(&requests, &orders, task)?;
        if let Err(failure) = &result
            && requests.len() > 1
        {
            if failure.is_no_batch {
                self.line.stop_batching(&failure.why);
            }
            // One of them may be at fault: it costs only itself.
            for (request, order) in requests.iter().zip(&orders) {
                let (request, order) = (std::slice::from_ref(request), std::slice::from_ref(order));
                (task, result) = self.run(request, order, task)?;
                self.give_up(order, &mut task, result);
            }
        } else {
            self.give_up(&orders, &mut task, result);
        }
        self.line.ran(task.receipt, Some(began.elapsed()));
        Some(())
    }

    /// Runs requests together and answers them, unless they fail. `None` when another thread has taken over.
    fn run(
        &mut self,
        requests: &[Prepared],
        orders: &[Order],
        task: Task,
    ) -> Option<(Task, Result<(), Failure>)> {
        let began = Instant::now();
        if orders.iter().all(|order| order.deadline <= began) {
            let (status, why) = (Status::DeadlinePassed, LATE.to_owned());
            let is_no_batch = false;
            return Some((
                task,
                Err(Failure {
                    status,
                    why,
                    is_no_batch,
                }),
            ));
        }
        self.station.begin(task);
        let outputs = self.model.run(requests);
        let took = began.elapsed();
        let (mut task, is_stopped) = self.station.end()?;
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return Some((task, Err(Failure::new(&error, is_stopped)))),
        };
        let statistics = self.line.statistics();
        statistics.executed(requests.iter().map(|request| request.rows).sum());
        for ((outputs, request), order) in outputs.into_iter().zip(requests).zip(orders) {
            let before = Instant::now();
            let mut outcome = self.outcome(outputs, request, *order);
            let written = Instant::now();
            let waited = began.saturating_duration_since(order.arrived);
            let times = Times {
                queue: waited.saturating_sub(order.reading),
                input: order.reading,
                infer: took,
                output: written - before,
                total: written.saturating_duration_since(order.arrived),
            };
            statistics.ran(&times);
            outcome.times = Some(times);
            if let Some(reply) = task.replies.pop_front() {
                self.line.answer(reply, outcome);
            }
        }
        Some((task, Ok(())))
    }

    /// Answers those whose run failed.
    fn give_up(&self, orders: &[Order], task: &mut Task, result: Result<(), Failure>) {
        let Err(Failure { status, why, .. }) = result else {
            return;
        };
        for order in orders {
            if let Some(reply) = task.replies.pop_front() {
                self.line
                    .answer(reply, Outcome::failure(status, &why, order.encoding));
            }
        }
    }

    fn outcome(&self, outputs: Vec<Tensor>, request: &Prepared, order: Order) -> Outcome {
        let answer = Answer {
            model_name: self.identity.name.clone(),
            model_version: Some(self.identity.version.clone()),
            id: request.request.id.clone(),
            outputs,
        };
        let body = answer
            .encode(&request.request, order.encoding)
            .map_err(|error| (Status::RuntimeFailed, error.to_string()));
        let outcome = body.and_then(sendable);
        outcome.unwrap_or_else(|(status, why)| Outcome::failure(status, &why, order.encoding))
    }
}

impl Failure {
    fn new(error: &ModelError, is_stopped: bool) -> Self {
        let status = if error.is_the_requests_fault() && !is_stopped {
            Status::BadRequest
        } else {
            Status::RuntimeFailed
        };
        let why = if is_stopped {
            format!("the model was stopped, since it ran for too long: {error}")
        } else {
            error.to_string()
        };
        Self {
            status,
            why,
            is_no_batch: matches!(error, ModelError::Rows { .. }),
        }
    }
}

/// Refuses a body that no packet can carry: the broker would end the connection at each attempt to send it.
fn sendable(body: Body) -> Result<Outcome, (Status, String)> {
    let bytes = body.bytes.len();
    if bytes > limit::ANSWER_MAX_BYTES {
        let max = limit::ANSWER_MAX_BYTES;
        let why = format!(
            "the answer has {bytes} bytes, at most {max} can be sent; ask for binary outputs or fewer rows"
        );
        return Err((Status::TooLarge, why));
    }
    Ok(Outcome::success(body))
}

#[cfg(test)]
mod tests {
    use edge_protocol::oip::Encoding;

    use super::*;

    #[test]
    fn an_answer_beyond_any_packet_is_refused() {
        let body = |bytes: usize| Body {
            bytes: vec![b' '; bytes].into(),
            encoding: Encoding::Json,
        };
        assert!(sendable(body(limit::ANSWER_MAX_BYTES)).is_ok());
        let (status, why) = sendable(body(limit::ANSWER_MAX_BYTES + 1)).unwrap_err();
        assert_eq!(status, Status::TooLarge);
        assert!(why.contains("fewer rows"), "{why}");
    }
}
