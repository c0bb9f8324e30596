//! The one owner of the region's live state: takes what the host hears, answers questions, feeds the store and the
//! live stream. All decisions are made in [`crate::region`]; this file only moves values between channels.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use edge_protocol::Id;
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::host::{Command, Heard};
use crate::region::{BoxRecord, Effect, Event, EventKind, Region, RegionView};
use crate::store::{Store, StoreView};

/// Questions that wait for an answer at most.
const QUESTIONS: usize = 256;
/// Messages taken between two questions.
const MESSAGES: usize = 256;
/// Events that the API and the page can see.
const EVENTS: usize = 500;
/// Boxes in one update of the stream; the others follow in the next.
const UPDATE_BOXES: usize = 256;
/// Updates that a slow reader of the stream may be behind.
const UPDATES: usize = 8;
/// Time between two updates of the stream.
const UPDATE_EVERY: Duration = Duration::from_millis(500);
/// Records handed to the store at once.
const RECORDS: usize = 1_024;
/// Updates between two upkeeps of the store.
const UPKEEP_EVERY: u32 = 10;

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX))
}

/// The region and what carries it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Overview {
    /// The region.
    #[serde(flatten)]
    pub region: RegionView,
    /// Whether the broker answers.
    pub broker_connected: bool,
    /// When this indexer started, in milliseconds since 1970.
    pub started_ms: u64,
    /// The indexer's clock now.
    pub now_ms: u64,
    /// The store.
    pub store: StoreView,
}

/// What the stream sends: the region and what changed since the last update.
#[derive(Debug, Serialize, ToSchema)]
struct Update<'a> {
    region: Overview,
    boxes: &'a [serde_json::Value],
    events: &'a [Event],
}

/// A question to the region. Answers are JSON, so that nothing is copied that would only be written out.
#[derive(Debug)]
enum Question {
    Boxes {
        after: Option<Id>,
        limit: usize,
        reply: oneshot::Sender<Bytes>,
    },
    Box {
        box_id: Id,
        reply: oneshot::Sender<Option<Bytes>>,
    },
    Events {
        limit: usize,
        reply: oneshot::Sender<Vec<Event>>,
    },
    Overview {
        reply: oneshot::Sender<Overview>,
    },
}

/// Asks the region.
#[derive(Debug, Clone)]
pub struct LiveHandle {
    questions: mpsc::Sender<Question>,
    updates: broadcast::WeakSender<Arc<str>>,
}

/// The region does not answer: the indexer is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the indexer is stopping")]
pub struct Stopping;

impl LiveHandle {
    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.questions
            .send(question(reply))
            .await
            .map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Up to `limit` boxes after `after` by name, as a JSON array.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn boxes(&self, after: Option<Id>, limit: usize) -> Result<Bytes, Stopping> {
        self.ask(|reply| Question::Boxes {
            after,
            limit,
            reply,
        })
        .await
    }

    /// One box as JSON.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn get(&self, box_id: Id) -> Result<Option<Bytes>, Stopping> {
        self.ask(|reply| Question::Box { box_id, reply }).await
    }

    /// The newest `limit` events, newest first.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn events(&self, limit: usize) -> Result<Vec<Event>, Stopping> {
        self.ask(|reply| Question::Events { limit, reply }).await
    }

    /// The region and what carries it.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn overview(&self) -> Result<Overview, Stopping> {
        self.ask(|reply| Question::Overview { reply }).await
    }

    /// The stream of updates, each a JSON text. Ends when the indexer stops.
    #[must_use]
    pub fn updates(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        self.updates.upgrade().map(|updates| updates.subscribe())
    }
}

/// The owner, before it runs.
#[derive(Debug)]
pub struct Live {
    region: Region,
    store: Store,
    status: watch::Receiver<StoreView>,
    events: VecDeque<Event>,
    new_events: Vec<Event>,
    heard: mpsc::Receiver<Heard>,
    commands: mpsc::Sender<Command>,
    questions: mpsc::Receiver<Question>,
    updates: broadcast::Sender<Arc<str>>,
    effects: Vec<Effect>,
    broker_connected: bool,
    store_failing: bool,
    started_ms: u64,
}

impl Live {
    /// Puts the owner together. `events` are those of earlier runs, oldest first.
    #[must_use]
    pub fn new(
        region: Region,
        store: Store,
        events: Vec<Event>,
        heard: mpsc::Receiver<Heard>,
        commands: mpsc::Sender<Command>,
    ) -> (Self, LiveHandle) {
        let (questions_tx, questions) = mpsc::channel(QUESTIONS);
        let (updates, _) = broadcast::channel(UPDATES);
        let handle = LiveHandle {
            questions: questions_tx,
            updates: updates.downgrade(),
        };
        let live = Self {
            region,
            status: store.status(),
            store,
            events: events.into(),
            new_events: Vec::new(),
            heard,
            commands,
            questions,
            updates,
            effects: Vec::new(),
            broker_connected: false,
            store_failing: false,
            started_ms: now_ms(),
        };
        (live, handle)
    }

    /// Runs until `shutdown`, then gives back the store and the records that are not in it yet.
    pub async fn run(mut self, shutdown: CancellationToken) -> (Store, Vec<BoxRecord>) {
        let mut inbox = Vec::with_capacity(MESSAGES);
        let mut ticks: u32 = 0;
        let mut tick = tokio::time::interval(UPDATE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.save();
                    self.publish_update();
                    if ticks.is_multiple_of(UPKEEP_EVERY) {
                        self.store.upkeep();
                    }
                }
                Some(question) = self.questions.recv() => {
                    self.answer(question);
                    // Questions that never end must not keep the boxes waiting.
                    for _ in 0..MESSAGES {
                        let Ok(heard) = self.heard.try_recv() else { break };
                        self.hear(heard);
                    }
                }
                changed = self.status.changed() => {
                    if changed.is_err() {
                        tracing::error!("the store's writer has gone; history is not kept any more");
                        break;
                    }
                    self.watch_store();
                }
                count = self.heard.recv_many(&mut inbox, MESSAGES) => {
                    if count == 0 {
                        break;
                    }
                    for heard in inbox.drain(..) {
                        self.hear(heard);
                    }
                }
            }
        }
        let mut records = Vec::new();
        self.region.take_unsaved(u64::MAX, usize::MAX, &mut records);
        (self.store, records)
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Message {
                at_ms,
                topic,
                payload,
            } => {
                // A topic that is no text is no node's topic; the region says so.
                let topic = std::str::from_utf8(&topic).unwrap_or_default();
                self.region
                    .message(at_ms, topic, &payload, &mut self.effects);
            }
            Heard::Connected => {
                self.broker_connected = true;
                self.effects.push(Effect::Event(Event {
                    at_ms: now_ms(),
                    kind: EventKind::BrokerConnected,
                    box_id: None,
                    detail: "connected to the broker".to_owned(),
                }));
            }
            Heard::Lost(why) => {
                self.broker_connected = false;
                self.region.broker_lost(now_ms(), &why, &mut self.effects);
            }
        }
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Store(sample) => self.store.sample(sample),
                Effect::Event(event) => self.note(event),
                Effect::RequestRebirth(box_id) => {
                    if self.commands.try_send(Command::Rebirth(box_id)).is_err() {
                        tracing::debug!("too many commands wait; the box is asked at its next gap");
                    }
                }
            }
        }
        self.effects = effects; // keeps its memory
    }

    fn note(&mut self, event: Event) {
        let box_id = event.box_id.as_ref().map(tracing::field::display);
        match event.kind {
            EventKind::BoxOnline
            | EventKind::BoxOffline
            | EventKind::BrokerConnected
            | EventKind::StoreRecovered => {
                tracing::info!(box_id, kind = event.kind.name(), "{}", event.detail);
            }
            _ => tracing::warn!(box_id, kind = event.kind.name(), "{}", event.detail),
        }
        self.store.event(event.clone());
        if self.new_events.len() < EVENTS {
            self.new_events.push(event.clone());
        }
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn watch_store(&mut self) {
        let failing = self.status.borrow_and_update().failing.clone();
        if failing.is_some() == self.store_failing {
            return;
        }
        self.store_failing = failing.is_some();
        let (kind, detail) = match failing {
            Some(why) => (
                EventKind::StoreFailing,
                format!(
                    "the store cannot write ({why}): free disk space or raise --store-limit-mb"
                ),
            ),
            None => (
                EventKind::StoreRecovered,
                "the store writes again".to_owned(),
            ),
        };
        self.note(Event {
            at_ms: now_ms(),
            kind,
            box_id: None,
            detail,
        });
    }

    fn save(&mut self) {
        // Half of the queue stays free for samples and events.
        let room = (self.store.room() / 2).min(RECORDS);
        let mut records = Vec::new();
        self.region.take_unsaved(now_ms(), room, &mut records);
        for record in records {
            self.store.record(record);
        }
    }

    fn overview(&self) -> Overview {
        Overview {
            region: self.region.view(),
            broker_connected: self.broker_connected,
            started_ms: self.started_ms,
            now_ms: now_ms(),
            store: self.status.borrow().clone(),
        }
    }

    fn publish_update(&mut self) {
        if self.updates.receiver_count() == 0 {
            self.region.forget_changed();
            self.new_events.clear();
            return;
        }
        let mut boxes = Vec::new();
        self.region.take_changed(now_ms(), UPDATE_BOXES, |view| {
            match serde_json::to_value(view) {
                Ok(value) => boxes.push(value),
                Err(error) => tracing::error!(%error, "a box cannot be written as JSON"),
            }
        });
        let update = Update {
            region: self.overview(),
            boxes: &boxes,
            events: &self.new_events,
        };
        match serde_json::to_string(&update) {
            // No receiver is left only when the last one went this very moment.
            Ok(text) => drop(self.updates.send(Arc::from(text))),
            Err(error) => tracing::error!(%error, "an update cannot be written as JSON"),
        }
        self.new_events.clear();
    }

    /// Answers a question; whoever asked may have gone, which is no error.
    fn answer(&mut self, question: Question) {
        let now_ms = now_ms();
        match question {
            Question::Boxes {
                after,
                limit,
                reply,
            } => {
                let views: Vec<_> = self
                    .region
                    .boxes(after.as_ref(), now_ms)
                    .take(limit)
                    .collect();
                drop(reply.send(json(&views)));
            }
            Question::Box { box_id, reply } => {
                let view = self.region.get(&box_id, now_ms);
                drop(reply.send(view.map(|view| json(&view))));
            }
            Question::Events { limit, reply } => {
                drop(reply.send(self.events.iter().rev().take(limit).cloned().collect()));
            }
            Question::Overview { reply } => drop(reply.send(self.overview())),
        }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes.into(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Bytes::from_static(b"null")
        }
    }
}
