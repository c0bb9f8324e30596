//! One box: its birth, data and death (Sparkplug B 3.0), and what is known of it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use edge_protocol::sparkplug::{BD_SEQ, Metric, Payload, REBIRTH, Value};
use edge_protocol::{Id, metric};

use super::metrics::{METRIC_NAME_MAX_BYTES, MetricSet, Names, fit};

/// What a message of a box said, as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The box.
    pub box_id: Id,
    /// When the values held, in milliseconds since 1970 by the indexer's clock: the arrival, or for what the box
    /// stored and sent later its own time corrected by how far its clock was off when it sent.
    pub at_ms: u64,
    /// When the values were taken by the box's own clock.
    pub box_ms: Option<u64>,
    /// When the message arrived.
    pub arrived_ms: u64,
    /// The metrics in the message.
    pub values: Vec<(Arc<str>, Value)>,
}

/// What is kept of a box over a restart of the indexer.
#[derive(Debug, Clone, PartialEq)]
pub struct BoxRecord {
    /// The box.
    pub box_id: Id,
    /// Arrival of its first message.
    pub first_seen_ms: u64,
    /// Arrival of its last message.
    pub last_seen_ms: u64,
    /// Arrival of its last birth.
    pub born_ms: Option<u64>,
    /// Its clock minus the indexer's, at its last message.
    pub clock_skew_ms: Option<i64>,
    /// Messages taken from it.
    pub messages: u64,
    /// Inference requests that it answered.
    pub requests: u64,
    /// Of those, the ones not answered with 200.
    pub requests_failed: u64,
    /// Last known metrics.
    pub metrics: MetricSet,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("no sequence number from 0 to 255")]
    Sequence,
    #[error("a death without bdSeq")]
    DeathWithoutBdSeq,
}

/// What applying a birth or data did besides changing the box.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Applied {
    /// Metrics that were not kept.
    pub(super) dropped: usize,
    /// Inference requests answered since the last message.
    pub(super) requests: u64,
    /// Of those, the ones not answered with 200.
    pub(super) requests_failed: u64,
    pub(super) samples: Vec<Sample>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Birth {
    pub(super) was_online: bool,
    /// Another run of the agent was born after this one and before this birth: two run at once.
    pub(super) shared_id: bool,
    pub(super) applied: Applied,
}

#[derive(Debug, PartialEq)]
pub(super) enum Data {
    NotBorn,
    /// The last message again.
    Repeated,
    Applied {
        /// The sequence number that was expected and the one that came.
        gap: Option<(u8, u8)>,
        applied: Applied,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Died,
    /// The death of an earlier connection, or of a box that is not online.
    Stale,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    bd_seq: Option<u64>,
    last_seq: u8,
    last_box_ms: Option<u64>,
}

/// Whether and how urgently a box waits to be written to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Unsaved {
    #[default]
    No,
    Later,
    Soon,
}

/// Name and datatype that a birth gave a number.
type Aliases = HashMap<u64, (Arc<str>, Option<u32>)>;

#[derive(Debug)]
pub(super) struct BoxState {
    pub(super) first_seen_ms: u64,
    pub(super) last_seen_ms: u64,
    pub(super) born_ms: Option<u64>,
    pub(super) clock_skew_ms: Option<i64>,
    pub(super) messages: u64,
    pub(super) requests: u64,
    pub(super) requests_failed: u64,
    pub(super) metrics: MetricSet,
    session: Option<Session>,
    /// The run of the agent that was born last, and the two before it.
    instances: [Option<u64>; 3],
    /// Set while two boxes with this id were seen lately.
    pub(super) shared_id_until_ms: u64,
    /// When a new birth may be asked for again.
    pub(super) rebirth_again_ms: u64,
    pub(super) unsaved: Unsaved,
    pub(super) save_after_ms: u64,
    pub(super) changed: bool,
    aliases: Option<Box<Aliases>>,
}

impl BoxState {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            first_seen_ms: now_ms,
            last_seen_ms: now_ms,
            born_ms: None,
            clock_skew_ms: None,
            messages: 0,
            requests: 0,
            requests_failed: 0,
            metrics: MetricSet::default(),
            session: None,
            instances: [None; 3],
            shared_id_until_ms: 0,
            rebirth_again_ms: 0,
            unsaved: Unsaved::No,
            save_after_ms: 0,
            changed: false,
            aliases: None,
        }
    }

    /// A box as the store knows it: offline until it is born again.
    pub(super) fn restore(record: BoxRecord, names: &mut Names) -> Self {
        let mut metrics = record.metrics;
        metrics.share_names(names);
        let instance = metrics.get(metric::INSTANCE).map(instance_of);
        Self {
            last_seen_ms: record.last_seen_ms,
            born_ms: record.born_ms,
            clock_skew_ms: record.clock_skew_ms,
            messages: record.messages,
            requests: record.requests,
            requests_failed: record.requests_failed,
            instances: [instance, None, None],
            metrics,
            ..Self::new(record.first_seen_ms)
        }
    }

    pub(super) fn record(&self, box_id: &Id) -> BoxRecord {
        BoxRecord {
            box_id: box_id.clone(),
            first_seen_ms: self.first_seen_ms,
            last_seen_ms: self.last_seen_ms,
            born_ms: self.born_ms,
            clock_skew_ms: self.clock_skew_ms,
            messages: self.messages,
            requests: self.requests,
            requests_failed: self.requests_failed,
            metrics: self.metrics.clone(),
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.session.is_some()
    }

    /// Nothing is known of the box any more, because its broker is out of reach.
    pub(super) fn lose_sight(&mut self) {
        self.session = None;
    }

    pub(super) fn birth(
        &mut self,
        now_ms: u64,
        box_id: &Id,
        payload: &Payload,
        names: &mut Names,
    ) -> Result<Birth, Malformed> {
        let last_seq = sequence(payload)?;
        let was_online = self.is_online();
        self.heard(now_ms, payload);
        self.born_ms = Some(now_ms);
        self.session = Some(Session {
            bd_seq: payload.metric(BD_SEQ).and_then(number),
            last_seq,
            last_box_ms: payload.timestamp,
        });

        let instance = payload
            .metric(metric::INSTANCE)
            .and_then(|metric| metric.meaning(None))
            .map(|value| instance_of(&value));
        let [current, before, earlier] = self.instances;
        let same_run = instance.is_some() && instance == current;
        let shared_id =
            instance.is_some() && !same_run && (instance == before || instance == earlier);
        if !same_run {
            self.instances = [instance, current, before];
        }

        let old = std::mem::take(&mut self.metrics);
        // Counters of another run started again at 0.
        let counted = if same_run { old } else { MetricSet::default() };
        self.aliases = aliases(payload, names);
        let applied = self.apply(now_ms, box_id, payload, Some(&counted), names);
        self.metrics.shrink();
        Ok(Birth {
            was_online,
            shared_id,
            applied,
        })
    }

    pub(super) fn data(
        &mut self,
        now_ms: u64,
        box_id: &Id,
        payload: &Payload,
        names: &mut Names,
    ) -> Result<Data, Malformed> {
        let seq = sequence(payload)?;
        let Some(session) = &mut self.session else {
            self.heard(now_ms, payload);
            return Ok(Data::NotBorn);
        };
        let expected = session.last_seq.wrapping_add(1);
        if seq == session.last_seq && payload.timestamp == session.last_box_ms {
            return Ok(Data::Repeated);
        }
        session.last_seq = seq;
        session.last_box_ms = payload.timestamp;
        self.heard(now_ms, payload);
        let applied = self.apply(now_ms, box_id, payload, None, names);
        Ok(Data::Applied {
            gap: (seq != expected).then_some((expected, seq)),
            applied,
        })
    }

    pub(super) fn death(&mut self, now_ms: u64, payload: &Payload) -> Result<Death, Malformed> {
        let bd_seq = payload.metric(BD_SEQ).and_then(number);
        match &self.session {
            None => Ok(Death::Stale),
            Some(session) if session.bd_seq == bd_seq => {
                self.session = None;
                self.last_seen_ms = now_ms;
                self.messages = self.messages.saturating_add(1);
                Ok(Death::Died)
            }
            Some(_) if bd_seq.is_none() => Err(Malformed::DeathWithoutBdSeq),
            Some(_) => Ok(Death::Stale),
        }
    }

    fn heard(&mut self, now_ms: u64, payload: &Payload) {
        self.last_seen_ms = now_ms;
        self.messages = self.messages.saturating_add(1);
        self.clock_skew_ms = payload.timestamp.map(|box_ms| difference(box_ms, now_ms));
    }

    /// Takes over the metrics. `counted` are those against which counters are compared, where not the box's own.
    fn apply(
        &mut self,
        now_ms: u64,
        box_id: &Id,
        payload: &Payload,
        counted: Option<&MetricSet>,
        names: &mut Names,
    ) -> Applied {
        let mut applied = Applied::default();
        let mut live = Vec::new();
        let mut late: BTreeMap<u64, Vec<(Arc<str>, Value)>> = BTreeMap::new();
        for metric in &payload.metrics {
            let (name, datatype) = match (&metric.name, metric.alias) {
                (Some(name), _) if matches!(name.as_str(), BD_SEQ | REBIRTH) => continue,
                (Some(name), _) if name.is_empty() || name.len() > METRIC_NAME_MAX_BYTES => {
                    applied.dropped += 1;
                    continue;
                }
                (Some(name), _) => (names.intern(name), None),
                (None, Some(alias)) => {
                    let known = self.aliases.as_ref().and_then(|all| all.get(&alias));
                    let Some((name, datatype)) = known else {
                        applied.dropped += 1;
                        continue;
                    };
                    (Arc::clone(name), *datatype)
                }
                (None, None) => {
                    applied.dropped += 1;
                    continue;
                }
            };
            let Some(value) = metric.meaning(datatype).and_then(fit) else {
                if metric.is_null == Some(true) && metric.is_historical != Some(true) {
                    self.metrics.remove(&name);
                }
                continue;
            };
            if metric.is_historical == Some(true) {
                let taken_ms = metric.timestamp.or(payload.timestamp).unwrap_or(now_ms);
                late.entry(taken_ms).or_default().push((name, value));
                continue;
            }
            let earlier = match counted {
                Some(counted) => counted.get(&name).and_then(count),
                None => self.metrics.get(&name).and_then(count),
            };
            match self.metrics.set(Arc::clone(&name), value.clone()) {
                Ok(_) => {
                    count_requests(&name, &value, earlier, &mut applied);
                    live.push((name, value));
                }
                Err(_full) => applied.dropped += 1,
            }
        }
        self.requests = self.requests.saturating_add(applied.requests);
        self.requests_failed = self.requests_failed.saturating_add(applied.requests_failed);

        // Late values are not in the set and so not under its bound: only names that are in it are taken.
        for values in late.values_mut() {
            let all = values.len();
            values.retain(|(name, _)| self.metrics.get(name).is_some());
            applied.dropped += all - values.len();
        }
        late.retain(|_, values| !values.is_empty());

        let skew = self.clock_skew_ms.unwrap_or(0);
        let sample = |at_ms, box_ms, values| Sample {
            box_id: box_id.clone(),
            at_ms,
            box_ms,
            arrived_ms: now_ms,
            values,
        };
        applied
            .samples
            .extend(late.into_iter().map(|(box_ms, values)| {
                let at_ms = box_ms.saturating_add_signed(skew.saturating_neg());
                sample(at_ms.min(now_ms), Some(box_ms), values)
            }));
        if !live.is_empty() {
            applied
                .samples
                .push(sample(now_ms, payload.timestamp, live));
        }
        applied
    }
}

pub(super) fn sequence(payload: &Payload) -> Result<u8, Malformed> {
    payload
        .seq
        .and_then(|seq| u8::try_from(seq).ok())
        .ok_or(Malformed::Sequence)
}

fn number(metric: &Metric) -> Option<u64> {
    match metric.meaning(None)? {
        Value::UInt(v) => Some(v),
        Value::Int(v) => u64::try_from(v).ok(),
        _ => None,
    }
}

fn count(value: &Value) -> Option<u64> {
    match value {
        Value::UInt(v) => Some(*v),
        Value::Int(v) => u64::try_from(*v).ok(),
        _ => None,
    }
}

fn instance_of(value: &Value) -> u64 {
    match value {
        Value::UInt(v) => *v,
        other => {
            let mut hasher = DefaultHasher::new();
            match other {
                Value::Text(text) => text.hash(&mut hasher),
                Value::Int(v) => v.hash(&mut hasher),
                Value::Double(v) => v.to_bits().hash(&mut hasher),
                Value::Bool(v) => v.hash(&mut hasher),
                Value::UInt(_) => {}
            }
            hasher.finish()
        }
    }
}

/// `a - b`, or the nearest number that can be written.
fn difference(a: u64, b: u64) -> i64 {
    if a >= b {
        i64::try_from(a - b).unwrap_or(i64::MAX)
    } else {
        i64::try_from(b - a).map_or(i64::MIN, |v| -v)
    }
}

fn aliases(payload: &Payload, names: &mut Names) -> Option<Box<Aliases>> {
    let all: Aliases = payload
        .metrics
        .iter()
        .filter_map(|metric| {
            let name = metric.name.as_deref()?;
            let usable = !name.is_empty() && name.len() <= METRIC_NAME_MAX_BYTES;
            usable.then_some((metric.alias?, (names.intern(name), metric.datatype)))
        })
        .take(super::metrics::METRICS_PER_BOX_MAX)
        .collect();
    (!all.is_empty()).then(|| Box::new(all))
}

/// Adds what a model's counter grew by; a counter below its earlier value started again at 0.
fn count_requests(name: &str, value: &Value, earlier: Option<u64>, applied: &mut Applied) {
    let Some((_model, counter)) = name
        .strip_prefix(metric::INFERENCE_PREFIX)
        .and_then(|rest| rest.split_once('/'))
    else {
        return;
    };
    let failed = counter.starts_with(metric::FAILURE_PREFIX);
    if !failed && counter != metric::SUCCESS {
        return;
    }
    let Some(now) = count(value) else { return };
    let grown = match earlier {
        Some(earlier) if earlier <= now => now - earlier,
        _ => now,
    };
    applied.requests = applied.requests.saturating_add(grown);
    if failed {
        applied.requests_failed = applied.requests_failed.saturating_add(grown);
    }
}
