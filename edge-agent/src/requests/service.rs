//! Between those who ask and models: admits, refuses, queues, and answers whoever waits, over MQTT and HTTP.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use edge_protocol::{
    Id, Status, limit,
    oip::{
        Encoding,
        server::{Operation, Subject},
    },
};
use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::{
    admission::{self, Admission, DropReason, Purpose, ReplyTo, Request},
    answers::{Answers, Begin, Bounds, Key},
    connection::Connection,
    exchange::Ticket,
    operations::{Asked, Operations},
    slow::SlowLog,
};
use crate::{
    inference::{Figures, Job, Models, Reply},
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
    operations: Arc<Operations>,
    admins: Vec<Id>,
    answers: Mutex<Answers<Waiter>>,
    dropped: HashMap<DropReason, AtomicU64>,
    closed: AtomicBool,
    /// Number of the next request over HTTP.
    next: AtomicU64,
    slow: SlowLog,
}

/// Bounds and rights that the settings give.
pub(crate) struct Terms {
    /// Clients that may change what is served.
    pub(crate) admins: Vec<Id>,
    /// Memory for answers and running requests.
    pub(crate) answer_cache_bytes: usize,
    /// A request that takes longer is logged.
    pub(crate) slow: Duration,
}

/// Somebody who waits for an answer.
enum Waiter {
    /// A sensor.
    Mqtt {
        reply: ReplyTo,
        ticket: Option<Ticket>,
        connection: Arc<Connection>,
    },
    /// A connection over HTTP.
    Http(oneshot::Sender<Arc<Outcome>>),
}

/// A request for inference over HTTP.
pub(crate) struct Ask {
    pub(crate) model: Id,
    /// Absent: the highest that is served.
    pub(crate) version: Option<u64>,
    /// Who asks, for quotas and fair shares.
    pub(crate) client: Id,
    pub(crate) expires_in: Duration,
    pub(crate) encoding: Encoding,
    pub(crate) body: Bytes,
}

/// A request as both ways bring it.
struct Arrival {
    purpose: Purpose,
    version: Option<u64>,
    key: Key,
    encoding: Encoding,
    expires_in: Duration,
    body: Bytes,
}

impl Service {
    pub(crate) fn new(
        region: Id,
        box_id: Id,
        models: Arc<Models>,
        operations: Arc<Operations>,
        terms: Terms,
    ) -> Self {
        Self {
            region,
            box_id,
            models,
            operations,
            admins: terms.admins,
            answers: Mutex::new(Answers::new(Bounds {
                running_max: RUNNING_MAX,
                bytes_max: terms.answer_cache_bytes,
            })),
            dropped: DropReason::ALL
                .into_iter()
                .map(|reason| (reason, AtomicU64::new(0)))
                .collect(),
            closed: AtomicBool::new(false),
            next: AtomicU64::new(0),
            slow: SlowLog::new(terms.slow),
        }
    }

    /// The figures of every version that takes requests.
    pub(crate) fn figures(&self) -> Vec<Figures> {
        self.models.figures()
    }

    /// Name of this box.
    pub(crate) const fn box_id(&self) -> &Id {
        &self.box_id
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
                let Request {
                    purpose,
                    client,
                    reply,
                    expires_in,
                    body,
                } = request;
                let arrival = Arrival {
                    purpose,
                    version: None,
                    key: Key {
                        client,
                        correlation: reply.correlation.clone(),
                    },
                    encoding: reply.encoding,
                    expires_in,
                    body,
                };
                let waiter = Waiter::Mqtt {
                    reply,
                    ticket,
                    connection: connection.clone(),
                };
                self.begin(arrival, waiter, now);
            }
            Admission::Refuse {
                purpose,
                reply,
                status,
                message,
            } => {
                self.refused(&purpose, status);
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

    /// Takes a request over HTTP. Exactly one outcome is sent.
    pub(crate) fn ask(self: &Arc<Self>, ask: Ask, sender: oneshot::Sender<Arc<Outcome>>) {
        let Ask {
            model,
            version,
            client,
            expires_in,
            encoding,
            body,
        } = ask;
        let (waiter, purpose) = (Waiter::Http(sender), Purpose::Infer(model));
        if self.closed.load(Ordering::Relaxed) {
            let why = "the box is shutting down";
            let wait = Duration::from_secs(5);
            self.refuse(&purpose, waiter, encoding, Status::Unavailable, why, wait);
            return;
        }
        let arrival = Arrival {
            purpose,
            version,
            key: self.unique_key(client),
            encoding,
            expires_in,
            body,
        };
        self.begin(arrival, waiter, Instant::now());
    }

    /// A key that no other request has: longer than a correlation over MQTT may be.
    fn unique_key(&self, client: Id) -> Key {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut correlation = vec![0; limit::CORRELATION_MAX_BYTES];
        correlation.extend(number.to_le_bytes());
        Key {
            client,
            correlation: correlation.into(),
        }
    }

    fn begin(self: &Arc<Self>, arrival: Arrival, waiter: Waiter, now: Instant) {
        let Arrival {
            purpose,
            version,
            key,
            encoding,
            expires_in,
            body,
        } = arrival;
        let deadline = now + expires_in;
        let can_repeat = matches!(waiter, Waiter::Mqtt { .. });
        let begin = self
            .answers
            .lock()
            .begin(key, body.len(), waiter, deadline, now);
        match begin {
            Begin::Run(key) => {
                let service = self.clone();
                let client = key.client.clone();
                let model = match &purpose {
                    Purpose::Infer(model) => Some(model.clone()),
                    Purpose::Operate(_) => None,
                };
                let reply = Reply::new(encoding, move |outcome| {
                    if let Some(model) = model {
                        service.slow.ended(&model, &key.client, now, &outcome);
                    }
                    service.finish(&key, outcome, can_repeat);
                });
                match purpose {
                    Purpose::Infer(model) => {
                        let job = Job {
                            client,
                            body,
                            encoding,
                            arrived: now,
                            deadline,
                            reply,
                        };
                        self.models.queue(&model, version, job);
                    }
                    Purpose::Operate(operation) => self.operate(&operation, &client, &body, reply),
                }
            }
            Begin::Joined => {}
            Begin::Answered(waiter, outcome) => self.answer(waiter, &outcome),
            Begin::OverShare(waiter) => {
                let why = "your requests and their answers fill your share of this box's memory until they expire";
                let (status, wait) = (Status::QuotaExceeded, Duration::from_secs(1));
                self.refuse(&purpose, waiter, encoding, status, why, wait);
            }
            Begin::Full(waiter, why) => {
                let wait = Duration::from_millis(500);
                self.refuse(&purpose, waiter, encoding, Status::Unavailable, why, wait);
            }
        }
    }

    fn operate(&self, operation: &Id, client: &Id, body: &Bytes, reply: Reply) {
        let asked = match (
            Operation::from_name(operation.as_str()),
            Subject::decode(body),
        ) {
            (None, _) => Err((
                Status::NotFound,
                format!("there is no operation {operation}"),
            )),
            (_, Err(error)) => Err((Status::BadRequest, error.to_string())),
            (Some(operation), Ok(subject)) => Ok((operation, subject)),
        };
        match asked {
            Ok((operation, subject)) => {
                let asked = Asked {
                    operation,
                    subject,
                    who: client.as_str(),
                    is_admin: self.admins.contains(client),
                };
                self.operations.perform(asked, reply);
            }
            Err((status, why)) => reply.send(Outcome::failure(status, &why, Encoding::Json)),
        }
    }

    fn refuse(
        &self,
        purpose: &Purpose,
        waiter: Waiter,
        encoding: Encoding,
        status: Status,
        why: &str,
        retry_after: Duration,
    ) {
        self.refused(purpose, status);
        let outcome = Outcome::failure(status, why, encoding).retry_after(retry_after);
        self.answer(waiter, &Arc::new(outcome));
    }

    fn refused(&self, purpose: &Purpose, status: Status) {
        if let Purpose::Infer(model) = purpose {
            self.models.refused(model, status);
        }
    }

    /// Ends a request: answers all that wait for it.
    fn finish(&self, key: &Arc<Key>, outcome: Outcome, can_repeat: bool) {
        let outcome = Arc::new(outcome);
        let waiters = {
            let mut answers = self.answers.lock();
            if can_repeat {
                answers.finish(key, &outcome)
            } else {
                answers.end(key)
            }
        };
        for waiter in waiters {
            self.answer(waiter, &outcome);
        }
    }

    fn answer(&self, waiter: Waiter, outcome: &Arc<Outcome>) {
        match waiter {
            Waiter::Mqtt {
                reply,
                ticket,
                connection,
            } => connection.answer(reply, ticket, outcome, self.box_id.as_str()),
            Waiter::Http(sender) => {
                // Nobody waits when the connection has ended.
                sender.send(outcome.clone()).ok();
            }
        }
    }
}
