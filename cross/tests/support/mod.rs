//! What the tests with real processes share: where things are, an agent, and a client that may misbehave.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test file uses its part, and tests fail by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cross::cache::{Arch, Cache};
use cross::processes::{self, Process};
use cross::region::{Broker, Plan};
use cross::shell;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::runtime::Runtime;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Folder of the programs built in this profile.
pub fn programs() -> PathBuf {
    let this = Path::new(env!("CARGO_BIN_EXE_cross"));
    this.parent().expect("a folder").to_owned()
}

/// ONNX Runtime as set-up left it.
pub fn onnxruntime() -> PathBuf {
    let path = std::env::var_os("EDGE_ONNXRUNTIME").map_or_else(
        || {
            let cache = Cache::from_env().expect("a cache folder");
            cache.onnxruntime(Arch::host().expect("a processor with ONNX Runtime"))
        },
        PathBuf::from,
    );
    let path_text = path.display();
    assert!(
        path.exists(),
        "{path_text} is missing: run `cargo xtask setup`"
    );
    path
}

/// Writes the endless model, whose input says how long it runs, into a model repository.
pub fn make_endless(models: &Path) {
    make_model(models, "endless");
}

/// Writes what `cross/models/make_NAME.py` makes into a model repository.
pub fn make_model(models: &Path, name: &str) {
    let python = Cache::from_env().expect("a cache folder").python();
    let script = cross::repository().join(format!("cross/models/make_{name}.py"));
    let mut command = Command::new(python);
    command
        .arg(script)
        .arg(models.join(name).join("1/model.onnx"));
    shell::output(&mut command).expect("the program that makes a model");
}

/// Resident memory of a process, in KiB.
pub fn resident_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// A region of programs built in this profile.
pub fn plan(broker: Broker, boxes: usize) -> Plan {
    Plan {
        programs: programs(),
        onnxruntime: onnxruntime(),
        models: cross::committed_models(),
        broker,
        boxes,
        mqtt_port: None,
        http_port: None,
    }
}

/// An agent in region `lab`.
pub struct Agent<'a> {
    pub name: &'a str,
    pub box_id: &'a str,
    pub port: u16,
    pub models: PathBuf,
    pub onnxruntime: PathBuf,
    /// Further arguments.
    pub more: Vec<String>,
}

impl<'a> Agent<'a> {
    pub fn new(box_id: &'a str, port: u16) -> Self {
        Self {
            name: box_id,
            box_id,
            port,
            models: cross::committed_models(),
            onnxruntime: onnxruntime(),
            more: Vec::new(),
        }
    }

    pub fn start(&self, folder: &Path) -> Process {
        let mut arguments = vec![
            "run".to_owned(),
            "--region=lab".to_owned(),
            format!("--box-id={}", self.box_id),
            format!("--broker=mqtt://127.0.0.1:{}", self.port),
            format!("--models={}", self.models.display()),
            format!("--data={}", folder.join(self.name).display()),
            format!("--onnxruntime={}", self.onnxruntime.display()),
            "--telemetry-interval-s=1".to_owned(),
        ];
        arguments.extend_from_slice(&self.more);
        let program = programs().join("edge-agent");
        Process::start(self.name, &program, arguments, folder).expect("edge-agent starts")
    }
}

/// Mosquitto, and `box-1` that takes requests for `digits`.
pub struct OneBox {
    pub agent: Process,
    pub port: u16,
    _broker: Process,
    _folder: tempfile::TempDir,
}

impl OneBox {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [port] = processes::free_ports().expect("a port");
        let broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
        let mut agent = Agent::new("box-1", port).start(folder.path());
        wait_until_serving(&mut agent);
        Self {
            agent,
            port,
            _broker: broker,
            _folder: folder,
        }
    }
}

/// Waits until an agent with `digits` takes requests of both kinds.
pub fn wait_until_serving(agent: &mut Process) {
    wait_for_log(agent, "serving model");
    wait_for_log(agent, r#"taking requests purpose="own""#);
    wait_for_log(agent, r#"taking requests purpose="shared""#);
}

/// Waits until the process's log has `text`.
pub fn wait_for_log(process: &mut Process, text: &str) {
    wait_for_log_times(process, text, 1);
}

/// Waits until the process's log has `text` that many times.
pub fn wait_for_log_times(process: &mut Process, text: &str, times: usize) {
    let log = process.log_file();
    let what = format!("its log has {text:?} {times} times");
    process
        .wait_until(&what, PATIENCE, || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.matches(text).count() >= times)
        })
        .expect("the log says so");
}

/// The first held-out image as an Open Inference Protocol v2 request, and its label.
pub fn first_image() -> (String, i64) {
    let images = std::fs::read_to_string(cross::heldout_images()).expect("images");
    let image = images.lines().nth(1).expect("a first image");
    let (label, pixels) = image.split_once(',').expect("a label");
    let request = format!(
        r#"{{"inputs":[{{"name":"pixels","shape":[1,64],"datatype":"FP32","data":[{pixels}]}}]}}"#
    );
    (request, label.parse().expect("a label"))
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: String,
    pub message: String,
    pub correlation: Vec<u8>,
    pub body: String,
    pub user_properties: Vec<(String, String)>,
}

/// A request; its default is in order.
#[derive(Debug, Clone)]
pub struct Request {
    pub topic: String,
    pub body: Vec<u8>,
    pub properties: PublishProperties,
}

/// An MQTT 5 client that sends whatever it is told to.
pub struct Client {
    pub name: String,
    client: AsyncClient,
    eventloop: EventLoop,
    runtime: Runtime,
    sent: u32,
}

impl Client {
    pub fn connect(name: &str, port: u16) -> Self {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options
            .set_network_options(network)
            .set_keep_alive(Duration::from_secs(20))
            .set_outgoing_inflight_upper_limit(512)
            .set_max_packet_size(Some(16 << 20));
        let (client, eventloop) = AsyncClient::new(options, 16_384);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let mut this = Self {
            name: name.to_owned(),
            client,
            eventloop,
            runtime,
            sent: 0,
        };
        this.subscribe(&format!("edge/v1/lab/reply/{name}/#"));
        this
    }

    /// A request in order, for any box.
    pub fn request(&mut self) -> Request {
        self.sent += 1;
        Request {
            topic: format!("edge/v1/lab/any/infer/digits/{}", self.name),
            body: first_image().0.into(),
            properties: PublishProperties {
                response_topic: Some(format!("edge/v1/lab/reply/{}/r", self.name)),
                correlation_data: Some(format!("c{}", self.sent).into()),
                message_expiry_interval: Some(30),
                content_type: Some("application/json".into()),
                ..PublishProperties::default()
            },
        }
    }

    pub fn send(&mut self, request: &Request) {
        self.send_at(QoS::AtLeastOnce, request);
    }

    pub fn send_at(&mut self, qos: QoS, request: &Request) {
        self.client
            .try_publish_with_properties(
                request.topic.clone(),
                qos,
                false,
                request.body.clone(),
                request.properties.clone(),
            )
            .expect("room in the queue");
    }

    /// Waits until the broker has taken `count` messages. It passes a message on before it says so.
    pub fn wait_for_acks(&mut self, count: usize) {
        for _ in 0..count {
            self.wait_for("an acknowledgement", |event| {
                matches!(event, Event::Incoming(Packet::PubAck(_))).then_some(())
            });
        }
    }

    /// The next answer.
    pub fn receive(&mut self) -> Answer {
        let publish = self.wait_for("an answer", |event| match event {
            Event::Incoming(Packet::Publish(publish)) => Some(publish),
            _ => None,
        });
        answer(publish)
    }

    pub fn subscribe(&mut self, filter: &str) {
        self.client
            .try_subscribe(filter, QoS::AtLeastOnce)
            .expect("room in the queue");
        self.wait_for("the subscription", |event| {
            matches!(event, Event::Incoming(Packet::SubAck(_))).then_some(())
        });
    }

    pub fn publish(&mut self, topic: &str, payload: Vec<u8>) {
        self.client
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .expect("room in the queue");
    }

    /// The payload of the next message on `topic`.
    pub fn receive_on(&mut self, topic: &str) -> Vec<u8> {
        self.wait_for(topic, |event| match event {
            Event::Incoming(Packet::Publish(p)) if p.topic == topic => Some(p.payload.to_vec()),
            _ => None,
        })
    }

    pub fn ask(&mut self, request: &Request) -> Answer {
        self.send(request);
        self.receive()
    }

    fn wait_for<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let Self {
            runtime, eventloop, ..
        } = self;
        let picking = async {
            loop {
                let event = eventloop.poll().await.expect("the connection stands");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        let picked = runtime.block_on(async { tokio::time::timeout(PATIENCE, picking).await });
        picked.unwrap_or_else(|_| panic!("{what} did not come"))
    }
}

fn answer(publish: Publish) -> Answer {
    let properties = publish.properties.unwrap_or_default();
    let user = |wanted: &str| {
        let mut all = properties.user_properties.iter();
        all.find(|(name, _)| name == wanted)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    };
    Answer {
        status: user("status"),
        message: user("status-message"),
        correlation: properties
            .correlation_data
            .clone()
            .unwrap_or_default()
            .to_vec(),
        body: String::from_utf8_lossy(&publish.payload).into_owned(),
        user_properties: properties.user_properties.clone(),
    }
}

/// Repeats `attempt` until it succeeds.
pub fn eventually(what: &str, attempt: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, attempt);
}

/// Repeats `attempt` until it succeeds, for as long as `limit`.
pub fn eventually_within(limit: Duration, what: &str, mut attempt: impl FnMut() -> bool) {
    let started = Instant::now();
    while !attempt() {
        assert!(started.elapsed() < limit, "{what} did not happen");
    }
}
