//! What a request that waits costs in memory: a model is kept busy, and requests pile up behind it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use serde::Serialize;

use super::super::{BenchError, load::Load};
use super::{Agent, Plan, REGION, cost, say};

/// Requests that wait before the first look, so that what comes once does not count; and those that are counted.
const FIRST: f64 = 100.0;
const MORE: f64 = 300.0;
/// Turns of the endless model's loop that keep it busy for some seconds.
const BUSY: i64 = 6_000_000;
/// Time for all requests to arrive.
const ARRIVED: Duration = Duration::from_millis(1_500);

/// All of this part.
#[derive(Debug, Serialize)]
pub(super) struct Waiting(Vec<Row>);

#[derive(Debug, Serialize)]
struct Row {
    payload_bytes: usize,
    requests: u64,
    grown_bytes: u64,
}

/// Measures; `endless` is a repository with the endless model.
pub(super) fn measure(
    plan: &Plan,
    port: u16,
    folder: &Path,
    endless: &Path,
) -> Result<Waiting, BenchError> {
    let settings = endless.join("endless/model.toml");
    fs::write(settings, "max_queue_size = 512\n")
        .map_err(|e| BenchError::System("write a file", e))?;
    let mut rows = Vec::new();
    for (box_id, payload_bytes) in [("waits-a", 8), ("waits-b", 4_096), ("waits-c", 65_536)] {
        say(&format!(
            "memory of requests of {payload_bytes} bytes that wait"
        ));
        let agent = Agent::start_as(plan, box_id, port, endless, folder)?;
        let topic = |client| format!("edge/v1/{REGION}/box/{box_id}/infer/endless/{client}");
        let connect = |client, body| Load::connect(port, &topic(client), body, QoS::AtLeastOnce);
        let mut probe = connect("probe", 1_i64.to_le_bytes().to_vec())?;
        probe.first_answer(Duration::from_secs(1))?;
        let mut busy = connect("busy", BUSY.to_le_bytes().to_vec())?;
        // A longer body is refused when it is read; until then it waits like any other.
        let mut body = 1_i64.to_le_bytes().to_vec();
        body.resize(payload_bytes, 0);
        let mut first = connect("first", body.clone())?;
        let mut more = connect("more", body)?;
        let (before, after, sent) = thread::scope(|scope| {
            let running = scope.spawn(move || busy.open_loop(1_000.0, Duration::from_millis(2)));
            thread::sleep(ARRIVED / 3);
            let second = Duration::from_secs(1);
            let first = scope.spawn(move || first.open_loop(FIRST, second));
            thread::sleep(ARRIVED);
            let before = cost::resident_kib(&agent.0)?;
            let more = scope.spawn(move || more.open_loop(MORE, second));
            thread::sleep(ARRIVED);
            let after = cost::resident_kib(&agent.0)?;
            let panicked = || Err(BenchError::Model("a client".into(), "panicked"));
            let sent = more.join().unwrap_or_else(|_| panicked())?.sent;
            first.join().unwrap_or_else(|_| panicked())?;
            running.join().unwrap_or_else(|_| panicked())?;
            Ok::<_, BenchError>((before, after, sent))
        })?;
        rows.push(Row {
            payload_bytes,
            requests: sent,
            grown_bytes: after.saturating_sub(before) * 1024,
        });
    }
    Ok(Waiting(rows))
}

impl Waiting {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "Memory of the agent for each request that waits, bytes\n payload   requests   for each   beside the payload\n",
        );
        for row in &self.0 {
            #[allow(clippy::cast_precision_loss, reason = "far less than 2^52")]
            let each = row.grown_bytes as f64 / row.requests.max(1) as f64;
            #[allow(clippy::cast_precision_loss, reason = "far less than 2^52")]
            let beside = each - row.payload_bytes as f64;
            let _infallible = writeln!(
                text,
                "{:>8} {:>10} {each:>10.0} {beside:>20.0}",
                row.payload_bytes, row.requests
            );
        }
        text
    }
}
