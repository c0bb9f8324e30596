//! The region's numbers in Prometheus's text format.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Api, ApiError};
use crate::live::Overview;

/// The region's numbers for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses(
    (status = 200, description = "Prometheus text format", content_type = "text/plain", body = String),
))]
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, ApiError> {
    let text = text(&api.live.overview().await?);
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((content_type, text).into_response())
}

fn text(overview: &Overview) -> String {
    let Overview {
        region,
        store,
        broker_connected,
        ..
    } = overview;
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let rows = [
        (
            "boxes_online",
            "gauge",
            "Boxes connected now.",
            number(region.boxes_online),
        ),
        ("boxes", "gauge", "Boxes known.", number(region.boxes_total)),
        (
            "broker_connected",
            "gauge",
            "1 while the broker answers.",
            u64::from(*broker_connected),
        ),
        (
            "telemetry_messages_total",
            "counter",
            "Births, data and deaths taken.",
            region.telemetry_messages,
        ),
        (
            "hostile_messages_total",
            "counter",
            "Messages refused.",
            region.hostile_messages,
        ),
        (
            "rebirths_requested_total",
            "counter",
            "New births asked for.",
            region.rebirths_requested,
        ),
        (
            "requests_total",
            "counter",
            "Inference requests answered by the boxes.",
            region.requests_total,
        ),
        (
            "requests_failed_total",
            "counter",
            "Inference requests answered with an error.",
            region.requests_failed_total,
        ),
        (
            "store_failing",
            "gauge",
            "1 while the store cannot write.",
            u64::from(store.failing.is_some()),
        ),
        (
            "store_used_bytes",
            "gauge",
            "Bytes in use by the store.",
            store.used_bytes,
        ),
        (
            "store_limit_bytes",
            "gauge",
            "Bytes that the store may have.",
            store.limit_bytes,
        ),
        (
            "store_samples_written_total",
            "counter",
            "Messages put into the history.",
            store.samples_written,
        ),
        (
            "store_samples_dropped_total",
            "counter",
            "Messages not put into the history.",
            store.samples_dropped,
        ),
        (
            "store_values_refused_total",
            "counter",
            "Values not put into the history because there are too many metric names.",
            store.values_refused,
        ),
        (
            "store_samples_expired_total",
            "counter",
            "Messages deleted from the history.",
            store.samples_expired,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        let name = format!("edge_indexer_{name}");
        let region = &region.region; // a name has no character that a label would have to escape
        let written = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{region=\"{region}\"}} {value}\n"
        );
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    text
}
