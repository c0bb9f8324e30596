//! The region: which box a message belongs to, how many boxes there may be, and what follows from a message.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use edge_protocol::Id;
use edge_protocol::sparkplug::{MessageType, NodeTopic, Payload};

use super::box_state::{
    Applied, BoxRecord, BoxState, Data, Death, Malformed, Sample, Unsaved, sequence,
};
use super::event::{Event, EventKind, Gate};
use super::metrics::Names;
use super::view::{BoxView, RegionView};

/// Bounds of a region.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Boxes that are known at once, online or not.
    pub boxes_max: usize,
    /// Least time between two requests for a new birth to one box.
    pub rebirth_every_ms: u64,
    /// Longest time that a change waits to be written to the store.
    pub save_every_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            boxes_max: 200_000,
            rebirth_every_ms: 5_000,
            save_every_ms: 60_000,
        }
    }
}

/// What has to be done after a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask this box for a new birth.
    RequestRebirth(Id),
    /// Keep this in the history.
    Store(Sample),
    /// Tell people.
    Event(Event),
}

/// Counts since the region was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Boxes online now.
    pub online: usize,
    /// Births, data and deaths taken.
    pub messages: u64,
    /// Messages refused.
    pub hostile: u64,
    /// Inference requests answered by the boxes.
    pub requests: u64,
    /// Of those, the ones not answered with 200.
    pub requests_failed: u64,
    /// New births asked for.
    pub rebirths_requested: u64,
}

/// How long two boxes with one id stay a warning after they were last seen.
const SHARED_ID_WARNING_MS: u64 = 10 * 60 * 1_000;

/// Whether a box's clock is too far off to be believed.
pub(super) fn clock_is_wrong(skew_ms: i64) -> bool {
    skew_ms.unsigned_abs() > 60_000
}

/// A region's state.
#[derive(Debug)]
pub struct Region {
    region: Id,
    limits: Limits,
    boxes: BTreeMap<Id, BoxState>,
    names: Names,
    totals: Totals,
    changed: VecDeque<Id>,
    save_soon: VecDeque<Id>,
    save_later: VecDeque<Id>,
    hostile_gate: Gate,
    full_gate: Gate,
}

impl Region {
    /// An empty region.
    #[must_use]
    pub fn new(region: Id, limits: Limits) -> Self {
        Self {
            region,
            limits,
            boxes: BTreeMap::new(),
            names: Names::default(),
            totals: Totals::default(),
            changed: VecDeque::new(),
            save_soon: VecDeque::new(),
            save_later: VecDeque::new(),
            hostile_gate: Gate::default(),
            full_gate: Gate::default(),
        }
    }

    /// Adds a box that the store knows. It is offline until it is born again.
    pub fn restore(&mut self, record: BoxRecord) {
        self.totals.requests = self.totals.requests.saturating_add(record.requests);
        self.totals.requests_failed = self
            .totals
            .requests_failed
            .saturating_add(record.requests_failed);
        let box_id = record.box_id.clone();
        let state = BoxState::restore(record, &mut self.names);
        self.boxes.insert(box_id, state);
    }

    /// Takes a message that arrived at `now_ms`. Never fails: what is wrong with it becomes an event.
    pub fn message(&mut self, now_ms: u64, topic: &str, bytes: &[u8], effects: &mut Vec<Effect>) {
        let (kind, box_id) = match NodeTopic::parse(topic) {
            Ok(NodeTopic {
                message_type: MessageType::NodeCommand,
                ..
            }) => return, // this indexer's own, or another host's
            Ok(topic) if topic.region == self.region.as_str() => match Id::new(topic.box_id) {
                Ok(box_id) => (topic.message_type, box_id),
                Err(error) => return self.hostile(now_ms, None, &error.to_string(), effects),
            },
            Ok(_) => return self.hostile(now_ms, None, "another region's topic", effects),
            Err(error) => return self.hostile(now_ms, None, &error.to_string(), effects),
        };
        let payload = match Payload::read(bytes) {
            Ok(payload) => payload,
            Err(error) => return self.hostile(now_ms, Some(&box_id), &error.to_string(), effects),
        };
        if let Err(error) = self.telemetry(now_ms, kind, &box_id, &payload, effects) {
            let what = format!("{} refused: {error}", kind.name());
            self.hostile(now_ms, Some(&box_id), &what, effects);
        }
    }

    fn telemetry(
        &mut self,
        now_ms: u64,
        kind: MessageType,
        box_id: &Id,
        payload: &Payload,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Malformed> {
        if matches!(kind, MessageType::NodeBirth | MessageType::NodeData) {
            sequence(payload)?; // before a box is made of a message that is refused
        }
        let known = self.boxes.len();
        let state = match self.boxes.entry(box_id.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            // A will that outlived the box's birth here says nothing.
            Entry::Vacant(_) if kind == MessageType::NodeDeath => {
                self.totals.messages += 1;
                return Ok(());
            }
            Entry::Vacant(_) if known >= self.limits.boxes_max => {
                self.totals.hostile += 1;
                if let Some(others) = self.full_gate.pass(now_ms) {
                    let detail = format!(
                        "refused {box_id} and {others} messages of other new boxes: the region is full \
                         with {known} boxes; raise --boxes-limit"
                    );
                    effects.push(event(now_ms, EventKind::TooManyBoxes, None, detail));
                }
                return Ok(());
            }
            Entry::Vacant(entry) => entry.insert(BoxState::new(now_ms)),
        };
        let was_wrong = state.clock_skew_ms.is_some_and(clock_is_wrong);
        let mut urgent = false;
        let mut dropped = 0;
        match kind {
            MessageType::NodeBirth => {
                let birth = state.birth(now_ms, box_id, payload, &mut self.names)?;
                urgent = true;
                dropped = birth.applied.dropped;
                if !birth.was_online {
                    self.totals.online += 1;
                    let board = state.metrics.text(edge_protocol::metric::BOARD);
                    let detail = format!("born on board {}", board.unwrap_or("unknown"));
                    effects.push(event(now_ms, EventKind::BoxOnline, Some(box_id), detail));
                }
                if birth.shared_id {
                    if state.shared_id_until_ms <= now_ms {
                        let detail = "two running agents take turns being born under this id; \
                                      give one of them another --box-id"
                            .to_owned();
                        effects.push(event(
                            now_ms,
                            EventKind::DuplicateBoxId,
                            Some(box_id),
                            detail,
                        ));
                    }
                    state.shared_id_until_ms = now_ms + SHARED_ID_WARNING_MS;
                }
                take_applied(birth.applied, &mut self.totals, effects);
            }
            MessageType::NodeData => match state.data(now_ms, box_id, payload, &mut self.names)? {
                Data::NotBorn => {
                    let asked = ask_rebirth(
                        now_ms,
                        &self.limits,
                        box_id,
                        state,
                        &mut self.totals,
                        effects,
                    );
                    if asked {
                        let detail =
                            "data without a birth seen here; asked for a new birth".to_owned();
                        effects.push(event(
                            now_ms,
                            EventKind::DataBeforeBirth,
                            Some(box_id),
                            detail,
                        ));
                    }
                }
                Data::Repeated => {}
                Data::Applied { gap, applied } => {
                    dropped = applied.dropped;
                    take_applied(applied, &mut self.totals, effects);
                    if let Some((expected, got)) = gap
                        && ask_rebirth(
                            now_ms,
                            &self.limits,
                            box_id,
                            state,
                            &mut self.totals,
                            effects,
                        )
                    {
                        let detail = format!(
                            "message {got} came where {expected} was expected; asked for a new birth"
                        );
                        effects.push(event(now_ms, EventKind::SequenceGap, Some(box_id), detail));
                    }
                }
            },
            MessageType::NodeDeath => {
                if state.death(now_ms, payload)? == Death::Died {
                    urgent = true;
                    self.totals.online -= 1;
                    let detail = "disconnected".to_owned();
                    effects.push(event(now_ms, EventKind::BoxOffline, Some(box_id), detail));
                }
            }
            MessageType::NodeCommand => {}
        }
        self.totals.messages += 1;
        if dropped > 0 && kind == MessageType::NodeBirth {
            let detail =
                format!("{dropped} metrics of the birth are not kept: too many, or names too long");
            effects.push(event(
                now_ms,
                EventKind::MetricsDropped,
                Some(box_id),
                detail,
            ));
        }
        if let Some(skew_ms) = state
            .clock_skew_ms
            .filter(|skew| clock_is_wrong(*skew) && !was_wrong)
        {
            let detail = format!("the box's clock is {} s off", skew_ms / 1_000);
            effects.push(event(now_ms, EventKind::ClockWrong, Some(box_id), detail));
        }
        if !state.changed {
            state.changed = true;
            self.changed.push_back(box_id.clone());
        }
        if urgent && state.unsaved != Unsaved::Soon {
            state.unsaved = Unsaved::Soon;
            self.save_soon.push_back(box_id.clone());
        } else if state.unsaved == Unsaved::No {
            state.unsaved = Unsaved::Later;
            state.save_after_ms = now_ms + self.limits.save_every_ms;
            self.save_later.push_back(box_id.clone());
        }
        Ok(())
    }

    fn hostile(&mut self, now_ms: u64, box_id: Option<&Id>, what: &str, effects: &mut Vec<Effect>) {
        self.totals.hostile += 1;
        if let Some(others) = self.hostile_gate.pass(now_ms) {
            let mut detail = what.to_owned();
            if others > 0 {
                detail = format!("{detail} (and {others} more like it since the last event)");
            }
            effects.push(event(now_ms, EventKind::HostilePayload, box_id, detail));
        }
    }

    /// The broker is out of reach: whether a box lives is unknown, so none is shown as online.
    pub fn broker_lost(&mut self, now_ms: u64, why: &str, effects: &mut Vec<Effect>) {
        let lost = self.totals.online;
        self.totals.online = 0;
        for (box_id, state) in &mut self.boxes {
            if state.is_online() {
                state.lose_sight();
                state.rebirth_again_ms = 0;
                if !state.changed {
                    state.changed = true;
                    self.changed.push_back(box_id.clone());
                }
            }
        }
        let detail =
            format!("{why}; {lost} boxes were online and are unknown until they report again");
        effects.push(event(now_ms, EventKind::BrokerLost, None, detail));
    }

    /// Up to `max` records that are due to be written, those of births and deaths first.
    pub fn take_unsaved(&mut self, now_ms: u64, max: usize, records: &mut Vec<BoxRecord>) {
        while records.len() < max
            && let Some(box_id) = self.save_soon.pop_front()
        {
            if let Some(state) = self.boxes.get_mut(&box_id) {
                state.unsaved = Unsaved::No;
                records.push(state.record(&box_id));
            }
        }
        while records.len() < max
            && let Some(box_id) = self.save_later.pop_front()
        {
            let Some(state) = self.boxes.get_mut(&box_id) else {
                continue;
            };
            if state.unsaved != Unsaved::Later {
                continue; // written since, as an urgent one
            }
            if state.save_after_ms > now_ms {
                self.save_later.push_front(box_id);
                break;
            }
            state.unsaved = Unsaved::No;
            records.push(state.record(&box_id));
        }
    }

    /// Calls `each` with up to `max` boxes that changed since they were last taken.
    pub fn take_changed(&mut self, now_ms: u64, max: usize, mut each: impl FnMut(&BoxView<'_>)) {
        for _ in 0..max {
            let Some(box_id) = self.changed.pop_front() else {
                break;
            };
            if let Some(state) = self.boxes.get_mut(&box_id) {
                state.changed = false;
                each(&BoxView::new(&box_id, state, now_ms));
            }
        }
    }

    /// Forgets which boxes changed, when nobody asks.
    pub fn forget_changed(&mut self) {
        for box_id in self.changed.drain(..) {
            if let Some(state) = self.boxes.get_mut(&box_id) {
                state.changed = false;
            }
        }
    }

    /// One box.
    #[must_use]
    pub fn get<'a>(&'a self, box_id: &'a Id, now_ms: u64) -> Option<BoxView<'a>> {
        let (id, state) = self.boxes.get_key_value(box_id)?;
        Some(BoxView::new(id, state, now_ms))
    }

    /// The boxes in the order of their names, from the one after `after`.
    pub fn boxes(&self, after: Option<&Id>, now_ms: u64) -> impl Iterator<Item = BoxView<'_>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.boxes
            .range((from, Bound::Unbounded))
            .map(move |(id, state)| BoxView::new(id, state, now_ms))
    }

    /// The counts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The region as a whole.
    #[must_use]
    pub fn view(&self) -> RegionView {
        RegionView {
            region: self.region.clone(),
            boxes_online: self.totals.online,
            boxes_total: self.boxes.len(),
            telemetry_messages: self.totals.messages,
            hostile_messages: self.totals.hostile,
            requests_total: self.totals.requests,
            requests_failed_total: self.totals.requests_failed,
            rebirths_requested: self.totals.rebirths_requested,
        }
    }
}

fn event(now_ms: u64, kind: EventKind, box_id: Option<&Id>, detail: String) -> Effect {
    Effect::Event(Event {
        at_ms: now_ms,
        kind,
        box_id: box_id.cloned(),
        detail,
    })
}

fn take_applied(applied: Applied, totals: &mut Totals, effects: &mut Vec<Effect>) {
    totals.requests = totals.requests.saturating_add(applied.requests);
    totals.requests_failed = totals
        .requests_failed
        .saturating_add(applied.requests_failed);
    effects.extend(applied.samples.into_iter().map(Effect::Store));
}

/// Asks for a new birth unless this box was asked a moment ago.
fn ask_rebirth(
    now_ms: u64,
    limits: &Limits,
    box_id: &Id,
    state: &mut BoxState,
    totals: &mut Totals,
    effects: &mut Vec<Effect>,
) -> bool {
    if now_ms < state.rebirth_again_ms {
        return false;
    }
    state.rebirth_again_ms = now_ms + limits.rebirth_every_ms;
    totals.rebirths_requested += 1;
    effects.push(Effect::RequestRebirth(box_id.clone()));
    true
}
