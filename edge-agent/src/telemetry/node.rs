//! A Sparkplug B edge node: what to publish when, with which sequence numbers. Pure.

use std::collections::BTreeMap;

use edge_protocol::{
    metric,
    sparkplug::{BD_SEQ, Metric, Payload, REBIRTH, Value},
};

/// An edge node.
#[derive(Debug)]
pub(super) struct Node {
    /// Number of the session: equal in its birth and death (section 6.4.16).
    session: u8,
    /// Sequence number of the next message (section 6.4.15).
    sequence: u8,
    /// Whether the connection stands and has had a birth.
    is_born: bool,
    /// The latest values.
    latest: BTreeMap<String, Value>,
    /// The values that the region has been told.
    told: BTreeMap<String, Value>,
    /// Observations without change after which the node says that it lives.
    heartbeat_observations: u32,
    unchanged: u32,
}

/// What to publish.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Birth(Payload),
    Data(Payload),
}

impl Node {
    pub(super) fn new(last_session: Option<u8>, heartbeat_observations: u32) -> Self {
        Self {
            session: last_session.unwrap_or(u8::MAX),
            sequence: 0,
            is_born: false,
            latest: BTreeMap::new(),
            told: BTreeMap::new(),
            heartbeat_observations,
            unchanged: 0,
        }
    }

    /// A connection is about to be made; returns the number of its session.
    pub(super) fn next_session(&mut self) -> u8 {
        self.session = self.session.wrapping_add(1);
        self.is_born = false;
        self.session
    }

    pub(super) fn disconnected(&mut self) {
        self.is_born = false;
    }

    /// The death of this session; it has no sequence number (section 6.4.22).
    pub(super) fn death(&self, now_ms: u64) -> Payload {
        Payload {
            timestamp: Some(now_ms),
            metrics: vec![self.session_metric(now_ms)],
            seq: None,
        }
    }

    /// The birth: all metrics, sequence number 0.
    pub(super) fn birth(&mut self, now_ms: u64) -> Message {
        self.is_born = true;
        self.unchanged = 0;
        self.sequence = 1;
        self.told.clone_from(&self.latest);
        let mut metrics = vec![
            self.session_metric(now_ms),
            Metric::new(REBIRTH, Value::Bool(false), now_ms),
        ];
        metrics.extend(
            self.latest
                .iter()
                .map(|(name, value)| Metric::new(name, value.clone(), now_ms)),
        );
        Message::Birth(Payload {
            timestamp: Some(now_ms),
            metrics,
            seq: Some(0),
        })
    }

    /// New values: what of them the region should hear now. A metric that the birth did not name needs a new birth
    /// (section 6.4.20).
    pub(super) fn observe(
        &mut self,
        values: impl IntoIterator<Item = (String, Value)>,
        now_ms: u64,
    ) -> Option<Message> {
        self.latest.extend(values);
        if !self.is_born {
            return None;
        }
        if self.latest.keys().any(|name| !self.told.contains_key(name)) {
            return Some(self.birth(now_ms));
        }
        let mut changed: Vec<_> = self
            .latest
            .iter()
            .filter(|(name, value)| {
                self.told
                    .get(*name)
                    .is_none_or(|told| is_worth_telling(name, told, value))
            })
            .collect();
        if changed.is_empty() {
            self.unchanged += 1;
            if self.unchanged < self.heartbeat_observations {
                return None;
            }
        }
        // Some values alone are no reason to speak. The uptime goes along with every message, the others with those
        // that say that the box lives.
        let is_heartbeat = changed.is_empty();
        let quiet = self.latest.iter().filter(|(name, value)| {
            *name == metric::UPTIME_S
                || is_heartbeat && is_quiet(name) && self.told.get(*name) != Some(*value)
        });
        changed.extend(quiet);
        let metrics = changed
            .iter()
            .map(|(name, value)| Metric::new(*name, (*value).clone(), now_ms))
            .collect();
        for (name, value) in changed {
            self.told.insert(name.clone(), value.clone());
        }
        self.unchanged = 0;
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        Some(Message::Data(Payload {
            timestamp: Some(now_ms),
            metrics,
            seq: Some(sequence.into()),
        }))
    }

    fn session_metric(&self, now_ms: u64) -> Metric {
        Metric::new(BD_SEQ, Value::UInt(self.session.into()), now_ms)
    }
}

/// Whether a value changes all the time, so that its change is no news.
fn is_quiet(name: &str) -> bool {
    name == metric::UPTIME_S
        || name == metric::STORAGE_WRITTEN_BYTES
        || name.starts_with(metric::NETWORK_PREFIX) && !name.ends_with(metric::LINK_UP)
        || name.starts_with(metric::CPU_PREFIX) && name.ends_with(metric::KHZ)
        || [metric::FAN_RPM, metric::FAN_PERCENT, metric::GPU_KHZ].contains(&name)
        || [metric::POWER_PREFIX, metric::VOLTAGE_PREFIX]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Whether a value differs so much from the one told that the region should hear it.
fn is_worth_telling(name: &str, told: &Value, value: &Value) -> bool {
    if is_quiet(name) {
        return false;
    }
    let as_number = |value: &Value| match value {
        #[allow(clippy::cast_precision_loss, reason = "compared to within a percent")]
        Value::UInt(v) => Some(*v as f64),
        #[allow(clippy::cast_precision_loss, reason = "compared to within a percent")]
        Value::Int(v) => Some(*v as f64),
        Value::Double(v) => Some(*v),
        Value::Bool(_) | Value::Text(_) => None,
    };
    let least = if name.ends_with("_percent") {
        5.0
    } else if name.starts_with(metric::TEMPERATURE_PREFIX) {
        1_000.0
    } else if name.starts_with("memory/") || name.starts_with("storage/") {
        as_number(told).unwrap_or(0.0) / 100.0
    } else {
        return told != value;
    };
    match (as_number(told), as_number(value)) {
        (Some(told), Some(value)) => (told - value).abs() > least,
        _ => told != value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(load: f64, success: u64, uptime: u64) -> Vec<(String, Value)> {
        vec![
            (metric::CPU_LOAD_PERCENT.into(), Value::Double(load)),
            ("inference/digits/success".into(), Value::UInt(success)),
            (metric::UPTIME_S.into(), Value::UInt(uptime)),
        ]
    }

    fn names(message: Option<Message>) -> (u64, Vec<String>) {
        match message {
            Some(Message::Data(payload)) => (
                payload.seq.unwrap(),
                payload.metrics.into_iter().filter_map(|m| m.name).collect(),
            ),
            other => panic!("expected data: {other:?}"),
        }
    }

    #[test]
    fn a_session_has_one_number_in_birth_and_death() {
        let mut node = Node::new(Some(255), 3);
        assert_eq!(node.next_session(), 0);
        let death = node.death(1);
        node.observe(values(1.0, 0, 0), 1);
        let Message::Birth(birth) = node.birth(2) else {
            panic!()
        };
        assert_eq!(birth.seq, Some(0));
        assert_eq!(death.seq, None);
        let session = |p: &Payload| p.metric(BD_SEQ).unwrap().meaning(None);
        assert_eq!(session(&birth), session(&death));
        assert_eq!(
            birth.metric(REBIRTH).unwrap().meaning(None),
            Some(Value::Bool(false))
        );
    }

    #[test]
    fn nothing_is_told_before_the_birth() {
        let mut node = Node::new(None, 3);
        node.next_session();
        assert_eq!(node.observe(values(1.0, 0, 0), 1), None);
        node.birth(2);
        node.disconnected();
        assert_eq!(node.observe(values(50.0, 5, 9), 3), None);
    }

    #[test]
    fn tells_what_changed_and_now_and_then_that_it_lives() {
        let mut node = Node::new(None, 3);
        node.next_session();
        node.observe(values(1.0, 0, 0), 1);
        node.birth(2);
        assert_eq!(
            node.observe(values(5.5, 0, 1), 3),
            None,
            "within the dead band"
        );
        assert_eq!(
            names(node.observe(values(9.0, 0, 2), 4)),
            (
                1,
                vec![metric::CPU_LOAD_PERCENT.into(), metric::UPTIME_S.into()]
            )
        );
        assert_eq!(
            names(node.observe(values(9.0, 1, 3), 5)),
            (
                2,
                vec!["inference/digits/success".into(), metric::UPTIME_S.into()]
            )
        );
        assert_eq!(node.observe(values(9.0, 1, 4), 6), None);
        assert_eq!(node.observe(values(9.0, 1, 5), 7), None);
        assert_eq!(
            names(node.observe(values(9.0, 1, 6), 8)),
            (3, vec![metric::UPTIME_S.into()])
        );
    }

    #[test]
    fn a_new_metric_needs_a_new_birth() {
        let mut node = Node::new(None, 3);
        node.next_session();
        node.observe(values(1.0, 0, 0), 1);
        node.birth(2);
        let new = vec![("inference/faces/success".to_owned(), Value::UInt(0))];
        assert!(matches!(node.observe(new, 3), Some(Message::Birth(_))));
    }

    #[test]
    fn sequence_numbers_wrap_at_255() {
        let mut node = Node::new(None, 3);
        node.next_session();
        node.observe(values(1.0, 0, 0), 1);
        node.birth(2);
        for i in 1..=600_u64 {
            let (sequence, _) = names(node.observe(values(1.0, i, i), i));
            assert_eq!(sequence, i % 256);
        }
    }
}
