//! The sensor's connection: one task that polls it, subscribes after every connect, reads answers the moment they
//! come in, and tells what happened. It decides nothing about requests.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edge_protocol::limit::PACKET_MAX_BYTES;
use rumqttc::{
    NetworkOptions, Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event as Polled, EventLoop, Incoming, MqttOptions,
        StateError,
        mqttbytes::{
            QoS,
            v5::{
                ConnectReturnCode, DisconnectReasonCode, PubAckReason, Publish, PublishProperties,
                SubscribeReasonCode,
            },
        },
    },
};
use rustls::ClientConfig;
use tokio::{sync::mpsc, task::JoinHandle, time};

use super::ledger::Verdict;
use edge_protocol::BrokerUrl;

/// Pause before the second attempt to connect; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A connection that lasted so long was a good one.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// So many connections in a row that did not last are no accident.
const SHORT_LIVES_MAX: u32 = 5;
/// Answers that may wait to be counted.
const EVENTS_MAX: usize = 1_024;
/// How long a goodbye to the broker may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Why there is no connection and will be none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers at the broker's address.
    #[error(
        "the broker at {broker} was not reached for {waited_s} s: {last}; check the address, that the broker runs and that nothing blocks the port"
    )]
    Unreachable {
        /// The broker.
        broker: BrokerUrl,
        /// How long it was tried.
        waited_s: u64,
        /// What the last attempt said.
        last: String,
    },
    /// The broker does not want this client.
    #[error("the broker at {broker} refused client {client}: {reason}")]
    Refused {
        /// The broker.
        broker: BrokerUrl,
        /// The client's id.
        client: String,
        /// The broker's reason.
        reason: String,
    },
    /// Another client took the id.
    #[error("another connection took over client id {client}; give each sensor its own --client")]
    TakenOver {
        /// The client's id.
        client: String,
    },
    /// The broker accepts connections and closes them. Two clients of one id look like this where the broker does not
    /// say so, or says so in a packet without properties, which rumqttc 0.25 does not read.
    #[error(
        "the broker at {broker} closed {SHORT_LIVES_MAX} connections soon after accepting them: probably another client uses the id {client}; give each sensor its own --client"
    )]
    Unstable {
        /// The broker.
        broker: BrokerUrl,
        /// The client's id.
        client: String,
    },
    /// The answers cannot be received.
    #[error("the broker at {broker} refused the subscription to {filter}: {reason}")]
    Subscription {
        /// The broker.
        broker: BrokerUrl,
        /// The filter.
        filter: String,
        /// The broker's reason.
        reason: String,
    },
}

/// What happened on the link.
#[derive(Debug)]
pub enum Event {
    /// Connected and subscribed.
    Up,
    /// Not connected; the link goes on trying.
    Down(String),
    /// An answer to one of this run's requests.
    Answer {
        /// When it was read off the connection.
        at: Instant,
        /// Which request it answers.
        number: u64,
        /// What it says.
        verdict: Verdict,
    },
    /// The broker took a request and passed it to nobody, or refused it.
    NotDelivered(PubAckReason),
    /// The link is over.
    Fatal(LinkError),
}

/// What a link needs to know.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// The broker.
    pub broker: BrokerUrl,
    /// MQTT client id.
    pub client: String,
    /// Where answers come in.
    pub reply_filter: String,
    /// Quality of service of requests and answers.
    pub qos: QoS,
    /// Requests that wait for their answers at most.
    pub in_flight: u16,
    /// What is shown and trusted, where the broker is reached over TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A connection that restores itself.
#[derive(Debug)]
pub struct Link {
    client: AsyncClient,
    qos: QoS,
    events: mpsc::Receiver<Event>,
    poller: JoinHandle<()>,
}

impl Link {
    /// Starts connecting. `read` tells what an incoming message answers.
    #[must_use]
    pub fn open<R>(settings: LinkSettings, read: R) -> Self
    where
        R: Fn(&Publish) -> Option<(u64, Verdict)> + Send + 'static,
    {
        let mut options = MqttOptions::new(
            &settings.client,
            &settings.broker.host,
            settings.broker.port,
        );
        if let Some(tls) = &settings.tls {
            let config = TlsConfiguration::Rustls(Arc::clone(tls));
            options.set_transport(Transport::tls_with_config(config));
        }
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        // The client allocates a slot for each message it may have unacknowledged: 16 MB without a limit.
        let unacknowledged_max = settings.in_flight.saturating_add(32).max(64);
        options
            .set_network_options(network)
            .set_clean_start(true)
            .set_keep_alive(Duration::from_secs(15))
            .set_max_packet_size(Some(PACKET_MAX_BYTES))
            .set_outgoing_inflight_upper_limit(unacknowledged_max);
        // Room for every request and its repeat.
        let queue_max = usize::from(settings.in_flight) * 2 + 16;
        let (client, eventloop) = AsyncClient::new(options, queue_max);
        let (events_tx, events) = mpsc::channel(EVENTS_MAX);
        let qos = settings.qos;
        let poller = Poller {
            settings,
            client: client.clone(),
            eventloop,
            events: events_tx,
            read,
            up_since: None,
            short_lives: 0,
        };
        Self {
            client,
            qos,
            events,
            poller: tokio::spawn(poller.run()),
        }
    }

    /// What happened next; `None` after [`Event::Fatal`].
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// What has happened already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Queues a message. When the queue is full, because the connection does not move, the message is dropped: the
    /// caller sends again what is not answered.
    pub fn send(&self, topic: &str, body: Bytes, properties: PublishProperties) {
        let queued = self
            .client
            .try_publish_with_properties(topic, self.qos, false, body, properties);
        if queued.is_err() {
            tracing::debug!(topic, "send queue full, request waits for its repeat");
        }
    }

    /// Says goodbye to the broker, which then forgets the session.
    pub async fn close(mut self) {
        let is_asked = self.client.try_disconnect().is_ok();
        // The poller may be waiting for room in the queue of events.
        self.events.close();
        if !is_asked || time::timeout(GOODBYE_MAX, &mut self.poller).await.is_err() {
            self.poller.abort();
        }
    }
}

struct Poller<R> {
    settings: LinkSettings,
    client: AsyncClient,
    eventloop: EventLoop,
    events: mpsc::Sender<Event>,
    read: R,
    up_since: Option<Instant>,
    /// Connections in a row that were closed before [`STABLE_AFTER`].
    short_lives: u32,
}

impl<R: Fn(&Publish) -> Option<(u64, Verdict)>> Poller<R> {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut must_subscribe = false;
        loop {
            // Never waiting here: only this task empties the queue that a subscription goes into.
            if must_subscribe {
                let LinkSettings {
                    reply_filter, qos, ..
                } = &self.settings;
                must_subscribe = self.client.try_subscribe(reply_filter, *qos).is_err();
            }
            match self.eventloop.poll().await {
                Ok(Polled::Outgoing(Outgoing::Disconnect)) => return,
                Ok(Polled::Outgoing(_)) => {}
                Ok(Polled::Incoming(Incoming::ConnAck(_))) => must_subscribe = true,
                Ok(Polled::Incoming(packet)) => match self.understand(packet) {
                    Some(fatal @ Event::Fatal(_)) => return tell(&self.events, fatal).await,
                    Some(event) => {
                        if matches!(event, Event::Up) {
                            self.up_since = Some(Instant::now());
                        }
                        tell(&self.events, event).await;
                    }
                    None => {}
                },
                Err(error) => {
                    must_subscribe = false;
                    // What was not acknowledged is sent again by the one who asked for it, with the time that is left.
                    self.eventloop.pending.clear();
                    self.eventloop.state.collision = None;
                    if let Some(up_since) = self.up_since.take() {
                        if up_since.elapsed() < STABLE_AFTER {
                            self.short_lives += 1;
                        } else {
                            self.short_lives = 0;
                            backoff = BACKOFF_MIN;
                        }
                    }
                    if let Some(fatal) = self.fatal(&error) {
                        return tell(&self.events, Event::Fatal(fatal)).await;
                    }
                    tell(&self.events, Event::Down(words(&error))).await;
                    time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn understand(&self, packet: Incoming) -> Option<Event> {
        match packet {
            Incoming::Publish(answer) => {
                let at = Instant::now();
                let (number, verdict) = (self.read)(&answer)?;
                Some(Event::Answer {
                    at,
                    number,
                    verdict,
                })
            }
            Incoming::PubAck(ack) if ack.reason != PubAckReason::Success => {
                Some(Event::NotDelivered(ack.reason))
            }
            Incoming::SubAck(ack) => Some(match ack.return_codes.first() {
                Some(SubscribeReasonCode::Success(_)) => Event::Up,
                reason => Event::Fatal(LinkError::Subscription {
                    broker: self.settings.broker.clone(),
                    filter: self.settings.reply_filter.clone(),
                    reason: reason.map_or("no reason".to_owned(), |r| format!("{r:?}")),
                }),
            }),
            _ => None,
        }
    }

    /// The error that no further attempt would cure.
    fn fatal(&self, error: &ConnectionError) -> Option<LinkError> {
        let client = self.settings.client.clone();
        if self.short_lives >= SHORT_LIVES_MAX {
            return Some(LinkError::Unstable {
                broker: self.settings.broker.clone(),
                client,
            });
        }
        match error {
            ConnectionError::ConnectionRefused(
                code @ (ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::Banned
                | ConnectReturnCode::BadClientId
                | ConnectReturnCode::ClientIdentifierNotValid
                | ConnectReturnCode::BadAuthenticationMethod
                | ConnectReturnCode::RefusedProtocolVersion
                | ConnectReturnCode::UnsupportedProtocolVersion),
            ) => Some(LinkError::Refused {
                broker: self.settings.broker.clone(),
                client,
                reason: format!("{code:?}"),
            }),
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code: DisconnectReasonCode::SessionTakenOver,
                ..
            }) => Some(LinkError::TakenOver { client }),
            _ => None,
        }
    }
}

/// After [`Link::close`] nobody listens any more; polling goes on, for the goodbye.
async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    if events.send(event).await.is_err() {
        tracing::trace!("event after the end");
    }
}

/// What went wrong, without the client library's own vocabulary where there is a plainer cause.
fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::Timeout(_) => "no answer to the connection request".to_owned(),
        other => other.to_string(),
    }
}
