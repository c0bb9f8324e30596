//! A box that answers as the protocol says, or misbehaves as told.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use edge_protocol::{
    Datatype, Id,
    oip::{self, Answer, Body, Encoding, Inputs, Request, Tensor},
    property,
    topic::SharedInferFilter,
};
use rumqttc::{
    NetworkOptions,
    v5::{
        Client, Connection, Event, Incoming, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{Publish, PublishProperties},
        },
    },
};

use super::{MODEL, REGION};

const WAIT_MAX: Duration = Duration::from_secs(20);

/// How a box behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers each request once.
    Honest,
    /// Loses the very first message, answers everything after it.
    LosesFirst,
    /// Answers each request twice.
    AnswersTwice,
    /// Refuses each request once with 503 and `retry-after-ms` 50.
    BusyOnce,
    /// Refuses each request every time, with `retry-after-ms` 300.
    AlwaysBusy,
    /// Answers nothing.
    Silent,
    /// Answers 400.
    Refuses,
}

/// A running box; it ends with the value.
pub struct FakeBox {
    client: Client,
    seen: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl FakeBox {
    /// Starts a box and waits until it is subscribed.
    pub fn start(port: u16, manner: Manner) -> Self {
        let mut options = MqttOptions::new("box-1", "127.0.0.1", port);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options
            .set_network_options(network)
            .set_max_packet_size(Some(1 << 20))
            .set_outgoing_inflight_upper_limit(200);
        let (client, connection) = Client::new(options, 2_000);
        let (ready_tx, ready) = mpsc::channel();
        let seen = Arc::new(AtomicU64::new(0));
        let serving = Serving {
            client: client.clone(),
            manner,
            seen: Arc::clone(&seen),
            known: HashSet::new(),
        };
        let thread = thread::spawn(move || serving.run(connection, &ready_tx));
        ready
            .recv_timeout(WAIT_MAX)
            .expect("the box subscribes in time");
        Self {
            client,
            seen,
            thread: Some(thread),
        }
    }

    /// Waits until the box has received `count` messages.
    pub fn wait_until_seen(&self, count: u64) {
        let deadline = Instant::now() + WAIT_MAX;
        while self.seen.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "the box gets no requests");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for FakeBox {
    fn drop(&mut self) {
        if self.client.try_disconnect().is_ok()
            && let Some(thread) = self.thread.take()
        {
            thread.join().ok();
        }
    }
}

struct Serving {
    client: Client,
    manner: Manner,
    seen: Arc<AtomicU64>,
    /// Correlations received so far.
    known: HashSet<Bytes>,
}

impl Serving {
    fn run(mut self, mut connection: Connection, ready: &mpsc::Sender<()>) {
        let region = Id::new(REGION).unwrap();
        let model = Id::new(MODEL).unwrap();
        let filter = SharedInferFilter {
            region: &region,
            model: &model,
        };
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    self.client
                        .try_subscribe(filter.to_string(), QoS::AtLeastOnce)
                        .unwrap();
                }
                // After a reconnect nobody waits for it any more.
                Ok(Event::Incoming(Incoming::SubAck(_))) => ready.send(()).unwrap_or(()),
                Ok(Event::Incoming(Incoming::Publish(request))) => self.serve(&request),
                Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
                Ok(_) => {}
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn serve(&mut self, request: &Publish) {
        let properties = request.properties.as_ref().unwrap();
        let correlation = properties.correlation_data.clone().unwrap();
        assert!(properties.message_expiry_interval.is_some());
        let is_first_message = self.seen.fetch_add(1, Ordering::Relaxed) == 0;
        let is_new = self.known.insert(correlation.clone());
        let header_length = find(properties, property::INFERENCE_HEADER_CONTENT_LENGTH);
        let encoding =
            Encoding::from_properties(properties.content_type.as_deref(), header_length).unwrap();
        let answer = infer(&request.payload, encoding);
        let busy = |after_ms: &str| {
            let body = oip::encode_failure("queue full", encoding);
            let more = vec![
                (property::STATUS_MESSAGE.to_owned(), "queue full".to_owned()),
                (property::RETRY_AFTER_MS.to_owned(), after_ms.to_owned()),
            ];
            self.answer(properties, &correlation, "503", body, more);
        };
        let good = || self.answer(properties, &correlation, "200", answer.clone(), vec![]);
        match self.manner {
            Manner::Honest => good(),
            Manner::LosesFirst if is_first_message => {}
            Manner::LosesFirst => good(),
            Manner::AnswersTwice => {
                good();
                good();
            }
            Manner::BusyOnce if is_new => busy("50"),
            Manner::BusyOnce => good(),
            Manner::AlwaysBusy => busy("300"),
            Manner::Silent => {}
            Manner::Refuses => {
                let body = oip::encode_failure("wrong shape", encoding);
                let words = (
                    property::STATUS_MESSAGE.to_owned(),
                    "wrong shape".to_owned(),
                );
                self.answer(properties, &correlation, "400", body, vec![words]);
            }
        }
    }

    fn answer(
        &self,
        request: &PublishProperties,
        correlation: &Bytes,
        status: &str,
        body: Body,
        mut user_properties: Vec<(String, String)>,
    ) {
        user_properties.push((property::STATUS.to_owned(), status.to_owned()));
        if let Encoding::Binary { header_length } = body.encoding {
            user_properties.push((
                property::INFERENCE_HEADER_CONTENT_LENGTH.to_owned(),
                header_length.to_string(),
            ));
        }
        let properties = PublishProperties {
            correlation_data: Some(correlation.clone()),
            content_type: Some(body.encoding.content_type().to_owned()),
            user_properties,
            ..PublishProperties::default()
        };
        let topic = request.response_topic.clone().unwrap();
        self.client
            .try_publish_with_properties(topic, QoS::AtLeastOnce, false, body.bytes, properties)
            .unwrap();
    }
}

/// The label is the first pixel.
fn infer(body: &Bytes, encoding: Encoding) -> Body {
    let request = Request::decode(body, encoding).unwrap();
    let Inputs::Named(inputs) = &request.inputs else {
        panic!("the sensor names its input");
    };
    assert_eq!(
        (inputs[0].name.as_str(), &inputs[0].shape),
        ("pixels", &vec![1, 2])
    );
    let pixel = f32::from_le_bytes(inputs[0].data[..4].try_into().unwrap());
    #[allow(clippy::cast_possible_truncation, reason = "pixels are small")]
    let label = Bytes::copy_from_slice(&(pixel as i64).to_le_bytes());
    let answer = Answer {
        model_name: MODEL.to_owned(),
        model_version: None,
        id: None,
        outputs: vec![Tensor::new("label".to_owned(), Datatype::Int64, vec![1], label).unwrap()],
    };
    answer.encode(&request, encoding).unwrap()
}

fn find<'a>(properties: &'a PublishProperties, name: &str) -> Option<&'a str> {
    let pair = properties.user_properties.iter().find(|(k, _)| k == name);
    pair.map(|(_, value)| value.as_str())
}
