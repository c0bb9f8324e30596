//! An MQTT connection that is kept up: polls it, and after a loss waits a growing, jittered time and connects again.
//! What happens on the connection goes to a [`Handler`], which must not wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use edge_protocol::{BrokerUrl, Id, limit};
use rumqttc::{
    NetworkOptions, Outgoing, TlsConfiguration, TlsError, Transport,
    v5::{
        ConnectionError, Event, EventLoop, MqttOptions, MqttState, StateError,
        mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, Packet},
    },
};
use rustls::{AlertDescription, ClientConfig};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::health::vitals::Connection;

/// Keep-alive of every connection. The broker gives a box up after one and a half of it (MQTT 5, section 3.1.2.10).
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Publishes that may be unacknowledged by the broker; it may allow fewer. The client library allocates this many.
const INFLIGHT_MAX: u16 = 256;

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long a box stands back when another one has taken its name, so that the two do not push each other out
/// many times a second.
const STAND_BACK: Duration = Duration::from_secs(60);
/// A connection that ended sooner after it was made was hardly lost by accident.
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// So many short lives in a row mean that another box uses this one's name. Brokers say so when they end a connection
/// (MQTT 5, section 3.14.2.1), but the client library does not understand all forms of that message.
const SHORT_LIVES_MAX: u32 = 3;

/// Requests to the client library that can wait: an answer and an acknowledgement for all that Receive Maximum lets
/// in, and some for subscriptions. It is never full while the connection lives.
pub(crate) const QUEUE: usize = 2 * limit::RECEIVE_MAX as usize + 64;

/// What happens on a connection. Nothing here may wait: the connection stands still meanwhile.
pub(crate) trait Handler: Send {
    /// The connection is about to be made.
    fn connecting(&mut self, _options: &mut MqttOptions) {}
    /// The connection stands; without a session, subscriptions are gone.
    fn connected(&mut self, session_present: bool);
    /// Something came or went.
    fn event(&mut self, event: Event);
    /// The connection is gone, and with it what was in flight.
    fn lost(&mut self, eventloop: &mut EventLoop);
}

/// The broker, and how this box shows who it is.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub(crate) url: BrokerUrl,
    pub(crate) box_id: Id,
    /// Where the broker is reached over TLS.
    pub(crate) tls: Option<Tls>,
}

/// A connection on which both sides show certificates.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) client: Arc<ClientConfig>,
    /// Told when the broker does not take this box's certificate.
    pub(crate) refused: Arc<Notify>,
}

/// Options that all connections of a box share. `purpose` tells its connections apart; '.' cannot be in a name, so
/// the box's name stays a prefix that access lists can rely on.
pub(crate) fn options(broker: &Broker, purpose: &str) -> MqttOptions {
    let client_id = format!("{}.{purpose}", broker.box_id);
    let mut options = MqttOptions::new(client_id, &broker.url.host, broker.url.port);
    if let Some(tls) = &broker.tls {
        let config = TlsConfiguration::Rustls(Arc::clone(&tls.client));
        options.set_transport(Transport::tls_with_config(config));
    }
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(5);
    options
        .set_network_options(network)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(Some(limit::PACKET_MAX_BYTES))
        .set_receive_maximum(Some(limit::RECEIVE_MAX))
        .set_outgoing_inflight_upper_limit(INFLIGHT_MAX)
        .set_session_expiry_interval(Some(0));
    options
}

/// Throws away all that the client library would carry over to the next connection: what it would send again, but also
/// events that it has read and not yet told, and its place in the packet ids.
pub(crate) fn forget(eventloop: &mut EventLoop, manual_acks: bool) {
    eventloop.clean();
    eventloop.pending.clear();
    eventloop.state = MqttState::new(INFLIGHT_MAX, manual_acks);
}

/// Polls until `stop` is cancelled and the connection has ended or disconnects.
pub(crate) async fn keep_up(
    mut eventloop: EventLoop,
    mut handler: impl Handler,
    purpose: &'static str,
    mut vitals: Connection,
    tls: Option<Tls>,
    stop: CancellationToken,
) {
    let retries = ExponentialBuilder::default()
        .with_min_delay(FIRST_RETRY)
        .with_max_delay(LAST_RETRY)
        .with_jitter()
        .without_max_times();
    let mut retry = retries.build();
    let mut connected_at: Option<Instant> = None;
    let mut short_lives = 0;
    handler.connecting(&mut eventloop.options);
    loop {
        let polled = eventloop.poll().await;
        vitals.polled();
        let error = match polled {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                info!(
                    purpose,
                    session = connack.session_present,
                    "connected to the broker"
                );
                connected_at = Some(Instant::now());
                vitals.set_up(true);
                handler.connected(connack.session_present);
                continue;
            }
            // Some brokers leave it to the client to close the connection.
            Ok(Event::Outgoing(Outgoing::Disconnect)) if stop.is_cancelled() => return,
            Ok(event) => {
                handler.event(event);
                continue;
            }
            Err(error) => error,
        };
        handler.lost(&mut eventloop);
        vitals.set_up(false);
        if stop.is_cancelled() {
            return;
        }
        match connected_at.take().map(|at| at.elapsed() < SHORT_LIFE) {
            Some(true) => short_lives += 1,
            Some(false) => {
                short_lives = 0;
                retry = retries.build();
            }
            None => {}
        }
        let mut wait = retry.next().unwrap_or(LAST_RETRY);
        let retry_ms = wait.as_millis();
        let reason = reason(&error, short_lives);
        // A broker that takes a connection and ends it at once may do so for a revoked certificate: the indexer says.
        if let (Reason::Certificate(_) | Reason::TakenOver, Some(tls)) = (&reason, &tls) {
            tls.refused.notify_one();
        }
        match reason {
            Reason::Certificate(alert) => {
                error!(
                    purpose,
                    ?alert,
                    retry_ms,
                    "the broker refuses this box's certificate"
                );
            }
            Reason::TakenOver => {
                short_lives = 0;
                wait = STAND_BACK + wait;
                error!(
                    purpose,
                    retry_s = wait.as_secs(),
                    "the broker ends each connection at once: another box has connected under this box's id (give \
                     one of them another --box-id), or this box is revoked"
                );
            }
            Reason::Refused(code) => {
                error!(purpose, ?code, retry_ms, "the broker refuses this box");
            }
            Reason::Lost => warn!(purpose, %error, retry_ms, "no connection to the broker"),
        }
        vitals.rests();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
        vitals.polled();
        handler.connecting(&mut eventloop.options);
    }
}

enum Reason {
    TakenOver,
    Certificate(AlertDescription),
    Refused(ConnectReturnCode),
    Lost,
}

fn reason(error: &ConnectionError, short_lives: u32) -> Reason {
    match error {
        _ if short_lives >= SHORT_LIVES_MAX => Reason::TakenOver,
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => {
            alert(error).map_or(Reason::Lost, Reason::Certificate)
        }
        ConnectionError::Tls(TlsError::Io(error)) => {
            alert(error).map_or(Reason::Lost, Reason::Certificate)
        }
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => Reason::TakenOver,
        ConnectionError::ConnectionRefused(code) => Reason::Refused(*code),
        _ => Reason::Lost,
    }
}

/// What the broker's TLS has against this box's certificate. It comes with the first bytes after the handshake.
fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateRequired),
        ) => Some(*alert),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::{
        AsyncClient,
        mqttbytes::{QoS, v5::Publish},
    };

    use super::*;

    /// The client library itself would tell these events, and send these requests, on the next connection.
    #[test]
    fn nothing_of_a_lost_connection_is_carried_over() {
        let (client, mut eventloop) = AsyncClient::new(MqttOptions::new("b", "localhost", 1), 8);
        let publish = Publish::new("a/b", QoS::AtLeastOnce, "x", None);
        client.try_ack(&publish).unwrap();
        client
            .try_publish("a/b", QoS::AtLeastOnce, false, "x")
            .unwrap();
        let unread = Event::Incoming(Packet::Publish(publish.clone()));
        eventloop.state.events.push_back(unread);
        eventloop.state.collision = Some(publish);
        forget(&mut eventloop, true);
        assert!(eventloop.state.events.is_empty());
        assert!(eventloop.state.collision.is_none());
        assert!(eventloop.state.manual_acks);
        assert!(eventloop.pending.is_empty());
        eventloop.clean();
        assert!(eventloop.pending.is_empty(), "the queue was emptied too");
    }
}
