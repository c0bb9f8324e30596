//! Between connections and models: admits, refuses, queues, and answers whoever waits.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edge_protocol::{Id, Status, limit};
use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::v5::Publish;
use tracing::{debug, warn};

use super::{
    admission::{self, Admission, DropReason, ReplyTo, Request},
    answers::{Answers, Begin, Bounds, Key},
    connection::{Connection, Waiter},
};
use crate::{
    inference::{Job, Models, Reply},
    outcome::Outcome,
};

/// Requests running or queued, over all models and both connections: less than what either connection may have
/// unacknowledged, so that a refusal always finds room behind them.
const RUNNING_MAX: usize = limit::RECEIVE_MAX as usize * 3 / 4;

/// The box's inference service.
pub(crate) struct Service {
    region: Id,
    box_id: Id,
    models: Arc<Models>,
    answers: Mutex<Answers<Waiter>>,
    dropped: HashMap<DropReason, AtomicU64>,
    closed: AtomicBool,
}

impl Service {
    pub(crate) fn new(
        region: Id,
        box_id: Id,
        models: Arc<Models>,
        answer_cache_bytes: usize,
    ) -> Self {
        Self {
            region,
            box_id,
            models,
            answers: Mutex::new(Answers::new(Bounds {
                running_max: RUNNING_MAX,
                bytes_max: answer_cache_bytes,
            })),
            dropped: DropReason::ALL
                .into_iter()
                .map(|reason| (reason, AtomicU64::new(0)))
                .collect(),
            closed: AtomicBool::new(false),
        }
    }

    /// Takes no more requests. Those that arrive stay unacknowledged, so the broker gives them to another box, or to
    /// this one after its restart.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Requests that could not be answered, by reason.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DropReason::ALL.into_iter().filter_map(|reason| {
            let count = self.dropped.get(&reason)?.load(Ordering::Relaxed);
            Some((reason.name(), count))
        })
    }

    /// Requests running or queued.
    pub(crate) fn running(&self) -> usize {
        self.answers.lock().running()
    }

    /// Takes what arrived on a request topic. Called by the connection's polling task, so it never waits.
    pub(crate) fn take(self: &Arc<Self>, connection: &Arc<Connection>, publish: &Publish) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        let ticket = connection.arrived(publish);
        match admission::read(publish, &self.region, &self.box_id) {
            Admission::Accept(request) => {
                let waiter = |reply| Waiter {
                    reply,
                    ticket,
                    connection: connection.clone(),
                };
                self.begin(request, waiter, now);
            }
            Admission::Refuse {
                model,
                reply,
                status,
                message,
            } => {
                self.models.refused(&model, status);
                debug!(status = status.code(), message, "request refused");
                let outcome = Outcome::failure(status, &message, reply.encoding);
                connection.answer(reply, ticket, &outcome, self.box_id.as_str());
            }
            Admission::Drop(reason) => {
                let topic = String::from_utf8_lossy(&publish.topic);
                warn!(reason = reason.name(), %topic, "request dropped: it cannot be answered");
                if let Some(count) = self.dropped.get(&reason) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                connection.dismissed(ticket);
            }
        }
    }

    fn begin(
        self: &Arc<Self>,
        request: Request,
        waiter: impl FnOnce(ReplyTo) -> Waiter,
        now: Instant,
    ) {
        let encoding = request.reply.encoding;
        let key = Key {
            client: request.client,
            correlation: request.reply.correlation.clone(),
        };
        let deadline = now + request.expires_in;
        let waiter = waiter(request.reply);
        let begin = self
            .answers
            .lock()
            .begin(key, request.body.len(), waiter, deadline, now);
        match begin {
            Begin::Run(key) => {
                let service = self.clone();
                self.models.queue(
                    &request.model,
                    None,
                    Job {
                        body: request.body,
                        encoding,
                        arrived: now,
                        deadline,
                        reply: Reply::new(encoding, move |outcome| service.finish(&key, outcome)),
                    },
                );
            }
            Begin::Joined => {}
            Begin::Answered(waiter, outcome) => self.answer(waiter, &outcome),
            Begin::OverShare(waiter) => {
                let why = "your requests and their answers fill your share of this box's memory until they expire";
                let status = Status::QuotaExceeded;
                self.refuse(&request.model, waiter, status, why, Duration::from_secs(1));
            }
            Begin::Full(waiter, why) => {
                let wait = Duration::from_millis(500);
                self.refuse(&request.model, waiter, Status::Unavailable, why, wait);
            }
        }
    }

    fn refuse(&self, model: &Id, waiter: Waiter, status: Status, why: &str, retry_after: Duration) {
        self.models.refused(model, status);
        let outcome = Outcome::failure(status, why, waiter.reply.encoding).retry_after(retry_after);
        self.answer(waiter, &outcome);
    }

    /// Ends a request: answers all that wait for it.
    pub(crate) fn finish(&self, key: &Arc<Key>, outcome: Outcome) {
        let outcome = Arc::new(outcome);
        let waiters = self.answers.lock().finish(key, &outcome);
        for waiter in waiters {
            self.answer(waiter, &outcome);
        }
    }

    fn answer(&self, waiter: Waiter, outcome: &Outcome) {
        let Waiter {
            reply,
            ticket,
            connection,
        } = waiter;
        connection.answer(reply, ticket, outcome, self.box_id.as_str());
    }
}
