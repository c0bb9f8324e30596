//! The Sparkplug host application: holds the MQTT connection, tells boxes that the host is there, hands on what
//! they say, and sends them commands. It knows nothing of what the messages mean.
//!
//! Two tasks: one only polls the connection, the other publishes, because publishing from the polling task
//! deadlocks when the queue is full.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use edge_protocol::sparkplug::{
    HostState, MessageType, Metric, NodeTopic, Payload, REBIRTH, Value, state_topic,
};
use edge_protocol::{BrokerUrl, Id, limit};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ClientError, Event, EventLoop, Incoming, MqttOptions};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::live::now_ms;

/// Messages between the connection and the region.
pub const INBOX: usize = 8_192;
/// Commands that wait to be sent to boxes; a rebirth that does not fit is asked for again at the next gap.
pub const COMMANDS: usize = 4_096;
/// Publishes that wait for the polling task.
const REQUESTS: usize = 64;
/// Unacknowledged publishes of the host. rumqttc reserves room for all of them.
const IN_FLIGHT: u16 = 256;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the host waits for its farewell to come back from the broker.
const FAREWELL: Duration = Duration::from_secs(2);

/// Who the host is and where its broker is.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// The region: Sparkplug's group id.
    pub region: Id,
    /// The indexer: Sparkplug's host id.
    pub indexer: Id,
    /// The broker.
    pub broker: BrokerUrl,
    /// What the host shows and trusts, where the broker is reached over TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// What the connection says.
#[derive(Debug)]
pub enum Heard {
    /// The broker answers, and what boxes say from now on is heard.
    Connected,
    /// The broker is out of reach; the host keeps trying.
    Lost(String),
    /// A message of a box.
    Message {
        /// When it arrived, in milliseconds since 1970.
        at_ms: u64,
        /// Its topic, as bytes that may be no text.
        topic: Bytes,
        /// Its payload.
        payload: Bytes,
    },
}

/// What the host shall do.
#[derive(Debug)]
pub enum Command {
    /// Ask this box for a new birth.
    Rebirth(Id),
}

/// What the polling task tells the publishing one. A watch never blocks the sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Link {
    /// Connections made; the timestamp is that of the current one's will.
    connections: u64,
    timestamp: u64,
    connected: bool,
    /// Messages seen that say this host is offline.
    said_offline: u64,
}

/// The running host.
#[derive(Debug)]
pub struct Host {
    publisher: JoinHandle<()>,
    poller: JoinHandle<()>,
}

impl Host {
    /// Starts to connect, and keeps trying until `shutdown`.
    #[must_use]
    pub fn start(
        settings: HostSettings,
        heard: mpsc::Sender<Heard>,
        commands: mpsc::Receiver<Command>,
        shutdown: CancellationToken,
    ) -> Self {
        let (client, connection) = AsyncClient::new(options(&settings), REQUESTS);
        let (link_tx, link) = watch::channel(Link::default());
        let state_topic = state_topic(&settings.indexer);
        let poller = Poller {
            connection,
            broker: settings.broker.clone(),
            state_topic: state_topic.clone(),
            link: link_tx,
            heard,
            subscribing: false,
        };
        let publisher = Publisher {
            client,
            settings,
            state_topic,
            link,
            commands,
        };
        Self {
            poller: tokio::spawn(poller.run(shutdown.clone())),
            publisher: tokio::spawn(publisher.run(shutdown)),
        }
    }

    /// Waits until the host has said farewell; call after its `shutdown` was cancelled.
    pub async fn stopped(self) {
        if self.publisher.await.is_err() {
            tracing::error!("the host's publisher panicked");
        }
        self.poller.abort();
    }
}

fn options(settings: &HostSettings) -> MqttOptions {
    let BrokerUrl { host, port, .. } = &settings.broker;
    // '.' cannot be in a name: the indexer's own name stays a prefix that the access list can rely on.
    let client_id = format!("{}.host", settings.indexer);
    let mut options = MqttOptions::new(client_id, host, *port);
    if let Some(tls) = &settings.tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
            Arc::clone(tls),
        )));
    }
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(limit::PACKET_MAX_BYTES);
    properties.receive_maximum = Some(limit::RECEIVE_MAX);
    properties.session_expiry_interval = Some(0);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_outgoing_inflight_upper_limit(IN_FLIGHT)
        .set_connect_properties(properties)
        .set_network_options(network);
    options
}

fn state(online: bool, timestamp: u64) -> Vec<u8> {
    let state = HostState { online, timestamp };
    serde_json::to_vec(&state).unwrap_or_default() // two plain fields: cannot fail
}

struct Poller {
    connection: EventLoop,
    broker: BrokerUrl,
    state_topic: String,
    link: watch::Sender<Link>,
    heard: mpsc::Sender<Heard>,
    /// Connected, and not yet subscribed.
    subscribing: bool,
}

impl Poller {
    async fn run(mut self, shutdown: CancellationToken) {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times();
        let mut delays = backoff.build();
        self.renew_will();
        loop {
            match self.connection.poll().await {
                // On its way: the broker need not close the connection for this to be the end.
                Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                    self.link.send_modify(|link| link.connected = false);
                    return;
                }
                Ok(event) => {
                    if let Event::Incoming(Incoming::ConnAck(_)) = event {
                        delays = backoff.build();
                    }
                    if self.take(event).await.is_err() {
                        return; // nobody listens any more
                    }
                }
                Err(error) => {
                    if shutdown.is_cancelled() {
                        self.link.send_modify(|link| link.connected = false);
                        return;
                    }
                    let was_connected = self.link.borrow().connected;
                    self.link.send_modify(|link| link.connected = false);
                    let broker = &self.broker;
                    if was_connected {
                        tracing::warn!(%broker, %error, "lost the broker");
                        let why = format!("lost the broker {broker}: {error}");
                        if self.heard.send(Heard::Lost(why)).await.is_err() {
                            return;
                        }
                    } else {
                        tracing::warn!(%broker, %error, "cannot reach the broker, will try again");
                    }
                    self.renew_will();
                    let delay = delays.next().unwrap_or(Duration::from_secs(5));
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = shutdown.cancelled() => return,
                    }
                }
            }
        }
    }

    /// The will carries the time of the birth that follows it (Sparkplug B 3.0, section 5.12).
    fn renew_will(&mut self) {
        let timestamp = now_ms();
        let will = LastWill::new(
            self.state_topic.as_str(),
            state(false, timestamp),
            QoS::AtLeastOnce,
            true,
            None,
        );
        self.connection.options.set_last_will(will);
        self.link.send_modify(|link| link.timestamp = timestamp);
    }

    async fn take(&mut self, event: Event) -> Result<(), mpsc::error::SendError<Heard>> {
        match event {
            Event::Incoming(Incoming::ConnAck(_)) => {
                tracing::debug!(broker = %self.broker, "connected");
                self.link.send_modify(|link| {
                    link.connections += 1;
                    link.connected = true;
                });
                self.subscribing = true;
                Ok(())
            }
            // The subscription to the region is the first that the publisher makes.
            Event::Incoming(Incoming::SubAck(answer)) if self.subscribing => {
                self.subscribing = false;
                if matches!(
                    answer.return_codes.as_slice(),
                    [SubscribeReasonCode::Success(_)]
                ) {
                    return self.heard.send(Heard::Connected).await;
                }
                tracing::error!(
                    broker = %self.broker,
                    reason = ?answer.return_codes,
                    "the broker refuses the subscription to the region; let this indexer read spBv1.0/#"
                );
                Ok(())
            }
            Event::Incoming(Incoming::Publish(publish)) => {
                if publish.topic == self.state_topic.as_bytes() {
                    let offline = serde_json::from_slice::<HostState>(&publish.payload)
                        .is_ok_and(|state| !state.online);
                    if offline {
                        self.link.send_modify(|link| link.said_offline += 1);
                    }
                    return Ok(());
                }
                self.heard
                    .send(Heard::Message {
                        at_ms: now_ms(),
                        topic: publish.topic,
                        payload: publish.payload,
                    })
                    .await
            }
            _ => Ok(()),
        }
    }
}

struct Publisher {
    client: AsyncClient,
    settings: HostSettings,
    state_topic: String,
    link: watch::Receiver<Link>,
    commands: mpsc::Receiver<Command>,
}

impl Publisher {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut seen = Link::default();
        loop {
            let done = tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = *self.link.borrow_and_update();
                    let done = self.follow(seen, now).await;
                    seen = now;
                    done
                }
                command = self.commands.recv() => match command {
                    Some(Command::Rebirth(box_id)) if seen.connected => self.rebirth(&box_id).await,
                    Some(Command::Rebirth(_)) => Ok(()),
                    None => break,
                },
            };
            if let Err(error) = done {
                tracing::error!(%error, "the broker's connection takes no more publishes");
                return;
            }
        }
        self.farewell().await;
    }

    async fn follow(&self, before: Link, now: Link) -> Result<(), ClientError> {
        if !now.connected {
            return Ok(());
        }
        if now.connections != before.connections {
            let filter = format!("spBv1.0/{}/#", self.settings.region);
            self.client.subscribe(filter, QoS::AtLeastOnce).await?;
            self.client
                .subscribe(self.state_topic.as_str(), QoS::AtLeastOnce)
                .await?;
            return self.say(true, now.timestamp).await;
        }
        if now.said_offline != before.said_offline {
            // The will of an earlier connection came after this one's birth: correct it.
            return self.say(true, now.timestamp).await;
        }
        Ok(())
    }

    async fn say(&self, online: bool, timestamp: u64) -> Result<(), ClientError> {
        let topic = self.state_topic.as_str();
        self.client
            .publish(topic, QoS::AtLeastOnce, true, state(online, timestamp))
            .await
    }

    async fn rebirth(&self, box_id: &Id) -> Result<(), ClientError> {
        let at_ms = now_ms();
        let topic = NodeTopic {
            region: self.settings.region.as_str(),
            message_type: MessageType::NodeCommand,
            box_id: box_id.as_str(),
        };
        let payload = Payload {
            timestamp: Some(at_ms),
            metrics: vec![Metric::new(REBIRTH, Value::Bool(true), at_ms)],
            seq: None,
        };
        self.client
            .publish(
                topic.to_string(),
                QoS::AtMostOnce,
                false,
                payload.to_bytes(),
            )
            .await
    }

    /// Says that the host is offline and waits until the broker has sent that back, then disconnects. Disconnecting
    /// at once could lose the message: unread input makes the kernel reset the connection.
    async fn farewell(mut self) {
        let link = *self.link.borrow_and_update();
        if !link.connected {
            return;
        }
        let heard_back = async {
            self.say(false, link.timestamp).await.ok()?;
            self.link
                .wait_for(|now| !now.connected || now.said_offline > link.said_offline)
                .await
                .ok()?;
            self.client.disconnect().await.ok()?;
            self.link.wait_for(|now| !now.connected).await.ok()?;
            Some(())
        };
        if tokio::time::timeout(FAREWELL, heard_back).await.is_err() {
            tracing::warn!("the broker did not confirm the farewell in time");
        }
    }
}
