//! A crowd of simulated boxes: real Sparkplug over real MQTT, to look at the page with and to measure ingest.
//!
//! `cargo run --release -p edge-indexer --example crowd -- --broker mqtt://127.0.0.1:1883 --region home --boxes 20`

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use edge_indexer::live::now_ms;
use edge_protocol::BrokerUrl;
use edge_protocol::metric::{self, of_model};
use edge_protocol::sparkplug::{BD_SEQ, MessageType, Metric, NodeTopic, Payload, REBIRTH, Value};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Publish the telemetry of simulated boxes.
#[derive(Debug, Clone, Parser)]
struct Crowd {
    /// The broker.
    #[arg(long)]
    broker: BrokerUrl,
    /// The region.
    #[arg(long)]
    region: String,
    /// Boxes.
    #[arg(long, default_value_t = 20)]
    boxes: u32,
    /// Connections that carry them; a box dies with its connection only where it has one of its own.
    #[arg(long)]
    connections: Option<u32>,
    /// Milliseconds between two messages of one box; 0 for as fast as it goes.
    #[arg(long, default_value_t = 1_000)]
    every_ms: u64,
    /// Messages of each box after its birth.
    #[arg(long, default_value_t = u32::MAX)]
    messages: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let crowd = Crowd::parse();
    let connections = crowd
        .connections
        .unwrap_or(crowd.boxes)
        .clamp(1, crowd.boxes.max(1));
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let mine = (connection..crowd.boxes).step_by(connections as usize);
        tasks.spawn(carry(crowd.clone(), mine.collect()));
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a connection's task panicked")??;
    }
    Ok(())
}

fn name(number: u32) -> String {
    format!("box-{number:05}")
}

async fn carry(crowd: Crowd, boxes: Vec<u32>) -> anyhow::Result<()> {
    let Some(first) = boxes.first().copied() else {
        return Ok(());
    };
    let BrokerUrl { host, port, .. } = &crowd.broker;
    let mut options = MqttOptions::new(format!("crowd-{}", name(first)), host, *port);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let death = payload(None, vec![(BD_SEQ.to_owned(), Value::UInt(0))]);
    options
        .set_network_options(network)
        .set_outgoing_inflight_upper_limit(16)
        .set_last_will(LastWill::new(
            topic(&crowd.region, MessageType::NodeDeath, first),
            death.to_bytes(),
            QoS::AtLeastOnce,
            false,
            None,
        ));
    let (client, mut connection) = AsyncClient::new(options, 128);
    let polling = tokio::spawn(async move {
        loop {
            match connection.poll().await {
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error).context("lost the broker"),
            }
        }
    });
    let mut random = StdRng::seed_from_u64(first.into());
    let instance = random.next_u64();
    let send = async |kind, number, payload: Payload| {
        client
            .publish(
                topic(&crowd.region, kind, number),
                QoS::AtMostOnce,
                false,
                payload.to_bytes(),
            )
            .await
    };
    for &number in &boxes {
        let mut metrics = vec![
            (BD_SEQ.to_owned(), Value::UInt(0)),
            (REBIRTH.to_owned(), Value::Bool(false)),
            (metric::BOARD.to_owned(), Value::Text("host-sim".to_owned())),
            (
                metric::AGENT_VERSION.to_owned(),
                Value::Text("0.1.0".to_owned()),
            ),
            (
                metric::KERNEL_VERSION.to_owned(),
                Value::Text("6.12.57+deb13-arm64".to_owned()),
            ),
            (metric::INSTANCE.to_owned(), Value::UInt(instance)),
            (metric::MEMORY_TOTAL_BYTES.to_owned(), Value::UInt(8 << 30)),
            (
                metric::STORAGE_TOTAL_BYTES.to_owned(),
                Value::UInt(128 << 30),
            ),
            (
                metric::STORAGE_AVAILABLE_BYTES.to_owned(),
                Value::UInt(97 << 30),
            ),
            (
                of_model("digits", metric::PROVIDER),
                Value::Text("cpu".to_owned()),
            ),
            (of_model("digits", metric::MODEL_VERSION), Value::UInt(1)),
            (
                of_model("digits", metric::MODEL_STATE),
                Value::Text("ready".to_owned()),
            ),
        ];
        metrics.extend(readings(0, number, &mut random));
        send(MessageType::NodeBirth, number, payload(Some(0), metrics)).await?;
    }
    let mut tick = (crowd.every_ms > 0).then(|| {
        let mut tick = tokio::time::interval(Duration::from_millis(crowd.every_ms));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick
    });
    for message in 1..=crowd.messages {
        if let Some(tick) = &mut tick {
            tick.tick().await;
        }
        for &number in &boxes {
            let metrics = readings(message, number, &mut random);
            let seq = Some(u64::from(message % 256));
            send(MessageType::NodeData, number, payload(seq, metrics)).await?;
        }
    }
    // A will is not sent after a proper goodbye, so the deaths are (Sparkplug B 3.0, section 6.4.22).
    for &number in &boxes {
        send(MessageType::NodeDeath, number, death.clone()).await?;
    }
    client.disconnect().await?;
    polling.await.context("the polling task panicked")?
}

/// What changes with every message.
fn readings(message: u32, number: u32, random: &mut impl Rng) -> Vec<(String, Value)> {
    let wave = (f64::from(message) / 20.0 + f64::from(number)).sin();
    let load = 40.0 + 30.0 * wave + random.random_range(0.0..10.0);
    let served = u64::from(message) * (3 + u64::from(number % 5));
    vec![
        (metric::UPTIME_S.to_owned(), Value::UInt(message.into())),
        (metric::CPU_LOAD_PERCENT.to_owned(), Value::Double(load)),
        (
            format!("{}cpu-gold", metric::TEMPERATURE_PREFIX),
            Value::Double((42_000.0 + 300.0 * load).round()),
        ),
        (
            format!("{}gpu", metric::TEMPERATURE_PREFIX),
            Value::Int(41_000),
        ),
        (
            metric::MEMORY_AVAILABLE_BYTES.to_owned(),
            Value::UInt((5 << 30) + random.random_range(0..1 << 28)),
        ),
        (of_model("digits", metric::SUCCESS), Value::UInt(served)),
        (
            of_model("digits", "failure/timeout"),
            Value::UInt(u64::from(number.is_multiple_of(4)) * served / 200),
        ),
        (
            of_model("digits", metric::QUEUE_P50_US),
            Value::UInt(random.random_range(20..60)),
        ),
        (
            of_model("digits", metric::COMPUTE_P50_US),
            Value::UInt(random.random_range(90..140)),
        ),
    ]
}

fn topic(region: &str, message_type: MessageType, number: u32) -> String {
    NodeTopic {
        region,
        message_type,
        box_id: &name(number),
    }
    .to_string()
}

fn payload(seq: Option<u64>, metrics: Vec<(String, Value)>) -> Payload {
    let at_ms = now_ms();
    Payload {
        timestamp: Some(at_ms),
        metrics: metrics
            .into_iter()
            .map(|(name, value)| Metric::new(name, value, at_ms))
            .collect(),
        seq,
    }
}
