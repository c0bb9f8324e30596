//! Live updates as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;

use super::{Api, ApiError};
use crate::live::Stopping;

/// A comment is sent when nothing else was for this long, so that proxies and this server keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Live updates, at most two a second. Each `update` event is JSON with `region` as `/api/v1/region` answers, the
/// `boxes` that changed as `/api/v1/boxes` answers, and new `events`, oldest first. An event `resync` says that the
/// reader was too slow and updates were left out: read `/api/v1/boxes` again.
#[utoipa::path(get, path = "/api/v1/stream", tag = "region", responses(
    (status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String),
    (status = 503, description = "Too many streams are open", body = super::ErrorBody),
))]
pub(super) async fn stream(State(api): State<Api>) -> Result<Response, ApiError> {
    let permit = api
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| ApiError::TooManyStreams)?;
    let updates = api.live.updates().ok_or(Stopping)?;
    let events = stream::unfold(
        (updates, permit, api.stop),
        |(mut updates, permit, stop)| async move {
            let update = tokio::select! {
                () = stop.cancelled() => return None,
                update = updates.recv() => update,
            };
            let event = match update {
                Ok(update) => Event::default().event("update").data(update.as_ref()),
                Err(RecvError::Lagged(left_out)) => {
                    Event::default().event("resync").data(left_out.to_string())
                }
                Err(RecvError::Closed) => return None,
            };
            Some((Ok::<_, Infallible>(event), (updates, permit, stop)))
        },
    );
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}
