//! The protocol's paths, from HTTP to the box's own requests and back.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use edge_protocol::{
    Id, Status,
    oip::{
        Encoding,
        server::{Operation, Subject},
    },
    property,
};
use tokio::sync::oneshot;

use super::{
    body::{Held, Room},
    metrics,
};
use crate::{
    inference::Reply,
    outcome::Outcome,
    requests::{
        operations::{self, Asked, Operations},
        service::{Ask, Service},
    },
};

/// Longest time from a request to its answer. The parameter `timeout` makes it shorter.
const DEADLINE: Duration = Duration::from_secs(60);

/// The binary tensor extension's header.
const HEADER_LENGTH: HeaderName =
    HeaderName::from_static(property::INFERENCE_HEADER_CONTENT_LENGTH);
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static(property::RETRY_AFTER_MS);
const SERVED_BY: HeaderName = HeaderName::from_static(property::SERVED_BY);

/// What the routes need.
pub(crate) struct Api {
    service: Arc<Service>,
    operations: Arc<Operations>,
    room: Room,
}

impl Api {
    pub(crate) fn new(service: Arc<Service>, operations: Arc<Operations>) -> Self {
        Self {
            service,
            operations,
            room: Room::default(),
        }
    }
}

type Shared = State<Arc<Api>>;
type Peer = axum::Extension<ConnectInfo<SocketAddr>>;

pub(super) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models", get(models))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/versions/{version}", get(metadata_of))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route(
            "/v2/models/{model}/versions/{version}/ready",
            get(model_ready_of),
        )
        .route("/v2/models/{model}/infer", post(infer))
        .route(
            "/v2/models/{model}/versions/{version}/infer",
            post(infer_with),
        )
        .route("/metrics", get(figures))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
        .fallback(|| async { fail(StatusCode::NOT_FOUND, "there is nothing at this address") })
        .method_not_allowed_fallback(|method: Method| async move {
            let why = format!("{method} is not answered at this address");
            fail(StatusCode::METHOD_NOT_ALLOWED, &why)
        })
        .with_state(api)
}

async fn live(State(api): Shared, peer: Peer) -> Response {
    api.operate(Operation::ServerLive, Subject::default(), peer)
        .await
}

async fn ready(State(api): Shared, peer: Peer) -> Response {
    api.operate(Operation::ServerReady, Subject::default(), peer)
        .await
}

async fn server_metadata(State(api): Shared, peer: Peer) -> Response {
    api.operate(Operation::ServerMetadata, Subject::default(), peer)
        .await
}

async fn models(State(api): Shared) -> Response {
    api.respond(&api.operations.models())
}

async fn metadata(State(api): Shared, Path(model): Path<String>, peer: Peer) -> Response {
    api.operate(Operation::ModelMetadata, about(model, None), peer)
        .await
}

async fn metadata_of(
    State(api): Shared,
    Path((model, version)): Path<(String, String)>,
    peer: Peer,
) -> Response {
    api.operate(Operation::ModelMetadata, about(model, Some(version)), peer)
        .await
}

async fn model_ready(State(api): Shared, Path(model): Path<String>, peer: Peer) -> Response {
    api.operate(Operation::ModelReady, about(model, None), peer)
        .await
}

async fn model_ready_of(
    State(api): Shared,
    Path((model, version)): Path<(String, String)>,
    peer: Peer,
) -> Response {
    api.operate(Operation::ModelReady, about(model, Some(version)), peer)
        .await
}

async fn figures(State(api): Shared) -> Response {
    let content_type = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (content_type, metrics::text(&api.service.figures())).into_response()
}

async fn index(State(api): Shared, peer: Peer, request: Request) -> Response {
    api.operate_with_body(Operation::RepositoryIndex, None, peer, request)
        .await
}

async fn load(
    State(api): Shared,
    Path(model): Path<String>,
    peer: Peer,
    request: Request,
) -> Response {
    api.operate_with_body(Operation::RepositoryModelLoad, Some(model), peer, request)
        .await
}

async fn unload(
    State(api): Shared,
    Path(model): Path<String>,
    peer: Peer,
    request: Request,
) -> Response {
    api.operate_with_body(Operation::RepositoryModelUnload, Some(model), peer, request)
        .await
}

async fn infer(
    State(api): Shared,
    Path(model): Path<String>,
    peer: Peer,
    request: Request,
) -> Response {
    let outcome = api.infer(&model, "", peer, request).await;
    api.respond(&outcome)
}

async fn infer_with(
    State(api): Shared,
    Path((model, version)): Path<(String, String)>,
    peer: Peer,
    request: Request,
) -> Response {
    let outcome = api.infer(&model, &version, peer, request).await;
    api.respond(&outcome)
}

fn about(name: String, version: Option<String>) -> Subject {
    Subject {
        name: Some(name),
        version,
        ..Subject::default()
    }
}

impl Api {
    async fn read(&self, request: Request) -> Result<(HeaderMap, Held), Outcome> {
        let (parts, body) = request.into_parts();
        let coding = parts.headers.get(header::CONTENT_ENCODING);
        if let Some(coding) = coding.filter(|coding| coding.as_bytes() != b"identity") {
            let why = format!("bodies are taken as they are, not encoded as {coding:?}");
            return Err(failure(Status::BadRequest, &why));
        }
        let held = self.room.read(&parts.headers, body).await;
        held.map(|held| (parts.headers, held))
            .map_err(|(status, why)| failure(status, &why))
    }

    async fn operate_with_body(
        &self,
        operation: Operation,
        name: Option<String>,
        peer: Peer,
        request: Request,
    ) -> Response {
        let (_, held) = match self.read(request).await {
            Ok(read) => read,
            Err(outcome) => return self.respond(&outcome),
        };
        match Subject::decode(&held.bytes) {
            // The path says which model; what else the body calls so does not count.
            Ok(subject) => {
                self.operate(operation, Subject { name, ..subject }, peer)
                    .await
            }
            Err(error) => self.respond(&failure(Status::BadRequest, &error.to_string())),
        }
    }

    async fn operate(&self, operation: Operation, subject: Subject, peer: Peer) -> Response {
        let address = peer.0.0.ip().to_canonical();
        let (sender, outcome) = oneshot::channel();
        let reply = Reply::new(Encoding::Json, move |outcome| {
            sender.send(outcome).ok();
        });
        let asked = Asked {
            operation,
            subject,
            who: &address.to_string(),
            // HTTP has no identities; whoever is on the box could change the repository as well.
            is_admin: address.is_loopback(),
        };
        self.operations.perform(asked, reply);
        // A reply is always sent.
        match outcome.await {
            Ok(outcome) => self.respond(&outcome),
            Err(_) => fail(StatusCode::INTERNAL_SERVER_ERROR, "no answer"),
        }
    }

    async fn infer(&self, model: &str, version: &str, peer: Peer, request: Request) -> Outcome {
        let Ok(model) = Id::new(model) else {
            return failure(Status::NotFound, &operations::no_such_model(model));
        };
        let version = match operations::version(version) {
            Ok(version) => version,
            Err(why) => return failure(Status::BadRequest, &why),
        };
        let (headers, held) = match self.read(request).await {
            Ok(read) => read,
            Err(outcome) => return outcome,
        };
        let encoding = match encoding(&headers) {
            Ok(encoding) => encoding,
            Err(why) => return failure(Status::BadRequest, &why),
        };
        let (sender, outcome) = oneshot::channel();
        self.service.ask(
            Ask {
                model,
                version,
                client: client(peer.0.0),
                expires_in: DEADLINE,
                encoding,
                body: held.bytes.clone(),
            },
            sender,
        );
        match outcome.await {
            Ok(outcome) => Outcome::clone(&outcome),
            Err(_) => failure(Status::RuntimeFailed, "no answer"),
        }
    }

    fn respond(&self, outcome: &Outcome) -> Response {
        let status = StatusCode::from_u16(outcome.status.code())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, outcome.body.bytes.clone()).into_response();
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static(outcome.body.encoding.content_type());
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Encoding::Binary { header_length } = outcome.body.encoding {
            headers.insert(HEADER_LENGTH, header_length.into());
        }
        if let Some(milliseconds) = outcome.retry_after_ms() {
            headers.insert(RETRY_AFTER_MS, milliseconds.into());
            headers.insert(
                header::RETRY_AFTER,
                milliseconds.div_ceil(1_000).max(1).into(),
            );
        }
        if let Ok(box_id) = HeaderValue::from_str(self.service.box_id().as_str()) {
            headers.insert(SERVED_BY, box_id);
        }
        response
    }
}

/// Who asks, for quotas and fair shares: programs at one address are one client.
fn client(peer: SocketAddr) -> Id {
    let address = peer
        .ip()
        .to_canonical()
        .to_string()
        .replace(['.', ':'], "-");
    // An address has the characters of a name, and at most 39 of them.
    Id::new(&format!("http-{address}")).unwrap_or_else(|_| http())
}

#[allow(clippy::expect_used, reason = "a constant name")]
fn http() -> Id {
    Id::new("http").expect("a name")
}

/// How a body is encoded. Clients of Triton send binary tensors without naming their content type.
fn encoding(headers: &HeaderMap) -> Result<Encoding, String> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(length) = text(&HEADER_LENGTH) {
        return length
            .parse()
            .map(|header_length| Encoding::Binary { header_length })
            .map_err(|_| format!("{HEADER_LENGTH} must be a whole number"));
    }
    let content_type = text(&header::CONTENT_TYPE).unwrap_or(property::CONTENT_TYPE_JSON);
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match essence.as_str() {
        property::CONTENT_TYPE_CBOR => Ok(Encoding::Cbor),
        property::CONTENT_TYPE_BINARY => Err(format!(
            "{} needs the header {HEADER_LENGTH}",
            property::CONTENT_TYPE_BINARY
        )),
        // As curl and others call what they were given.
        property::CONTENT_TYPE_JSON | "" | "application/x-www-form-urlencoded" | "text/plain" => {
            Ok(Encoding::Json)
        }
        other => Encoding::from_properties(Some(other), None).map_err(|error| error.to_string()),
    }
}

fn failure(status: Status, why: &str) -> Outcome {
    let outcome = Outcome::failure(status, why, Encoding::Json);
    match status {
        Status::Unavailable => outcome.retry_after(Duration::from_secs(1)),
        _ => outcome,
    }
}

fn fail(status: StatusCode, why: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": why }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_at_one_address_are_one_client() {
        let client = |peer: &str| client(peer.parse().unwrap()).to_string();
        assert_eq!(client("127.0.0.1:80"), "http-127-0-0-1");
        assert_eq!(client("[::ffff:10.0.0.7]:80"), "http-10-0-0-7");
        assert_eq!(client("[2001:db8::1]:80"), "http-2001-db8--1");
    }

    #[test]
    fn the_encoding_is_what_the_headers_say_as_tritons_clients_write_them() {
        let of = |pairs: &[(HeaderName, &str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (name.clone(), value.parse().unwrap()));
            encoding(&headers.collect())
        };
        let binary = Encoding::Binary { header_length: 7 };
        assert_eq!(of(&[]), Ok(Encoding::Json));
        assert_eq!(of(&[(HEADER_LENGTH, "7")]), Ok(binary));
        let json = (header::CONTENT_TYPE, "Application/JSON; charset=utf-8");
        assert_eq!(of(&[json]), Ok(Encoding::Json));
        assert_eq!(
            of(&[(header::CONTENT_TYPE, "application/cbor")]),
            Ok(Encoding::Cbor)
        );
        assert!(
            of(&[(HEADER_LENGTH, "-1")])
                .unwrap_err()
                .contains("whole number")
        );
        let alone = of(&[(header::CONTENT_TYPE, "application/octet-stream")]);
        assert!(
            alone
                .unwrap_err()
                .contains("inference-header-content-length")
        );
        assert!(
            of(&[(header::CONTENT_TYPE, "text/html")])
                .unwrap_err()
                .contains("text/html")
        );
    }
}
