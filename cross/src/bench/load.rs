//! An MQTT client that keeps a number of requests in flight, or sends at random times, and times their answers.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
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
/// Message Expiry of requests, in seconds.
const EXPIRY_S: u32 = 30;
/// Number of the first request of the next connection.
static NEXT: AtomicU32 = AtomicU32::new(0);
/// Packets of up to 16 MiB.
const PACKET_MAX_BYTES: u32 = 16 << 20;

/// The body of a request and how it is written.
#[derive(Debug, Clone)]
pub struct Message {
    /// The body.
    pub body: Vec<u8>,
    /// Its content type.
    pub content_type: &'static str,
    /// Bytes of JSON in front of binary tensors.
    pub header_bytes: Option<usize>,
}

impl Message {
    /// One raw tensor.
    #[must_use]
    pub const fn raw(body: Vec<u8>) -> Self {
        Self {
            body,
            content_type: "application/octet-stream",
            header_bytes: Some(0),
        }
    }
}

/// Requests to one responder.
pub struct Load {
    topic: String,
    reply: String,
    message: Message,
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

/// What came back of requests sent at random times.
#[derive(Debug)]
pub struct Open {
    /// From hand-over to the client library to the answer, of those answered with 200, in nanoseconds.
    pub nanoseconds: Histogram<u64>,
    /// Requests sent.
    pub sent: u64,
    /// Answers with another status.
    pub refused: u64,
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// A pause between two arrivals that come `rate` times a second on average, independent of each other.
    #[allow(
        clippy::cast_precision_loss,
        reason = "53 bits are what a double holds"
    )]
    fn pause(&mut self, rate: f64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() / rate)
    }
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
        Self::connect_to_send(port, topic, Message::raw(body), qos)
    }

    /// The same with any message.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub fn connect_to_send(
        port: u16,
        topic: &str,
        message: Message,
        qos: QoS,
    ) -> Result<Self, BenchError> {
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
            message,
            qos,
            client,
            eventloop,
            runtime,
            // A box answers a number that it has seen from this client from its cache.
            sent: NEXT.fetch_add(1 << 24, Ordering::Relaxed),
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

    /// Sends at random times, `rate` times a second on average for `time`, whether answers come or not (an open loop);
    /// then waits for the last ones.
    ///
    /// # Errors
    /// When answers do not come.
    pub fn open_loop(&mut self, rate: f64, time: Duration) -> Result<Open, BenchError> {
        let mut open = Open {
            nanoseconds: histogram(),
            sent: 0,
            refused: 0,
        };
        let waiting = Mutex::new(HashMap::<u32, Instant>::new());
        let last = self.sent;
        let started = Instant::now();
        let mut random = Random(u64::from(last) + 1);
        thread::scope(|scope| {
            let (client, waiting) = (self.client.clone(), &waiting);
            let (topic, message, reply, qos) = (&self.topic, &self.message, &self.reply, self.qos);
            let sender = scope.spawn(move || {
                let (mut number, mut due) = (last, started + random.pause(rate));
                while due < started + time {
                    // Of a thread of its own, since it is finer than the timers of the client's.
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    number = number.wrapping_add(1);
                    let now = Instant::now();
                    if let Ok(mut waiting) = waiting.lock() {
                        waiting.insert(number, now);
                    }
                    let properties = properties(reply, number, message);
                    let _queued = client.try_publish_with_properties(
                        topic.clone(),
                        qos,
                        false,
                        message.body.clone(),
                        properties,
                    );
                    due += random.pause(rate);
                }
                number
            });
            let runtime = &self.runtime;
            let eventloop = &mut self.eventloop;
            let mut waited = Instant::now();
            loop {
                let is_over = sender.is_finished() && waiting.lock().is_ok_and(|w| w.is_empty());
                if is_over {
                    break;
                }
                if sender.is_finished() && waited.elapsed() > PATIENCE {
                    return Err(BenchError::Silence {
                        topic: self.topic.clone(),
                        seconds: PATIENCE.as_secs(),
                        answered: open.nanoseconds.len(),
                    });
                }
                let patience = Duration::from_millis(50);
                let next = runtime.block_on(async {
                    tokio::time::timeout(patience, next_publish(eventloop)).await
                });
                let publish = match next {
                    Err(_) => continue,
                    Ok(publish) => publish?,
                };
                waited = Instant::now();
                let properties = publish.properties.unwrap_or_default();
                let correlation = properties.correlation_data.unwrap_or_default();
                let sent = correlation.as_ref().try_into().ok().and_then(|bytes| {
                    let number = u32::from_be_bytes(bytes);
                    waiting.lock().ok()?.remove(&number)
                });
                let Some(sent) = sent else { continue };
                let mut user = properties.user_properties.iter();
                if user.any(|(name, value)| name == "status" && value == "200") {
                    let elapsed = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    open.nanoseconds.saturating_record(elapsed);
                } else {
                    open.refused += 1;
                }
            }
            let number = sender.join().unwrap_or(last);
            open.sent = u64::from(number.wrapping_sub(last));
            self.sent = number;
            Ok(open)
        })
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
        let properties = properties(&self.reply, self.sent, &self.message);
        // More room than requests in flight: it cannot be full.
        let _queued = self.client.try_publish_with_properties(
            self.topic.clone(),
            self.qos,
            false,
            self.message.body.clone(),
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

fn properties(reply: &str, number: u32, message: &Message) -> PublishProperties {
    let header = message.header_bytes.map(|bytes| bytes.to_string());
    let header = header.map(|bytes| ("inference-header-content-length".into(), bytes));
    PublishProperties {
        response_topic: Some(reply.to_owned()),
        correlation_data: Some(number.to_be_bytes().to_vec().into()),
        message_expiry_interval: Some(EXPIRY_S),
        content_type: Some(message.content_type.into()),
        user_properties: header.into_iter().collect(),
        ..PublishProperties::default()
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
