//! A region and its boxes for tests: the real indexer with its real broker, and boxes that are real MQTT clients.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate and uses its part"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use edge_indexer::broker::Listeners;
use edge_indexer::run::Indexer;
use edge_indexer::settings::{BrokerChoice, Settings};
use edge_indexer::store::StoreSettings;
use edge_protocol::BrokerUrl;
use edge_protocol::sparkplug::{BD_SEQ, Metric, Payload, REBIRTH, Value};
use edge_protocol::{Id, metric};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, ConnectReturnCode, LastWill};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions};
use serde_json::Value as Json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Longest time that a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub const REGION: &str = "home";

pub fn now_ms() -> u64 {
    edge_indexer::live::now_ms()
}

pub fn settings(folder: &Path) -> Settings {
    Settings {
        region: Id::new(REGION).unwrap(),
        indexer: Id::new("indexer").unwrap(),
        broker: BrokerChoice::Embedded(Listeners {
            tls: None,
            insecure: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        }),
        identity: None,
        https: None,
        hosts: Vec::new(),
        http: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: StoreSettings {
            folder: folder.to_owned(),
            limit_mb: 64,
            history_hours: 24,
        },
        boxes_limit: 100_000,
    }
}

/// A client that goes straight to the indexer, whatever proxy the machine has.
fn http_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

pub struct World {
    pub indexer: Indexer,
    pub http: reqwest::Client,
}

impl World {
    pub async fn start(settings: Settings) -> Self {
        let indexer = Indexer::start(settings).await.unwrap();
        let world = Self {
            indexer,
            http: http_client().timeout(DEADLINE).build().unwrap(),
        };
        world
            .wait("the indexer is healthy", "/healthz", |health| {
                health["status"] == "ok"
            })
            .await;
        world
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.indexer.http())
    }

    pub async fn get(&self, path: &str) -> (u16, Json) {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    /// Reads `path` again with each update of the live stream until `wanted` holds.
    pub async fn wait(&self, what: &str, path: &str, wanted: impl Fn(&Json) -> bool) -> Json {
        let mut last = Json::Null;
        let waiting = async {
            let url = self.url("/api/v1/stream");
            let client = http_client().build().unwrap(); // a stream has no time limit
            let mut stream = client.get(url).send().await.unwrap();
            loop {
                let (_, json) = self.get(path).await;
                if wanted(&json) {
                    return json;
                }
                last = json;
                stream.chunk().await.unwrap().expect("the stream goes on");
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(json) => json,
            Err(_) => panic!("waited in vain until {what}; {path} says {last}"),
        }
    }

    pub async fn wait_online(&self, name: &str, online: bool) -> Json {
        let what = format!("{name} is online: {online}");
        self.wait(&what, &format!("/api/v1/boxes/{name}"), |json| {
            json["online"] == online
        })
        .await
    }

    pub async fn wait_event(&self, kind: &str) -> Json {
        let events = self
            .wait(kind, "/api/v1/events", |events| {
                events
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|event| event["kind"] == kind)
            })
            .await;
        events
            .as_array()
            .unwrap()
            .iter()
            .find(|event| event["kind"] == kind)
            .unwrap()
            .clone()
    }

    pub async fn stop(self) {
        tokio::time::timeout(DEADLINE, self.indexer.stop())
            .await
            .unwrap();
    }
}

pub fn payload(seq: Option<u64>, metrics: &[(&str, Value)]) -> Payload {
    let at_ms = now_ms();
    Payload {
        timestamp: Some(at_ms),
        metrics: metrics
            .iter()
            .map(|(name, value)| Metric::new(*name, value.clone(), at_ms))
            .collect(),
        seq,
    }
}

pub fn birth(bd_seq: u64, instance: u64, more: &[(&str, Value)]) -> Payload {
    let mut metrics = vec![
        (BD_SEQ, Value::UInt(bd_seq)),
        (REBIRTH, Value::Bool(false)),
        (metric::BOARD, Value::Text("host-sim".into())),
        (metric::AGENT_VERSION, Value::Text("0.1.0".into())),
        (metric::INSTANCE, Value::UInt(instance)),
        (metric::UPTIME_S, Value::UInt(60)),
    ];
    metrics.extend_from_slice(more);
    payload(Some(0), &metrics)
}

/// A box: an MQTT connection with a Sparkplug will. The test drives it: nothing happens between calls.
pub struct FakeBox {
    name: String,
    client: AsyncClient,
    connection: EventLoop,
    pub bd_seq: u64,
}

impl FakeBox {
    /// Connects with `bd_seq` in the will.
    pub async fn connect(broker: &BrokerUrl, name: &str, bd_seq: u64) -> Self {
        Self::connect_as(broker, name, &format!("{name}-telemetry"), bd_seq).await
    }

    pub async fn connect_as(broker: &BrokerUrl, name: &str, client_id: &str, bd_seq: u64) -> Self {
        let mut options = MqttOptions::new(client_id, broker.host.clone(), broker.port);
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        let mut properties = ConnectProperties::new();
        properties.max_packet_size = Some(16 << 20);
        let death = payload(None, &[(BD_SEQ, Value::UInt(bd_seq))]).to_bytes();
        options
            .set_clean_start(true)
            .set_connect_properties(properties)
            .set_network_options(network)
            .set_outgoing_inflight_upper_limit(64)
            .set_last_will(LastWill::new(
                format!("spBv1.0/{REGION}/NDEATH/{name}"),
                death,
                QoS::AtLeastOnce,
                false,
                None,
            ));
        let (client, connection) = AsyncClient::new(options, 64);
        let mut fake = Self {
            name: name.to_owned(),
            client,
            connection,
            bd_seq,
        };
        fake.connected().await;
        let commands = format!("spBv1.0/{REGION}/NCMD/{name}");
        fake.client
            .subscribe(commands, QoS::AtLeastOnce)
            .await
            .unwrap();
        fake.until("SUBACK", |event| {
            matches!(event, Event::Incoming(Incoming::SubAck(_)))
        })
        .await;
        fake
    }

    /// RMQTT answers "unavailable, try again" while it still ends an earlier connection of the same client.
    async fn connected(&mut self) {
        let polling = async {
            loop {
                match self.connection.poll().await {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => return,
                    Ok(_)
                    | Err(ConnectionError::ConnectionRefused(
                        ConnectReturnCode::ServerUnavailable,
                    )) => {}
                    Err(error) => panic!("{} cannot connect: {error}", self.name),
                }
            }
        };
        tokio::time::timeout(DEADLINE, polling).await.unwrap();
    }

    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let polling = async {
            loop {
                let event = self.connection.poll().await.unwrap();
                if wanted(&event) {
                    return event;
                }
            }
        };
        match tokio::time::timeout(DEADLINE, polling).await {
            Ok(event) => event,
            Err(_) => panic!("{} waited in vain for {what}", self.name),
        }
    }

    pub async fn publish(&mut self, topic: &str, bytes: Vec<u8>) {
        self.client
            .publish(topic, QoS::AtMostOnce, false, bytes)
            .await
            .unwrap();
        self.until("its publish to leave", |event| {
            matches!(event, Event::Outgoing(Outgoing::Publish(_)))
        })
        .await;
    }

    pub async fn send(&mut self, kind: &str, payload: &Payload) {
        let topic = format!("spBv1.0/{REGION}/{kind}/{}", self.name);
        self.publish(&topic, payload.to_bytes()).await;
    }

    pub async fn birth(&mut self, instance: u64, more: &[(&str, Value)]) {
        let payload = birth(self.bd_seq, instance, more);
        self.send("NBIRTH", &payload).await;
    }

    pub async fn data(&mut self, seq: u64, metrics: &[(&str, Value)]) {
        self.send("NDATA", &payload(Some(seq), metrics)).await;
    }

    /// Waits for a command to be born again.
    pub async fn asked_for_birth(&mut self) {
        self.until("a rebirth command", |event| match event {
            Event::Incoming(Incoming::Publish(publish)) => Payload::read(&publish.payload)
                .is_ok_and(|payload| {
                    payload
                        .metric(REBIRTH)
                        .and_then(|metric| metric.meaning(None))
                        == Some(Value::Bool(true))
                }),
            _ => false,
        })
        .await;
    }

    /// Drops the connection without a word, as a power cut does.
    pub fn cut(self) {}
}

/// A way to a broker that can be cut and mended.
pub struct Proxy {
    at: SocketAddr,
    to: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(broker: &BrokerUrl) -> Self {
        let to = format!("{}:{}", broker.host, broker.port).parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let task = tokio::spawn(forward(listener, to));
        Self { at, to, task }
    }

    pub fn address(&self) -> BrokerUrl {
        BrokerUrl {
            host: self.at.ip().to_string(),
            port: self.at.port(),
            tls: false,
        }
    }

    /// Ends all connections and takes no new ones.
    pub fn cut(&self) {
        self.task.abort();
    }

    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(self.at).await.unwrap();
        self.task = tokio::spawn(forward(listener, self.to));
    }
}

async fn forward(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new(); // dropped, and so ended, with this task
    while let Ok((mut from, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut to) = TcpStream::connect(to).await {
                drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
            }
        });
    }
}
