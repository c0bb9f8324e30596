//! The wiring: broker, host, region, store and API, started in order and stopped in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_identity::tls::{self, Clients, TlsError};
use edge_identity::verify::Trust;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Served};
use crate::broker::{Broker, BrokerError, Listeners};
use crate::host::{self, Host, HostSettings};
use crate::identity::{Identity, IdentityError};
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
    /// The authority.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS without an authority.
    #[error(
        "{0} needs the region's authority: make one with `edgectl ca init` and give its folder with --ca"
    )]
    NoAuthority(&'static str),
    /// The API's address.
    #[error(
        "the HTTP API cannot listen on {address}; stop what listens there (`ss -ltnp` names it) or give another --{flag}"
    )]
    Http {
        /// The address.
        address: SocketAddr,
        /// The option that chooses it.
        flag: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A running indexer.
#[derive(Debug)]
pub struct Indexer {
    http: SocketAddr,
    https: Option<SocketAddr>,
    mqtt: BrokerUrl,
    broker: Option<Broker>,
    host: Host,
    live: JoinHandle<(Store, Vec<BoxRecord>)>,
    servers: Vec<JoinHandle<()>>,
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
        let (listener, http) = bind(settings.http, "http").await?;
        let https = match settings.https {
            Some(address) => Some(bind(address, "https").await?),
            None => None,
        };
        let (store, restored) = Store::open(&settings.store)?;
        let (region, indexer) = (settings.region.clone(), settings.indexer.clone());
        let identity = match settings.identity {
            Some(identity) => Some(Identity::start(identity, &region, &indexer)?),
            None => None,
        };
        let authority = |what| identity.as_ref().ok_or(StartError::NoAuthority(what));
        let ended = CancellationToken::new();
        let (broker, mqtt) = match settings.broker {
            BrokerChoice::Embedded(listeners) => {
                if listeners.tls.is_some() {
                    authority("--mqtt")?;
                }
                let identity = identity.as_ref().map(|identity| (identity, &region));
                let broker = Broker::start(listeners, identity, ended.clone().drop_guard()).await?;
                let mqtt = reachable(broker.listeners());
                (Some(broker), mqtt)
            }
            BrokerChoice::Outside(address) => (None, address),
        };
        let tls = if mqtt.tls {
            let identity = authority("a broker over TLS")?;
            let trust = Trust::Root(identity.root().clone());
            let client = tls::client(trust, region.clone(), Some(identity.credentials()))?;
            Some(Arc::new(client))
        } else {
            None
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
                tls,
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
        let served = Served::new(handle, reader, stop_http.clone());
        let guard = ended.clone().drop_guard();
        let (plain, names) = (served.clone(), settings.hosts.into());
        let mut servers = vec![tokio::spawn(async move {
            let _guard = guard;
            api::serve(listener, plain, names).await;
        })];
        let mut https_address = None;
        if let Some((listener, address)) = https {
            let identity = authority("--https")?.clone();
            let acceptor = identity.acceptor(Clients::Any)?;
            https_address = Some(address);
            let guard = ended.clone().drop_guard();
            servers.push(tokio::spawn(async move {
                let _guard = guard;
                api::serve_tls(listener, acceptor, served, identity).await;
            }));
            tracing::info!(%address, "keys enrol over HTTPS");
        }
        tracing::info!(page = %format_args!("http://{}/", reachable_socket(http)), "the region's page and API");
        Ok(Self {
            http,
            https: https_address,
            mqtt,
            broker,
            host,
            live,
            servers,
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

    /// Where keys enrol.
    #[must_use]
    pub fn https(&self) -> Option<SocketAddr> {
        self.https
    }

    /// Where the embedded broker listens.
    #[must_use]
    pub fn listeners(&self) -> Option<Listeners> {
        self.broker.as_ref().map(Broker::listeners)
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
        for server in self.servers {
            let abort = server.abort_handle();
            if tokio::time::timeout(HTTP_GRACE, server).await.is_err() {
                abort.abort();
            }
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

/// How this process itself reaches its broker: over TLS where there is TLS.
fn reachable(listeners: Listeners) -> BrokerUrl {
    let tls = listeners.tls.is_some();
    let address = listeners.tls.or(listeners.insecure);
    let address = reachable_socket(address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))));
    let host = match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        // The client library takes no IPv6 address over TLS.
        SocketAddr::V6(_) if tls => "localhost".to_owned(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    BrokerUrl {
        host,
        port: address.port(),
        tls,
    }
}

async fn bind(
    address: SocketAddr,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Http {
        address,
        flag,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
