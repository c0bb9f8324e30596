//! What happened in a region, for people to read.

use edge_protocol::Id;
use serde::Serialize;
use utoipa::ToSchema;

/// Kind of an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A box was born.
    BoxOnline,
    /// A box died, by its own word or by its broker's.
    BoxOffline,
    /// Messages of a box were lost; a new birth was asked for.
    SequenceGap,
    /// A box sent data that this indexer saw no birth of; a new birth was asked for.
    DataBeforeBirth,
    /// Two running boxes claim one id.
    DuplicateBoxId,
    /// A box's clock is more than a minute off.
    ClockWrong,
    /// A box sent more metrics, or longer names, than are kept.
    MetricsDropped,
    /// A message that is no telemetry of a box.
    HostilePayload,
    /// A new box was refused because the region is full.
    TooManyBoxes,
    /// The broker answers.
    BrokerConnected,
    /// The broker does not answer; nothing is known of the boxes until it does.
    BrokerLost,
    /// The store cannot write; samples are dropped and counted.
    StoreFailing,
    /// The store writes again.
    StoreRecovered,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::BoxOnline,
        Self::BoxOffline,
        Self::SequenceGap,
        Self::DataBeforeBirth,
        Self::DuplicateBoxId,
        Self::ClockWrong,
        Self::MetricsDropped,
        Self::HostilePayload,
        Self::TooManyBoxes,
        Self::BrokerConnected,
        Self::BrokerLost,
        Self::StoreFailing,
        Self::StoreRecovered,
    ];

    /// Name in JSON and in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BoxOnline => "box-online",
            Self::BoxOffline => "box-offline",
            Self::SequenceGap => "sequence-gap",
            Self::DataBeforeBirth => "data-before-birth",
            Self::DuplicateBoxId => "duplicate-box-id",
            Self::ClockWrong => "clock-wrong",
            Self::MetricsDropped => "metrics-dropped",
            Self::HostilePayload => "hostile-payload",
            Self::TooManyBoxes => "too-many-boxes",
            Self::BrokerConnected => "broker-connected",
            Self::BrokerLost => "broker-lost",
            Self::StoreFailing => "store-failing",
            Self::StoreRecovered => "store-recovered",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Something that happened in the region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Event {
    /// When, in milliseconds since 1970 by the indexer's clock.
    pub at_ms: u64,
    /// What.
    pub kind: EventKind,
    /// Which box, if it concerns one.
    #[serde(rename = "box")]
    #[schema(value_type = Option<String>)]
    pub box_id: Option<Id>,
    /// In words, with what to do where something can be done.
    pub detail: String,
}

/// Lets one event of a kind through in an interval and counts the others, so that a flood of bad messages does not
/// push everything else out of sight.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open_at_ms: u64,
    held_back: u64,
}

impl Gate {
    /// Time between two events that a gate lets through.
    const INTERVAL_MS: u64 = 10_000;

    /// How many were held back since the last one, if this one may pass.
    pub(super) fn pass(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms < self.open_at_ms {
            self.held_back += 1;
            return None;
        }
        self.open_at_ms = now_ms + Self::INTERVAL_MS;
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json() {
        for kind in EventKind::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.name()));
            assert_eq!(EventKind::from_name(kind.name()), Some(kind));
        }
    }

    #[test]
    fn a_gate_counts_what_it_holds_back() {
        let mut gate = Gate::default();
        assert_eq!(gate.pass(1), Some(0));
        assert_eq!(gate.pass(2), None);
        assert_eq!(gate.pass(3), None);
        assert_eq!(gate.pass(1 + Gate::INTERVAL_MS), Some(2));
    }
}
