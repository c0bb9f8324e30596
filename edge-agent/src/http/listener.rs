//! Takes HTTP connections, so many in all and of one address, and closes those that are slow to ask.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// Connections of one address at once; more are closed. Those from this machine itself are not counted.
const CONNECTIONS_PER_PEER: usize = 32;
/// Longest time from the start of a connection, or the end of a request on it, until the next one's headers are there.
const HEADERS: Duration = Duration::from_secs(30);
/// Bytes of a request's headers; hyper takes 8,192 at least.
const HEADERS_MAX_BYTES: usize = 16 << 10;
/// Pause after the system has refused a connection, as it does when files run out.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest time that open requests may take at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let peers = Arc::new(Peers::default());
    let tasks = TaskTracker::new();
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot take an HTTP connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(peer) = peers.admit(address.ip()) else {
            debug!(%address, "closed: this address has too many connections");
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        tasks.spawn(async move {
            let _held = (permit, peer);
            connection(stream, address, router, stop).await;
        });
    }
    tasks.close();
    if timeout(GOODBYE, tasks.wait()).await.is_err() {
        debug!("HTTP connections are closed in the middle of a request");
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY was refused");
    }
    let router = router.layer(axum::Extension(ConnectInfo(address)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADERS_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%address, %error, "an HTTP connection has ended");
    }
}

/// Connections of each address.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// A counted connection.
#[derive(Debug)]
struct Peer {
    address: IpAddr,
    peers: Arc<Peers>,
}

impl Peers {
    /// Counts a connection of `address` until the result is dropped; none when it has too many.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Peer> {
        let address = address.to_canonical(); // an IPv4 peer of an IPv6 socket
        if !address.is_loopback() {
            let mut counts = self.0.lock();
            let count = counts.entry(address).or_default();
            if *count >= CONNECTIONS_PER_PEER {
                return None;
            }
            *count += 1;
        }
        Some(Peer {
            address,
            peers: self.clone(),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_of_connections_and_no_more() {
        let peers = Arc::new(Peers::default());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let mut held: Vec<_> = (0..CONNECTIONS_PER_PEER)
            .map(|_| peers.admit(one).unwrap())
            .collect();
        assert!(peers.admit("::ffff:192.0.2.1".parse().unwrap()).is_none());
        assert!(peers.admit("192.0.2.2".parse().unwrap()).is_some());
        held.pop();
        assert!(peers.admit(one).is_some());
        held.clear();
        assert!(peers.0.lock().is_empty(), "nothing is left behind");
    }
}
