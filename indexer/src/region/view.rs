//! What the region looks like from outside: the shapes of the HTTP API.

use edge_protocol::{Id, metric};
use serde::Serialize;
use utoipa::ToSchema;

use super::box_state::BoxState;
use super::metrics::MetricSet;

/// A box. Times are milliseconds since 1970 by the indexer's clock.
#[derive(Debug, Serialize, ToSchema)]
pub struct BoxView<'a> {
    /// Name of the box.
    #[schema(value_type = String, example = "box-1")]
    pub id: &'a Id,
    /// Whether it is connected to its broker now.
    pub online: bool,
    /// Its board, as it said in its last birth.
    pub board: Option<&'a str>,
    /// Version of its agent.
    pub agent_version: Option<&'a str>,
    /// Arrival of its first message.
    pub first_seen_ms: u64,
    /// Arrival of its last message.
    pub last_seen_ms: u64,
    /// Arrival of its last birth; absent if it was never born here.
    pub born_ms: Option<u64>,
    /// The box's clock minus the indexer's at its last message; the message's way is in it.
    pub clock_skew_ms: Option<i64>,
    /// Telemetry messages taken from it.
    pub messages: u64,
    /// Inference requests that it answered, summed over restarts of its agent.
    pub requests: u64,
    /// Of those, the ones not answered with 200.
    pub requests_failed: u64,
    /// Kinds of events that need somebody's attention now, such as `duplicate-box-id`.
    pub warnings: Vec<&'static str>,
    /// Last known metrics by name; kept while the box is offline.
    #[schema(value_type = std::collections::HashMap<String, Object>)]
    pub metrics: &'a MetricSet,
}

impl<'a> BoxView<'a> {
    pub(super) fn new(id: &'a Id, state: &'a BoxState, now_ms: u64) -> Self {
        let mut warnings = Vec::new();
        if state.shared_id_until_ms > now_ms {
            warnings.push(super::EventKind::DuplicateBoxId.name());
        }
        if state
            .clock_skew_ms
            .is_some_and(super::state::clock_is_wrong)
        {
            warnings.push(super::EventKind::ClockWrong.name());
        }
        Self {
            id,
            online: state.is_online(),
            board: state.metrics.text(metric::BOARD),
            agent_version: state.metrics.text(metric::AGENT_VERSION),
            first_seen_ms: state.first_seen_ms,
            last_seen_ms: state.last_seen_ms,
            born_ms: state.born_ms,
            clock_skew_ms: state.clock_skew_ms,
            messages: state.messages,
            requests: state.requests,
            requests_failed: state.requests_failed,
            warnings,
            metrics: &state.metrics,
        }
    }
}

/// The region as a whole. Totals count from the start of this indexer, requests over all boxes' lives.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RegionView {
    /// Name of the region.
    #[schema(value_type = String, example = "demo")]
    pub region: Id,
    /// Boxes connected now.
    pub boxes_online: usize,
    /// Boxes known.
    pub boxes_total: usize,
    /// Births, data and deaths taken.
    pub telemetry_messages: u64,
    /// Messages refused: no telemetry, malformed, too large, or of a box too many.
    pub hostile_messages: u64,
    /// Inference requests answered by the boxes.
    pub requests_total: u64,
    /// Of those, the ones not answered with 200.
    pub requests_failed_total: u64,
    /// New births asked for, because messages were lost or a birth was not seen.
    pub rebirths_requested: u64,
}
