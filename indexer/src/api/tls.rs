//! The same API over TLS, for the region's own: who shows a certificate reads what its role may read. Without one
//! there is only enrolment.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use edge_identity::certificate::Identity;
use edge_identity::enrolment;
use edge_identity::scope::Scope;
use edge_identity::subject::Role;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ApiError;
use super::guard::{Connection, Connections};
use super::serve::Caller;
use crate::identity::Identity as Region;

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that wait to be served.
const ACCEPTED: usize = 64;

/// The certificate that was shown, if any. TLS has checked it; one that names nobody counts as none.
fn shown(stream: &TlsStream<Connection>) -> Option<Arc<Identity>> {
    let shown = stream.get_ref().1.peer_certificates()?;
    Identity::read(shown.first()?).ok().map(Arc::new)
}

/// A listener that hands on connections whose handshake is done. Handshakes run beside each other, so that a slow one
/// holds nobody up; the connections' own bound bounds them.
pub(super) struct TlsListener {
    accepted: mpsc::Receiver<(TlsStream<Connection>, Caller)>,
    address: SocketAddr,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (done, accepted) = mpsc::channel(ACCEPTED);
        tokio::spawn(async move {
            let mut connections = Connections::new(listener);
            loop {
                let (connection, address) = tokio::select! {
                    connection = connections.accept() => connection,
                    () = done.closed() => return,
                };
                let (acceptor, done) = (acceptor.clone(), done.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(connection)).await {
                        Ok(Ok(stream)) => {
                            let caller = Caller {
                                identity: shown(&stream),
                                ..address.into()
                            };
                            // Nobody serves any more at the end of the program.
                            let _served = done.send((stream, caller)).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%address, %error, "no TLS"),
                        Err(_elapsed) => {
                            tracing::debug!(%address, "the TLS handshake took too long");
                        }
                    }
                });
            }
        });
        Ok(Self { accepted, address })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<Connection>;
    type Addr = Caller;

    async fn accept(&mut self) -> (Self::Io, Caller) {
        match self.accepted.recv().await {
            Some(connection) => connection,
            // The accepting task ends only with this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(self.address.into())
    }
}

/// Lets through what the caller's role or token may read.
pub(super) async fn only_the_region(
    State(region): State<Region>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let is_open = path == enrolment::PATH || path == "healthz";
    let token = bearer(request.headers());
    match caller.identity {
        _ if is_open => next.run(request).await,
        // It may have lost its rights since it connected.
        Some(identity) if region.is_revoked(&identity.key) => {
            ApiError::NoCertificate.into_response()
        }
        Some(identity) if may_read(&identity, path) => next.run(request).await,
        Some(_) => ApiError::Forbidden.into_response(),
        None => match token.and_then(|token| region.api_token(token)) {
            None => ApiError::NoCertificate.into_response(),
            Some(token) if scope(path).is_some_and(|scope| token.scopes.contains(&scope)) => {
                next.run(request).await
            }
            Some(_) => ApiError::Forbidden.into_response(),
        },
    }
}

/// The token that a program shows (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = shown.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The scope that reading this needs; none for what no token reads.
fn scope(path: &str) -> Option<Scope> {
    match path {
        "api/v1/region" | "api/v1/events" | "api/v1/openapi.json" => Some(Scope::Region),
        "metrics" => Some(Scope::Metrics),
        "api/v1/boxes" | "api/v1/stream" => Some(Scope::Boxes),
        _ if path.starts_with("api/v1/boxes/") => Some(Scope::Boxes),
        _ => None,
    }
}

fn may_read(who: &Identity, path: &str) -> bool {
    match who.role() {
        Role::Admin | Role::Indexer => true,
        // What `doctor` asks: the region's totals, and itself.
        Role::Box => {
            let own = format!("api/v1/boxes/{}", who.subject.name);
            path == "api/v1/region" || path == own || path.starts_with(&format!("{own}/"))
        }
        Role::Sensor | Role::App | Role::Checker | Role::Broker => false,
    }
}

#[cfg(test)]
mod tests {
    use edge_identity::key::KeyFingerprint;
    use edge_identity::subject::Subject;
    use edge_protocol::Id;

    use super::*;

    #[test]
    fn a_tokens_scopes_are_parts_of_the_api() {
        for (path, needed) in [
            ("api/v1/region", Some(Scope::Region)),
            ("api/v1/boxes/box-1/history", Some(Scope::Boxes)),
            ("api/v1/boxes", Some(Scope::Boxes)),
            ("api/v1/boxesx", None),
            ("metrics", Some(Scope::Metrics)),
            ("", None),
            ("api/v1/enrol", None),
        ] {
            assert_eq!(scope(path), needed, "{path}");
        }
    }

    #[test]
    fn a_box_reads_itself_and_an_admin_all() {
        let who = |role| Identity {
            subject: Subject {
                region: Id::new("lab").unwrap(),
                role,
                name: Id::new("box-1").unwrap(),
            },
            key: KeyFingerprint([0; 32]),
            serial: vec![1],
            not_before_s: 0,
            not_after_s: 1,
        };
        for (path, box_may) in [
            ("api/v1/region", true),
            ("api/v1/boxes/box-1", true),
            ("api/v1/boxes/box-1/history", true),
            ("api/v1/boxes/box-10", false),
            ("api/v1/boxes", false),
            ("metrics", false),
            ("", false),
        ] {
            assert_eq!(may_read(&who(Role::Box), path), box_may, "{path}");
            assert!(may_read(&who(Role::Admin), path), "{path}");
            assert!(!may_read(&who(Role::Sensor), path), "{path}");
        }
    }
}
