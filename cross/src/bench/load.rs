//! An MQTT client that keeps a number of requests in flight and times their answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::runtime::Runtime;

use super::BenchError;
use super::runtime::histogram;

/// How long an answer may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Packets of up to 16 MiB.
const PACKET_MAX_BYTES: u32 = 16 << 20;

/// Requests to one responder.
pub struct Load {
    topic: String,
    reply: String,
    body: Vec<u8>,
    qos: QoS,
    client: AsyncClient,
    eventloop: EventLoop,
    runtime: Runtime,
    sent: u32,
    answer_bytes: usize,
}

/// What came back.
#[derive(Debug)]
pub struct Measured {
    /// From hand-over to the client library to the answer, in nanoseconds.
    pub nanoseconds: Histogram<u64>,
    /// Answers.
    pub answered: u64,
    /// Time that they took.
    pub time: Duration,
}

impl Measured {
    /// Answers a second.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 answers")]
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.time.as_secs_f64()
    }
}

/// Options of every client here.
#[must_use]
pub fn options(client_id: &str, port: u16) -> MqttOptions {
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
    options
        .set_network_options(network)
        .set_keep_alive(Duration::from_secs(20))
        .set_max_packet_size(Some(PACKET_MAX_BYTES))
        .set_outgoing_inflight_upper_limit(512);
    options
}

impl Load {
    /// A client of the broker at `port` that sends `body`, a raw tensor, to `topic`, which must end in `/{client}`.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub fn connect(port: u16, topic: &str, body: Vec<u8>, qos: QoS) -> Result<Self, BenchError> {
        let client_name = topic.rsplit('/').next().unwrap_or("bench").to_owned();
        let (client, eventloop) = AsyncClient::new(options(&client_name, port), 4096);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| BenchError::System("start the client's runtime", source))?;
        let reply = format!("edge/v1/bench/reply/{client_name}/r");
        let mut load = Self {
            topic: topic.to_owned(),
            reply,
            body,
            qos,
            client,
            eventloop,
            runtime,
            sent: 0,
            answer_bytes: 0,
        };
        let filter = load.reply.clone();
        // The queue is empty, so this cannot fail.
        let _queued = load.client.try_subscribe(filter, QoS::AtLeastOnce);
        let Self {
            runtime, eventloop, ..
        } = &mut load;
        runtime.block_on(async {
            loop {
                if let Event::Incoming(Packet::SubAck(_)) = eventloop.poll().await? {
                    return Ok::<_, BenchError>(());
                }
            }
        })?;
        Ok(load)
    }

    /// Keeps `in_flight` requests in flight for `time`, then waits for the last answers.
    ///
    /// # Errors
    /// When an answer is a refusal or does not come.
    pub fn run(&mut self, in_flight: usize, time: Duration) -> Result<Measured, BenchError> {
        let mut waiting: HashMap<u32, Instant> = HashMap::with_capacity(in_flight);
        let mut measured = Measured {
            nanoseconds: histogram(),
            answered: 0,
            time: Duration::ZERO,
        };
        let started = Instant::now();
        for _ in 0..in_flight {
            self.send(&mut waiting);
        }
        while !waiting.is_empty() {
            let publish = self.next_answer(measured.answered)?;
            let properties = publish.properties.unwrap_or_default();
            let correlation = properties.correlation_data.unwrap_or_default();
            let Some(sent) = correlation
                .as_ref()
                .try_into()
                .ok()
                .and_then(|bytes| waiting.remove(&u32::from_be_bytes(bytes)))
            else {
                continue;
            };
            let elapsed = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
            if let Some((_, status)) = properties
                .user_properties
                .into_iter()
                .find(|(name, value)| name == "status" && value != "200")
            {
                return Err(BenchError::Refused {
                    topic: self.topic.clone(),
                    status,
                    body: String::from_utf8_lossy(&publish.payload).into_owned(),
                });
            }
            measured.nanoseconds.saturating_record(elapsed);
            measured.answered += 1;
            measured.time = started.elapsed();
            if measured.time < time {
                self.send(&mut waiting);
            }
        }
        Ok(measured)
    }

    /// Sends a request every `repeat` until the first answer comes; returns when that was.
    ///
    /// # Errors
    /// When none comes.
    pub fn first_answer(&mut self, repeat: Duration) -> Result<Instant, BenchError> {
        let mut waiting = HashMap::new();
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            self.send(&mut waiting);
            let Self {
                runtime, eventloop, ..
            } = self;
            let answer = runtime
                .block_on(async { tokio::time::timeout(repeat, next_publish(eventloop)).await });
            match answer {
                Ok(Ok(publish)) => {
                    let answer_bytes = publish.payload.len();
                    let is_ok = publish.properties.is_some_and(|properties| {
                        properties
                            .user_properties
                            .iter()
                            .any(|(name, value)| name == "status" && value == "200")
                    });
                    if is_ok {
                        self.answer_bytes = answer_bytes;
                        return Ok(Instant::now());
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Err(self.silence(0))
    }

    /// Size of the body of the first answer.
    #[must_use]
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    fn send(&mut self, waiting: &mut HashMap<u32, Instant>) {
        self.sent = self.sent.wrapping_add(1);
        let properties = PublishProperties {
            response_topic: Some(self.reply.clone()),
            correlation_data: Some(self.sent.to_be_bytes().to_vec().into()),
            message_expiry_interval: Some(5),
            content_type: Some("application/octet-stream".into()),
            user_properties: vec![("inference-header-content-length".into(), "0".into())],
            ..PublishProperties::default()
        };
        // More room than requests in flight: it cannot be full.
        let _queued = self.client.try_publish_with_properties(
            self.topic.clone(),
            self.qos,
            false,
            self.body.clone(),
            properties,
        );
        waiting.insert(self.sent, Instant::now());
    }

    fn next_answer(
        &mut self,
        answered: u64,
    ) -> Result<rumqttc::v5::mqttbytes::v5::Publish, BenchError> {
        let Self {
            runtime, eventloop, ..
        } = self;
        let answer = runtime
            .block_on(async { tokio::time::timeout(PATIENCE, next_publish(eventloop)).await });
        match answer {
            Ok(publish) => publish,
            Err(_) => Err(self.silence(answered)),
        }
    }

    fn silence(&self, answered: u64) -> BenchError {
        BenchError::Silence {
            topic: self.topic.clone(),
            seconds: PATIENCE.as_secs(),
            answered,
        }
    }
}

async fn next_publish(
    eventloop: &mut EventLoop,
) -> Result<rumqttc::v5::mqttbytes::v5::Publish, BenchError> {
    loop {
        if let Event::Incoming(Packet::Publish(publish)) = eventloop.poll().await? {
            return Ok(publish);
        }
    }
}
