//! What the region gets to know of the box, as a Sparkplug B edge node on a connection of its own.
//!
//! [`node`] is the pure part (births, data by exception, sequence numbers), [`snapshot`] takes the values, and this
//! file puts both on the wire.

mod node;
mod snapshot;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use edge_protocol::{
    metric,
    sparkplug::{self, MessageType, NodeTopic, Payload, Value},
};
use parking_lot::Mutex;
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{LastWill, Packet, Publish},
    },
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::node::{Message, Node};
pub(crate) use self::snapshot::Source;
use crate::{health::Vitals, link, settings::Settings};

/// File in the data directory that holds the number of the last session, 0 to 255.
const SESSION_FILE: &str = "telemetry-session";

struct Shared {
    node: Mutex<Node>,
    client: AsyncClient,
    settings: Settings,
    vitals: Vitals,
}

impl Shared {
    fn topic(&self, message_type: MessageType) -> String {
        NodeTopic {
            region: self.settings.region.as_str(),
            message_type,
            box_id: self.settings.box_id.as_str(),
        }
        .to_string()
    }

    /// Births and data travel at QoS 0, not retained (Sparkplug 3.0, sections 6.4.20 and 6.4.21).
    fn publish(&self, message: &Message) {
        let (message_type, payload) = match message {
            Message::Birth(payload) => (MessageType::NodeBirth, payload),
            Message::Data(payload) => (MessageType::NodeData, payload),
        };
        let topic = self.topic(message_type);
        if self
            .client
            .try_publish(topic, QoS::AtMostOnce, false, payload.to_bytes())
            .is_err()
        {
            warn!("telemetry is dropped: the connection is down");
        }
    }

    fn session_file(&self) -> PathBuf {
        self.settings.data.join(SESSION_FILE)
    }
}

/// Reports until `stop` is cancelled, then says goodbye.
pub(crate) async fn report(
    settings: Settings,
    broker: link::Broker,
    mut source: Source,
    vitals: Vitals,
    stop: CancellationToken,
) {
    let options = link::options(&broker, "telemetry");
    let (client, eventloop) = AsyncClient::new(options, link::QUEUE);
    let session_file = settings.data.join(SESSION_FILE);
    let last_session = std::fs::read_to_string(&session_file)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let interval_s = settings.telemetry_interval_s;
    let interval = Duration::from_secs(interval_s.into());
    let heartbeat_observations = settings.heartbeat_s.div_ceil(interval_s);
    let shared = Arc::new(Shared {
        node: Mutex::new(Node::new(last_session, heartbeat_observations)),
        client,
        settings,
        vitals: vitals.clone(),
    });
    source = look(&shared, source).await;
    let closed = CancellationToken::new();
    let handler = Handler {
        shared: shared.clone(),
    };
    let link = tokio::spawn(link::keep_up(
        eventloop,
        handler,
        "telemetry",
        vitals.connection("telemetry"),
        broker.tls,
        closed.clone(),
    ));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => source = look(&shared, source).await,
            () = stop.cancelled() => break,
        }
    }
    closed.cancel();
    say_goodbye(&shared).await;
    let abort = link.abort_handle();
    if tokio::time::timeout(Duration::from_secs(1), link)
        .await
        .is_err()
    {
        abort.abort();
    }
}

/// Takes values on a thread that may wait for hardware, and publishes what is due.
async fn look(shared: &Arc<Shared>, source: Source) -> Source {
    let taken = tokio::task::spawn_blocking(move || {
        let mut source = source;
        let metrics = source.take();
        (source, metrics)
    });
    let (source, metrics) = match taken.await {
        Ok(taken) => taken,
        // Cancelled only when the runtime ends, and then nobody waits for the source.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    shared.vitals.set_hottest_millicelsius(hottest(&metrics));
    let mut node = shared.node.lock();
    if let Some(message) = node.observe(metrics, now_ms()) {
        shared.publish(&message);
    }
    source
}

/// The highest of all temperatures.
fn hottest(metrics: &[(String, Value)]) -> Option<i32> {
    let temperatures = metrics.iter().filter_map(|(name, value)| match value {
        Value::Int(millicelsius) if name.starts_with(metric::TEMPERATURE_PREFIX) => {
            i32::try_from(*millicelsius).ok()
        }
        _ => None,
    });
    temperatures.max()
}

/// A node that leaves on purpose publishes its death itself, as its will is then discarded
/// (Sparkplug 3.0, section 5.5).
async fn say_goodbye(shared: &Shared) {
    let death = shared.node.lock().death(now_ms());
    let topic = shared.topic(MessageType::NodeDeath);
    let goodbye = async {
        shared
            .client
            .publish(topic, QoS::AtLeastOnce, false, death.to_bytes())
            .await?;
        shared.client.disconnect().await
    };
    match tokio::time::timeout(Duration::from_secs(1), goodbye).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => warn!("the box leaves without telling the region; its will does"),
    }
}

struct Handler {
    shared: Arc<Shared>,
}

impl link::Handler for Handler {
    fn connecting(&mut self, options: &mut MqttOptions) {
        let mut node = self.shared.node.lock();
        let session = node.next_session();
        if let Err(error) = std::fs::write(self.shared.session_file(), session.to_string()) {
            warn!(%error, "cannot keep the number of the telemetry session");
        }
        let will = LastWill::new(
            self.shared.topic(MessageType::NodeDeath),
            node.death(now_ms()).to_bytes(),
            QoS::AtLeastOnce,
            false,
            None,
        );
        options.set_last_will(will);
    }

    fn connected(&mut self, _session_present: bool) {
        let commands = self.shared.topic(MessageType::NodeCommand);
        if self
            .shared
            .client
            .try_subscribe(commands, QoS::AtLeastOnce)
            .is_err()
        {
            warn!("cannot subscribe to the region's commands");
        }
        let birth = self.shared.node.lock().birth(now_ms());
        self.shared.publish(&birth);
    }

    fn event(&mut self, event: Event) {
        if let Event::Incoming(Packet::Publish(publish)) = event
            && asks_for_rebirth(&publish)
        {
            let birth = self.shared.node.lock().birth(now_ms());
            self.shared.publish(&birth);
        }
    }

    fn lost(&mut self, eventloop: &mut EventLoop) {
        link::forget(eventloop, false);
        self.shared.node.lock().disconnected();
    }
}

fn asks_for_rebirth(publish: &Publish) -> bool {
    match Payload::read(&publish.payload) {
        Ok(command) => command
            .metric(sparkplug::REBIRTH)
            .is_some_and(|metric| metric.meaning(None) == Some(Value::Bool(true))),
        Err(error) => {
            warn!(%error, "a command is not understood");
            false
        }
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        })
}
