//! What protects every route: security headers, and bounds on answers, bodies and connections.
//!
//! A slow or hostile client on one address holds its own share of the connections and no more; clients on many addresses
//! can still take all of them. Programs on this machine are trusted with all connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::rates::Rates;
use super::{ApiError, browser, rates};

/// Largest body of a request. No route reads one yet.
const BODY_MAX_BYTES: usize = 64 << 10;
/// Longest time until an answer begins.
const ANSWER: Duration = Duration::from_secs(30);
/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 1_024;
/// Connections of one IP address at once; more are closed. Those from this machine itself are not counted.
const CONNECTIONS_PER_PEER: usize = 64;
/// A connection on which nothing moved for this long is closed. Streams send a comment more often.
const IDLE: Duration = Duration::from_secs(60);

const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// `names` are those by which a browser may ask for this machine, where nothing else checks them.
pub(super) fn protect(router: Router, names: browser::Names) -> Router {
    let rates = Arc::<Rates>::default();
    router
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(middleware::from_fn_with_state(
            names,
            browser::no_foreign_page,
        ))
        .layer(middleware::from_fn_with_state(rates, rates::within_rates))
        .layer(middleware::from_fn(bounded))
        .layer(middleware::map_response(secure))
}

async fn bounded(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::Timeout.into_response(),
    }
}

async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Connections of each address.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

impl Peers {
    /// Counts a connection of `address` until the result is dropped; none when it has too many.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Peer> {
        let address = address.to_canonical(); // an IPv4 peer of an IPv6 socket
        if !address.is_loopback() {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= CONNECTIONS_PER_PEER {
                return None;
            }
            *count += 1;
        }
        Some(Peer {
            address,
            peers: Arc::clone(self),
        })
    }
}

/// A counted connection.
#[derive(Debug)]
struct Peer {
    address: IpAddr,
    peers: Arc<Peers>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// A listener that takes a bounded number of connections, of each peer and in all, and closes idle ones.
pub(super) struct Connections {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    peers: Arc<Peers>,
}

impl Connections {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            peers: Arc::default(),
        }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address, peer) = loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Some(peer) = self.peers.admit(address.ip()) {
                break (stream, address, peer);
            }
            tracing::debug!(%address, "closed: this address has too many connections");
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let connection = Connection {
            stream,
            idle: Box::pin(tokio::time::sleep(IDLE)),
            _permit: permit,
            _peer: peer,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when nothing moves on it.
pub(super) struct Connection {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
    _peer: Peer,
}

impl Connection {
    fn moved(&mut self) {
        self.idle.as_mut().reset(Instant::now() + IDLE);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                self.moved();
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.idle.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.moved();
        Poll::Ready(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        self.moved();
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_of_connections_and_no_more() {
        let peers = Arc::new(Peers::default());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let mut held: Vec<_> = (0..CONNECTIONS_PER_PEER)
            .map(|_| peers.admit(one).unwrap())
            .collect();
        assert!(peers.admit(one).is_none() && peers.admit(mapped).is_none());
        assert!(peers.admit("192.0.2.2".parse().unwrap()).is_some());
        held.pop();
        held.push(peers.admit(mapped).unwrap());
        assert!(peers.admit(one).is_none());
        drop(held);
        assert!(peers.0.lock().unwrap().is_empty(), "nothing is left behind");

        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let many: Vec<_> = (0..=CONNECTIONS_PER_PEER)
            .map(|_| peers.admit(here))
            .collect();
        assert!(many.iter().all(Option::is_some));
    }
}
