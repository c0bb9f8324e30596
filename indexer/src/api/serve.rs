//! Serves the connections that a listener takes: who sends no whole request in time is closed, and at the end open
//! requests end first.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use axum::{Extension, Router};
use edge_identity::certificate::Identity;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest time from the start of a connection, or the end of a request on it, until the next one's headers are there.
const HEADERS: Duration = Duration::from_secs(30);
/// Bytes of a request's headers.
const HEADERS_MAX_BYTES: usize = 16 << 10;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) address: IpAddr,
    /// Its certificate, where it has shown one.
    pub(super) identity: Option<Arc<Identity>>,
}

impl From<SocketAddr> for Caller {
    fn from(address: SocketAddr) -> Self {
        Self {
            address: address.ip().to_canonical(), // an IPv4 peer of an IPv6 socket
            identity: None,
        }
    }
}

/// Serves until `stop`, and then until what was asked is answered. Dropped meanwhile, it closes what is open.
pub(super) async fn serve<L>(mut listener: L, app: Router, stop: CancellationToken)
where
    L: Listener<Addr: Into<Caller>>,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        let caller: Caller = address.into();
        let app = app.clone().layer(Extension(caller));
        connections.spawn(connection(stream, app, stop.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection<S>(stream: S, app: Router, stop: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADERS_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection has ended");
    }
}
