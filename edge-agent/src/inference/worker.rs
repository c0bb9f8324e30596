//! The threads that compute: each owns one loaded copy of a model and takes jobs from the model's queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use crossbeam_channel::Receiver;
use edge_protocol::{
    Status, limit,
    oip::{Answer, Body, Encoding, Request, Tensor},
};
use parking_lot::Mutex;

use super::{Job, Permits, Reply, Statistics, Times, model::ModelError, permits::Permit};
use crate::{
    health::{Pulse, WorkerId},
    outcome::Outcome,
};

/// A loaded copy of a model.
pub(super) trait Run: Send {
    /// Runs the model: the outputs that the request wants, in the order in which it names them.
    fn run(&mut self, request: &Request) -> Result<Vec<Tensor>, ModelError>;

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
    reply: Option<Reply>,
    permit: Option<Permit>,
    is_stopped: bool,
    is_abandoned: bool,
    /// Its thread panicked.
    is_dead: bool,
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

    fn begin(&self, reply: Reply, permit: Option<Permit>) {
        let mut current = self.current.lock();
        self.stopper.reset();
        current.is_stopped = false;
        current.reply = Some(reply);
        current.permit = permit;
        self.pulse.beat();
    }

    /// Tells the run in progress, and no later one, to end.
    pub(super) fn stop(&self) {
        let mut current = self.current.lock();
        if current.reply.is_some() {
            current.is_stopped = true;
            self.stopper.stop();
        }
    }

    /// The run has ended: who waits for it, and whether it was told to. None when another thread has taken over.
    fn end(&self) -> Option<(Reply, bool)> {
        let mut current = self.current.lock();
        self.pulse.rest();
        current.permit = None;
        let reply = current.reply.take()?;
        Some((reply, current.is_stopped))
    }

    /// Gives the thread up: who waits for it, if anybody does.
    pub(super) fn abandon(&self) -> Option<Reply> {
        let mut current = self.current.lock();
        current.is_abandoned = true;
        // What it goes on computing must not keep the others from it.
        current.permit = None;
        if !current.is_dead {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        current.reply.take()
    }
}

/// Notes the end of a worker's thread, however it comes.
struct Leaving<'a>(&'a Station);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut current = self.0.current.lock();
        if current.is_abandoned {
            self.0.abandoned.fetch_sub(1, Ordering::Relaxed);
        }
        if thread::panicking() {
            // The pulse stays busy, so that health puts another thread in this one's place.
            current.is_dead = true;
        } else {
            self.0.pulse.rest();
        }
        let reply = current.reply.take();
        drop(current);
        // Answers with 500.
        drop(reply);
    }
}

/// Takes jobs until the queue's other end is gone, or another thread has taken over.
pub(super) fn work(
    model: &mut dyn Run,
    identity: &Identity,
    jobs: &Receiver<Job>,
    permits: &Arc<Permits>,
    statistics: &Arc<Statistics>,
    station: &Station,
) {
    let _leaving = Leaving(station);
    while let Ok(job) = jobs.recv() {
        // None once the deadline has passed; then the run says so.
        let permit = permits.take(job.deadline);
        let (order, reply) = job.split();
        station.begin(reply, permit);
        let outcome = run(model, identity, &order, statistics);
        let Some((reply, is_stopped)) = station.end() else {
            return;
        };
        let outcome = outcome.unwrap_or_else(|(status, why)| {
            if is_stopped {
                let why = format!("the model was stopped, since it ran for too long: {why}");
                return Outcome::failure(Status::RuntimeFailed, &why, order.encoding);
            }
            Outcome::failure(status, &why, order.encoding)
        });
        statistics.ended(outcome.status);
        reply.send(outcome);
    }
}

/// A job without who waits for it.
pub(super) struct Order {
    pub(super) body: bytes::Bytes,
    pub(super) encoding: Encoding,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
}

fn run(
    model: &mut dyn Run,
    identity: &Identity,
    job: &Order,
    statistics: &Statistics,
) -> Result<Outcome, (Status, String)> {
    let late = || {
        let why = "the deadline passed while the request waited".to_owned();
        (Status::DeadlinePassed, why)
    };
    let started = Instant::now();
    if started >= job.deadline {
        return Err(late());
    }
    let request = Request::decode(&job.body, job.encoding)
        .map_err(|error| (Status::BadRequest, error.to_string()))?;
    let timeout = request.timeout_us.map(std::time::Duration::from_micros);
    if timeout.is_some_and(|timeout| job.arrived.elapsed() >= timeout) {
        return Err(late());
    }
    let read = Instant::now();
    let outputs = model.run(&request).map_err(|error| {
        let status = if error.is_the_requests_fault() {
            Status::BadRequest
        } else {
            Status::RuntimeFailed
        };
        (status, error.to_string())
    })?;
    let computed = Instant::now();
    let answer = Answer {
        model_name: identity.name.clone(),
        model_version: Some(identity.version.clone()),
        id: request.id.clone(),
        outputs,
    };
    let body = answer
        .encode(&request, job.encoding)
        .map_err(|error| (Status::RuntimeFailed, error.to_string()))?;
    let mut outcome = sendable(body)?;
    let written = Instant::now();
    let times = Times {
        queue: started - job.arrived,
        input: read - started,
        infer: computed - read,
        output: written - computed,
        total: written - job.arrived,
    };
    statistics.executed(1);
    statistics.ran(&times);
    outcome.times = Some(times);
    Ok(outcome)
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
