//! What one client that floods costs the others, with real processes: a model whose runs take milliseconds, four
//! sensors that ask at random times, and a fifth that sends its share or 50 times as much.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use rumqttc::v5::mqttbytes::QoS;
use serde::Serialize;

use super::super::BenchError;
use super::super::load::{Load, Open};
use super::super::runtime::histogram;
use super::{Agent, Plan, REGION, microseconds, say};
use crate::shell;

/// Clients, the one that floods among them.
const CLIENTS: u32 = 5;
/// What the others ask, as a part of their equal share.
const LOAD: f64 = 0.8;
/// What the flood is, in shares.
const FLOOD: f64 = 50.0;
/// Turns of the endless model's loop: some milliseconds.
const TURNS: i64 = 5_000;
/// Requests of each of the others.
const REQUESTS: f64 = 400.0;

/// All of this part.
#[derive(Debug, Serialize)]
pub(super) struct Fairness {
    run_us: f64,
    share_per_second: f64,
    calm: Others,
    flooded: Others,
}

/// What the others got.
#[derive(Debug, Serialize)]
struct Others {
    p50_us: f64,
    p99_us: f64,
    refused: u64,
    first_sent: u64,
    first_answered: u64,
}

/// Where the endless model lies after [`measure`].
pub(super) fn models(folder: &Path) -> PathBuf {
    folder.join("endless-models")
}

/// Measures.
pub(super) fn measure(plan: &Plan, port: u16, folder: &Path) -> Result<Fairness, BenchError> {
    let models = models(folder);
    let graph = models.join("endless/1/model.onnx");
    let system = |error| BenchError::System("create a folder", error);
    fs::create_dir_all(models.join("endless/1")).map_err(system)?;
    let script = crate::repository().join("cross/models/make_endless.py");
    shell::output(Command::new(&plan.python).arg(script).arg(&graph))?;
    let _agent = Agent::start_as(plan, "fair", port, &models, folder)?;
    let connect = |client: u32| {
        let topic = format!("edge/v1/{REGION}/box/fair/infer/endless/fair-{client}");
        let body = TURNS.to_le_bytes().to_vec();
        let mut load = Load::connect(port, &topic, body, QoS::AtLeastOnce)?;
        load.first_answer(Duration::from_secs(1))?;
        Ok::<_, BenchError>(load)
    };
    let mut clients = (0..CLIENTS).map(connect).collect::<Result<Vec<_>, _>>()?;
    say("how long a run of the endless model takes");
    let saturation = match clients.first_mut() {
        Some(first) => first.run(4, plan.round * 2)?.per_second(),
        None => return Err(BenchError::Model("endless".into(), "there is no client")),
    };
    let share = saturation / f64::from(CLIENTS);
    say("four sensors beside one that sends its share");
    let calm = others(&mut clients, share, 1.0)?;
    say("four sensors beside one that sends 50 times its share");
    let flooded = others(&mut clients, share, FLOOD)?;
    Ok(Fairness {
        run_us: 1e6 / saturation,
        share_per_second: share,
        calm,
        flooded,
    })
}

fn others(clients: &mut [Load], share: f64, first: f64) -> Result<Others, BenchError> {
    let time = Duration::from_secs_f64(REQUESTS / (share * LOAD));
    let results: Vec<Result<Open, BenchError>> = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(number, client)| {
                let rate = share * if number == 0 { first } else { LOAD };
                scope.spawn(move || client.open_loop(rate, time))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or(Err(BenchError::Model("a client".into(), "panicked")))
            })
            .collect()
    });
    let mut all: Histogram<u64> = histogram();
    let mut others = Others {
        p50_us: 0.0,
        p99_us: 0.0,
        refused: 0,
        first_sent: 0,
        first_answered: 0,
    };
    for (number, open) in results.into_iter().enumerate() {
        let open = open?;
        if number == 0 {
            others.first_sent = open.sent;
            others.first_answered = open.nanoseconds.len();
        } else {
            others.refused += open.refused;
            // Same bounds on both sides, so nothing is out of range.
            let _added = all.add(&open.nanoseconds);
        }
    }
    others.p50_us = microseconds(&all, 0.5);
    others.p99_us = microseconds(&all, 0.99);
    Ok(others)
}

impl Fairness {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "A flood: runs of {:.0} us, {CLIENTS} clients with a share of {:.0} requests a second each; four send {:.0} % of it at\n\
             random times, the fifth its share or {FLOOD:.0} times as much; microseconds of the four\n\
             the fifth sends    p50     p99   refused   of the fifth: sent  answered\n",
            self.run_us,
            self.share_per_second,
            LOAD * 100.0
        );
        for (name, others) in [("its share", &self.calm), ("50 shares", &self.flooded)] {
            let _infallible = writeln!(
                text,
                "{name:<15} {:>6.0} {:>7.0}   {:>7}   {:>18} {:>9}",
                others.p50_us,
                others.p99_us,
                others.refused,
                others.first_sent,
                others.first_answered
            );
        }
        let _infallible = writeln!(
            text,
            "p99 ratio {:.2}",
            self.flooded.p99_us / self.calm.p99_us
        );
        text
    }
}
