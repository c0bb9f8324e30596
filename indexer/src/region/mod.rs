//! The region as plain values: what a message means for its box, without I/O, clock or async.

mod box_state;
mod event;
mod metrics;
mod state;
mod view;

pub use box_state::{BoxRecord, Sample};
pub use event::{Event, EventKind};
pub use metrics::{METRIC_NAME_MAX_BYTES, METRICS_PER_BOX_MAX, MetricSet, Names, TEXT_MAX_BYTES};
pub use state::{Effect, Limits, Region, Totals};
pub use view::{BoxView, RegionView};
