//! The HTTP API under `/api/v1`, the page at `/`, `/metrics` for Prometheus and `/healthz`. Without TLS it is for the
//! machine's own network; over TLS it knows who asks, and keys enrol there.
#![allow(unused_qualifications, reason = "utoipa's macros write them")]

mod browser;
mod enrol;
mod guard;
mod openapi;
mod page;
mod prometheus;
mod rates;
mod serve;
mod stream;
mod tls;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use edge_protocol::Id;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use crate::identity::Identity;
use crate::live::{LiveHandle, Overview, Stopping};
use crate::region::{BoxView, Event};
use crate::store::{HistoryPoint, HistoryQuery, ReadError, StoreReader};

/// Boxes in one answer when the question does not say.
const BOXES: usize = 1_000;
/// Boxes in one answer at most.
const BOXES_MAX: usize = 10_000;
/// Points in one answer when the question does not say.
const POINTS: usize = 1_000;
/// Points in one answer at most.
const POINTS_MAX: usize = 10_000;
/// Events in one answer at most, and when the question does not say.
const EVENTS_MAX: usize = 500;
/// Live streams at once.
const STREAMS: usize = 256;

/// What every handler needs.
#[derive(Debug, Clone)]
struct Api {
    live: LiveHandle,
    store: StoreReader,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

/// What is served.
#[derive(Debug, Clone)]
pub struct Served(Api);

impl Served {
    /// The region as `live` and `store` know it, until `stop`.
    #[must_use]
    pub fn new(live: LiveHandle, store: StoreReader, stop: CancellationToken) -> Self {
        Self(Api {
            live,
            store,
            streams: Arc::new(Semaphore::new(STREAMS)),
            stop,
        })
    }
}

/// Serves until the end, then lets open requests end. `names` are those by which browsers reach this machine.
pub async fn serve(listener: TcpListener, Served(api): Served, names: Arc<[String]>) {
    let stop = api.stop.clone();
    let app = guard::protect(router(api), Some(names));
    serve::serve(guard::Connections::new(listener), app, stop).await;
}

/// As [`serve`], over TLS: those who show a certificate or a token read what that lets them read, and keys enrol.
pub async fn serve_tls(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    Served(api): Served,
    identity: Identity,
) {
    let stop = api.stop.clone();
    let enrolment = Router::new()
        .route(
            &format!("/{}", edge_identity::enrolment::PATH),
            post(enrol::enrol),
        )
        .layer(DefaultBodyLimit::max(edge_identity::enrolment::MAX_BYTES))
        .with_state(identity.clone());
    let app = router(api)
        .merge(enrolment)
        .layer(middleware::from_fn_with_state(
            identity,
            tls::only_the_region,
        ));
    let listener = match tls::TlsListener::new(listener, acceptor) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the HTTPS server ended"),
    };
    serve::serve(listener, guard::protect(app, None), stop).await;
}

/// Every route. The OpenAPI document describes those that start with `/api/`, `/metrics` or `/healthz`; a test
/// compares the two.
fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    let mut routes = vec![
        ("/api/v1/boxes", get(boxes)),
        ("/api/v1/boxes/{id}", get(one_box)),
        ("/api/v1/boxes/{id}/history", get(history)),
        ("/api/v1/region", get(region)),
        ("/api/v1/events", get(events)),
        ("/api/v1/stream", get(stream::stream)),
        ("/api/v1/openapi.json", get(openapi::document)),
        ("/metrics", get(prometheus::metrics)),
        ("/healthz", get(healthz)),
    ];
    routes.extend(page::routes());
    routes
}

fn router(api: Api) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, handler)| {
            router.route(path, handler)
        })
        .fallback(|| async { ApiError::NotFound("there is nothing at this address".to_owned()) })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .with_state(api)
}

/// An error as every route answers it.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorBody {
    /// What is wrong and, where it can be said, what to do.
    error: String,
}

#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    NotFound(String),
    #[error("this address is not asked that way")]
    Method,
    #[error("this certificate's role, or this token's scopes, may not read that")]
    Forbidden,
    #[error(
        "show a certificate of this region, or a token as Authorization: Bearer TOKEN; without either there is only \
         POST /api/v1/enrol"
    )]
    NoCertificate,
    #[error("a page of another site may not do that")]
    OtherSite,
    #[error(
        "this machine is not asked by that name; use its address, or give the name with --host"
    )]
    OtherHost,
    #[error("too many requests from this address; ask again in a minute")]
    TooOften,
    #[error("too many live streams are open; close one or poll /api/v1/boxes")]
    TooManyStreams,
    #[error("the request took too long")]
    Timeout,
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error(transparent)]
    Store(#[from] ReadError),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Forbidden | Self::OtherSite => StatusCode::FORBIDDEN,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Self::NoCertificate => StatusCode::UNAUTHORIZED,
            Self::Store(ReadError::Sqlite(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooManyStreams
            | Self::Timeout
            | Self::Stopping(_)
            | Self::Store(ReadError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::BadRequest(rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Store(ReadError::Sqlite(error)) = &self {
            tracing::error!(%error, "the store cannot be read");
        }
        let error = self.to_string();
        let mut answer = (self.status(), axum::Json(ErrorBody { error })).into_response();
        let header = match self {
            Self::TooOften => Some((header::RETRY_AFTER, "60")),
            // RFC 6750, section 3.
            Self::NoCertificate => Some((header::WWW_AUTHENTICATE, "Bearer")),
            _ => None,
        };
        if let Some((name, value)) = header {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn box_id(text: &str) -> Result<Id, ApiError> {
    Id::new(text)
        .map_err(|error| ApiError::BadRequest(format!("{text:?} is no box's name: {error}")))
}

fn limit(asked: Option<usize>, usual: usize, max: usize) -> Result<usize, ApiError> {
    match asked.unwrap_or(usual) {
        0 => Err(ApiError::BadRequest("limit is at least 1".to_owned())),
        limit => Ok(limit.min(max)),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BoxesQuery {
    /// Boxes whose name comes after this one: the last of the page before.
    after: Option<String>,
    /// At most so many boxes; 1,000 when absent, at most 10,000.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

/// The boxes of the region, online or not, in the order of their names.
#[utoipa::path(get, path = "/api/v1/boxes", params(BoxesQuery), tag = "boxes", responses(
    (status = 200, description = "A page of boxes; an answer with fewer than `limit` is the last", body = Vec<BoxView<'static>>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
async fn boxes(
    State(api): State<Api>,
    query: Result<Query<BoxesQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let after = query.after.as_deref().map(box_id).transpose()?;
    let limit = limit(query.limit, BOXES, BOXES_MAX)?;
    Ok(json(api.live.boxes(after, limit).await?))
}

/// One box.
#[utoipa::path(get, path = "/api/v1/boxes/{id}", tag = "boxes",
    params(("id" = String, Path, description = "Name of the box")), responses(
    (status = 200, description = "The box", body = BoxView<'static>),
    (status = 400, description = "Not a name", body = ErrorBody),
    (status = 404, description = "No such box", body = ErrorBody),
))]
async fn one_box(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = box_id(&id)?;
    let found = api.live.get(id.clone()).await?;
    let body = found.ok_or_else(|| no_such_box(&id))?;
    Ok(json(body))
}

fn no_such_box(id: &Id) -> ApiError {
    ApiError::NotFound(format!("no box {id} was ever seen in this region"))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryParams {
    /// Name of the metric, as in the box's `metrics`.
    #[param(example = "cpu/load_percent")]
    metric: String,
    /// Not before this time, in milliseconds since 1970.
    from_ms: Option<u64>,
    /// Not after this time.
    to_ms: Option<u64>,
    /// The newest so many points; 1,000 when absent, at most 10,000.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

/// How one metric of a box changed, oldest point first. A box reports a metric when it changes, so a value holds
/// until the next point.
#[utoipa::path(get, path = "/api/v1/boxes/{id}/history", tag = "boxes",
    params(("id" = String, Path, description = "Name of the box"), HistoryParams), responses(
    (status = 200, description = "The points; none for a metric that the box never reported", body = Vec<HistoryPoint>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
    (status = 404, description = "No such box", body = ErrorBody),
    (status = 503, description = "The store is busy", body = ErrorBody),
))]
async fn history(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Result<Query<HistoryParams>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let id = box_id(&id)?;
    if api.live.get(id.clone()).await?.is_none() {
        return Err(no_such_box(&id));
    }
    let points = api
        .store
        .history(HistoryQuery {
            box_id: id,
            metric: query.metric,
            from_ms: query.from_ms.unwrap_or(0),
            to_ms: query.to_ms.unwrap_or(u64::MAX),
            limit: limit(query.limit, POINTS, POINTS_MAX)?,
        })
        .await?;
    Ok(axum::Json(points).into_response())
}

/// The region as a whole.
#[utoipa::path(get, path = "/api/v1/region", tag = "region", responses(
    (status = 200, description = "Totals and the state of broker and store", body = Overview),
))]
async fn region(State(api): State<Api>) -> Result<Response, ApiError> {
    Ok(axum::Json(api.live.overview().await?).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// At most so many; 500 when absent, which is also the most.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

/// The last events, newest first.
#[utoipa::path(get, path = "/api/v1/events", params(EventsQuery), tag = "region", responses(
    (status = 200, description = "The events", body = Vec<Event>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
async fn events(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let limit = limit(query.limit, EVENTS_MAX, EVENTS_MAX)?;
    Ok(axum::Json(api.live.events(limit).await?).into_response())
}

/// Whether the indexer does all of its work.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok` or `degraded`.
    status: &'static str,
    /// What is wrong.
    reasons: Vec<String>,
}

/// Whether the indexer does all of its work: it has its broker, and its store writes.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses(
    (status = 200, description = "All is well", body = Health),
    (status = 503, description = "Something is not; the region is shown anyway", body = Health),
))]
async fn healthz(State(api): State<Api>) -> Result<Response, ApiError> {
    let overview = api.live.overview().await?;
    let mut reasons = Vec::new();
    if !overview.broker_connected {
        reasons.push("not connected to the broker".to_owned());
    }
    if let Some(why) = &overview.store.failing {
        reasons.push(format!("the store cannot write: {why}"));
    }
    let (code, status) = if reasons.is_empty() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "degraded")
    };
    Ok((code, axum::Json(Health { status, reasons })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_has_every_route() {
        let documented: Vec<String> = openapi::paths();
        let mut routed: Vec<String> = routes()
            .into_iter()
            .map(|(path, _)| path.to_owned())
            .filter(|path| page::PATHS.iter().all(|(page, ..)| page != path))
            .collect();
        routed.sort();
        assert_eq!(documented, routed);
    }
}
