//! The wiring: broker, host, region, store and API, started in order and stopped in order.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::broker::{Broker, BrokerError};
use crate::host::{self, Host, HostSettings};
use crate::live::Live;
use crate::region::{BoxRecord, Limits, Region};
use crate::settings::{BrokerChoice, Settings};
use crate::store::{OpenError, Store};
use edge_protocol::BrokerUrl;

/// How long open HTTP connections may take to end.
const HTTP_GRACE: Duration = Duration::from_secs(2);
/// How long the store may take to write what waits.
const STORE_GRACE: Duration = Duration::from_secs(10);

/// Why an indexer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The embedded broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The API's address.
    #[error(
        "the HTTP API cannot listen on {address}; stop what listens there (`ss -ltnp` names it) or give another --http"
    )]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A running indexer.
#[derive(Debug)]
pub struct Indexer {
    http: SocketAddr,
    mqtt: BrokerUrl,
    broker: Option<Broker>,
    host: Host,
    live: JoinHandle<(Store, Vec<BoxRecord>)>,
    server: JoinHandle<()>,
    stop_host: CancellationToken,
    stop_live: CancellationToken,
    stop_http: CancellationToken,
    ended: CancellationToken,
}

impl Indexer {
    /// Starts all parts. Whatever can be refused is refused here: ports, data folder, store.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let listener =
            TcpListener::bind(settings.http)
                .await
                .map_err(|source| StartError::Http {
                    address: settings.http,
                    source,
                })?;
        let http = listener.local_addr().map_err(|source| StartError::Http {
            address: settings.http,
            source,
        })?;
        let (store, restored) = Store::open(&settings.store)?;
        let ended = CancellationToken::new();
        let (broker, mqtt) = match settings.broker {
            BrokerChoice::Embedded(address) => {
                let broker = Broker::start(address, ended.clone().drop_guard()).await?;
                let mqtt = reachable(broker.address());
                (Some(broker), mqtt)
            }
            BrokerChoice::Outside(address) => (None, address),
        };

        let limits = Limits {
            boxes_max: settings.boxes_limit,
            ..Limits::default()
        };
        let mut region = Region::new(settings.region.clone(), limits);
        for record in restored.boxes {
            region.restore(record);
        }
        let (stop_host, stop_live, stop_http) = (
            CancellationToken::new(),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        let (heard_tx, heard) = mpsc::channel(host::INBOX);
        let (commands, commands_rx) = mpsc::channel(host::COMMANDS);
        let host = Host::start(
            HostSettings {
                region: settings.region,
                indexer: settings.indexer,
                broker: mqtt.clone(),
            },
            heard_tx,
            commands_rx,
            stop_host.clone(),
        );
        let reader = store.reader();
        let (live, handle) = Live::new(region, store, restored.events, heard, commands);
        let (guard, stop) = (ended.clone().drop_guard(), stop_live.clone());
        let live = tokio::spawn(async move {
            let _guard = guard;
            live.run(stop).await
        });
        let (guard, stop) = (ended.clone().drop_guard(), stop_http.clone());
        let server = tokio::spawn(async move {
            let _guard = guard;
            api::serve(listener, handle, reader, stop).await;
        });
        tracing::info!(page = %format_args!("http://{}/", reachable_socket(http)), "the region's page and API");
        Ok(Self {
            http,
            mqtt,
            broker,
            host,
            live,
            server,
            stop_host,
            stop_live,
            stop_http,
            ended,
        })
    }

    /// Where the API and the page are served.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The broker that carries the region.
    #[must_use]
    pub fn mqtt(&self) -> &BrokerUrl {
        &self.mqtt
    }

    /// Stops: says farewell, ends the API, writes everything down. Takes at most some seconds, whatever hangs.
    pub async fn stop(self) {
        self.stop_host.cancel();
        self.host.stopped().await;
        self.stop_http.cancel();
        let server = self.server.abort_handle();
        if tokio::time::timeout(HTTP_GRACE, self.server).await.is_err() {
            server.abort();
        }
        self.stop_live.cancel();
        match self.live.await {
            Ok((store, records)) => {
                let closing = tokio::task::spawn_blocking(move || store.close(records));
                if tokio::time::timeout(STORE_GRACE, closing).await.is_err() {
                    tracing::error!(
                        "the store did not close in time; the last samples may be lost"
                    );
                }
            }
            Err(error) => {
                tracing::error!(%error, "the region's task panicked; its last state is not saved");
            }
        }
        if let Some(broker) = self.broker {
            broker.stop();
        }
    }

    /// Waits until a part ends by itself, which none should.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// An address by which this process itself reaches a listener.
fn reachable_socket(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn reachable(address: SocketAddr) -> BrokerUrl {
    let address = reachable_socket(address);
    let host = match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    BrokerUrl {
        host,
        port: address.port(),
    }
}
