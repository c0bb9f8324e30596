//! The embedded MQTT broker: RMQTT inside this process, for a region on one machine.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use edge_protocol::limit;
use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

/// Messages that the broker keeps for one client that is slow or away. The indexer itself is the slowest reader when
/// a whole region is born at once.
const QUEUE_MAX: usize = 10_000;

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address cannot be used.
    #[error(
        "the embedded broker cannot listen on {address}: {reason}; stop what listens there (`ss -ltnp` names it) or \
         give another --mqtt"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
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
}

/// The running broker.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Broker {
    /// Starts to listen. `ended` is dropped when the broker ends, asked or not.
    ///
    /// # Errors
    /// [`BrokerError`] when the address is in use or not this machine's.
    pub async fn start(address: SocketAddr, ended: DropGuard) -> Result<Self, BrokerError> {
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

        // A fixed port must not be shared with another process, but must be free again at once after a restart.
        let in_flight = NonZeroU16::new(limit::RECEIVE_MAX).unwrap_or(NonZeroU16::MAX);
        let listener = Builder::new()
            .name("region")
            .laddr(address)
            .reuseaddr(Some(true))
            .backlog(4_096)
            .nodelay(true)
            .allow_zero_keepalive(true)
            .max_packet_size(limit::PACKET_MAX_BYTES)
            .max_inflight(in_flight)
            .max_mqueue_len(QUEUE_MAX)
            // MQTT 5 (section 4.4) sends again only on a new connection.
            .message_retry_interval(Duration::ZERO)
            .bind()
            .and_then(rmqtt::net::Listener::tcp)
            .map_err(|error| BrokerError::Listen {
                address,
                reason: error.root_cause().to_string(),
            })?;
        let address = listener.local_addr().map_err(part("listener"))?;
        let server = MqttServer::new(context)
            .listener_by_id(listener, address.port())
            .build();
        let task = tokio::spawn(async move {
            let _ended = ended;
            match server.run().await {
                Ok(()) => tracing::error!("the embedded broker stopped listening"),
                Err(error) => tracing::error!(%error, "the embedded broker stopped"),
            }
        });
        tracing::info!(%address, "the embedded broker listens");
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening. Connections end with the runtime: RMQTT has no call for it.
    pub fn stop(&self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn its_end_is_told() {
        let ended = CancellationToken::new();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let broker = Broker::start(address, ended.clone().drop_guard())
            .await
            .unwrap();
        assert!(!ended.is_cancelled());
        broker.stop();
        tokio::time::timeout(Duration::from_secs(20), ended.cancelled())
            .await
            .unwrap();
    }
}
