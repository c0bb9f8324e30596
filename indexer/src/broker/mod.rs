//! The embedded MQTT broker: RMQTT inside this process, for a region on one machine. Clients come over TLS with
//! certificates ([`front`]) and do what the access list lets them ([`rules`]); without TLS everybody does everything.

mod front;
mod quotas;
mod rules;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use edge_identity::tls::{Clients, TlsError};
use edge_protocol::{Id, limit};
use rmqtt::context::ServerContext;
use rmqtt::net::{Builder, Listener};
use rmqtt::server::MqttServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::identity::Identity;
use front::{Front, Sessions};
use rules::Rules;

/// Messages that the broker keeps for one client that is slow or away. The indexer itself is the slowest reader when
/// a whole region is born at once.
const QUEUE_MAX: usize = 10_000;

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address cannot be used.
    #[error(
        "the embedded broker cannot listen on {address}: {reason}; stop what listens there (`ss -ltnp` names it) or \
         give another --{flag}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The option that chooses it.
        flag: &'static str,
        /// Why.
        reason: String,
    },
    /// A part of the broker refuses to start.
    #[error("the embedded broker's {part} does not start: {reason}")]
    Part {
        /// Which part.
        part: &'static str,
        /// Why.
        reason: String,
    },
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Where the broker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listeners {
    /// For clients with certificates.
    pub tls: Option<SocketAddr>,
    /// For everybody, who may do everything.
    pub insecure: Option<SocketAddr>,
}

/// The running broker.
#[derive(Debug)]
pub struct Broker {
    listeners: Listeners,
    tasks: Vec<JoinHandle<()>>,
}

impl Broker {
    /// Starts to listen. `ended` is dropped when the broker ends, asked or not.
    ///
    /// # Errors
    /// [`BrokerError`] when an address is in use or not this machine's.
    pub async fn start(
        listeners: Listeners,
        identity: Option<(&Identity, &Id)>,
        ended: DropGuard,
    ) -> Result<Self, BrokerError> {
        let part = |part| {
            move |error: rmqtt::Error| BrokerError::Part {
                part,
                reason: format!("{error:#}"),
            }
        };
        let context = ServerContext::new()
            // It would refuse connections while other programs keep the processors busy.
            .busy_check_enable(false)
            .plugins_config_map_add(
                "rmqtt-retainer",
                "storage.type = \"ram\"\nmax_retained_messages = 100000\nmax_payload_size = \"1MB\"\n\
                 retained_message_ttl = \"0m\"\n",
            )
            .plugins_config_map_add("rmqtt-shared-subscription", "strategy = \"round_robin\"\n")
            .build()
            .await;
        rmqtt_retainer::register(&context, true, false)
            .await
            .map_err(part("retainer"))?;
        rmqtt_shared_subscription::register(&context, true, false)
            .await
            .map_err(part("shared subscription"))?;

        let mut server = MqttServer::new(context.clone());
        let mut rules = Rules {
            sessions: Arc::new(Sessions::default()),
            rights: identity.map(|(identity, _)| identity.rights()),
            quotas: Arc::default(),
            insecure: None,
        };
        let mut bound = Listeners {
            tls: None,
            insecure: None,
        };
        let mut tasks = Vec::new();
        if let Some(address) = listeners.insecure {
            let listener = listen(address, true, "insecure-mqtt")?;
            let address = listener.local_addr().map_err(part("listener"))?;
            rules.insecure = Some(address.port());
            bound.insecure = Some(address);
            server = server.listener_by_id(listener, address.port());
            tracing::warn!(%address, "the embedded broker lets everybody in here, to do everything");
        }
        if let (Some(address), Some((identity, region))) = (listeners.tls, identity) {
            let inside = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false, "mqtt")?;
            let inside_address = inside.local_addr().map_err(part("listener"))?;
            server = server.listener_by_id(inside, inside_address.port());
            let failed = |error: std::io::Error| BrokerError::Listen {
                address,
                flag: "mqtt",
                reason: error.to_string(),
            };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            bound.tls = Some(address);
            let front = Front {
                acceptor: identity.acceptor(Clients::Certified)?,
                region: region.clone(),
                inside: inside_address,
                sessions: Arc::clone(&rules.sessions),
                rights: identity.rights(),
            };
            tasks.push(tokio::spawn(front.run(listener)));
            tracing::info!(%address, "the embedded broker listens for clients with certificates");
        }
        rules.enforce(&context).await;
        let server = server.build();
        tasks.push(tokio::spawn(async move {
            let _ended = ended;
            match server.run().await {
                Ok(()) => tracing::error!("the embedded broker stopped listening"),
                Err(error) => tracing::error!(%error, "the embedded broker stopped"),
            }
        }));
        Ok(Self {
            listeners: bound,
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn listeners(&self) -> Listeners {
        self.listeners
    }

    /// Stops listening. Connections end with the runtime: RMQTT has no call for it.
    pub fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A listener of RMQTT. A fixed port must not be shared with another process, but must be free again at once after a
/// restart.
fn listen(address: SocketAddr, is_open: bool, flag: &'static str) -> Result<Listener, BrokerError> {
    let in_flight = NonZeroU16::new(limit::RECEIVE_MAX).unwrap_or(NonZeroU16::MAX);
    Builder::new()
        .name("region")
        .laddr(address)
        .reuseaddr(Some(true))
        .backlog(4_096)
        .nodelay(true)
        // Where this is true, RMQTT does not ask the rules about a client without a user name.
        .allow_anonymous(is_open)
        .allow_zero_keepalive(true)
        .max_packet_size(limit::PACKET_MAX_BYTES)
        .max_inflight(in_flight)
        .max_mqueue_len(QUEUE_MAX)
        // MQTT 5 (section 4.4) sends again only on a new connection.
        .message_retry_interval(Duration::ZERO)
        .bind()
        .and_then(Listener::tcp)
        .map_err(|error| BrokerError::Listen {
            address,
            flag,
            reason: error.root_cause().to_string(),
        })
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn its_end_is_told() {
        let ended = CancellationToken::new();
        let listeners = Listeners {
            tls: None,
            insecure: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        };
        let broker = Broker::start(listeners, None, ended.clone().drop_guard())
            .await
            .unwrap();
        assert!(!ended.is_cancelled());
        broker.stop();
        tokio::time::timeout(Duration::from_secs(20), ended.cancelled())
            .await
            .unwrap();
    }
}
