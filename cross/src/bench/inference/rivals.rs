//! Answers a second and processor time for each: the agent with and without batches, a tuned Python responder, and the
//! echo as the floor, in turn in the same rounds. Then an open loop.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use serde::Serialize;

use super::super::{BenchError, echo, load::Load};
use super::{Agent, Plan, REGION, ROUNDS, cost, median, microseconds, say, start_echo};
use crate::processes::Process;

/// Bytes of a request for one digit.
const BYTES: usize = 256;

/// All of this part.
#[derive(Debug, Serialize)]
pub(super) struct Rivals {
    closed: Vec<Closed>,
    open: Vec<Open>,
}

/// So many in flight.
#[derive(Debug, Serialize)]
struct Closed {
    in_flight: usize,
    each: Vec<Figures>,
}

/// One responder.
#[derive(Debug, Serialize)]
struct Figures {
    name: &'static str,
    per_second: f64,
    processor_us: f64,
}

/// Requests at random times.
#[derive(Debug, Serialize)]
struct Open {
    part_of_saturation: f64,
    per_second: f64,
    echo_p50_us: f64,
    echo_p99_us: f64,
    agent_p50_us: f64,
    agent_p99_us: f64,
}

struct Rival {
    name: &'static str,
    process: Process,
    load: Load,
}

impl Rival {
    fn new(
        name: &'static str,
        process: Process,
        port: u16,
        topic: &str,
    ) -> Result<Self, BenchError> {
        let mut load = Load::connect(port, topic, vec![0; BYTES], QoS::AtLeastOnce)?;
        load.first_answer(Duration::from_secs(1))?;
        Ok(Self {
            name,
            process,
            load,
        })
    }
}

/// Starts all and measures.
pub(super) fn measure(plan: &Plan, port: u16, folder: &Path) -> Result<Rivals, BenchError> {
    let system = |what| move |error| BenchError::System(what, error);
    let alone = folder.join("alone");
    let digits = alone.join("digits");
    fs::create_dir_all(digits.join("1")).map_err(system("create a folder"))?;
    let graph = plan.digits.join("digits/1/model.onnx");
    fs::copy(&graph, digits.join("1/model.onnx")).map_err(system("copy a model"))?;
    fs::write(digits.join("model.toml"), "max_batch_size = 1\n").map_err(system("write a file"))?;
    let script = folder.join("responder.py");
    fs::write(&script, include_str!("responder.py")).map_err(system("write a file"))?;

    let at = |box_id, client| format!("edge/v1/{REGION}/box/{box_id}/infer/digits/{client}");
    let agent = Agent::start_as(plan, "batching", port, &plan.digits, folder)?;
    let agent = Rival::new("agent", agent.0, port, &at("batching", "to-batching"))?;
    let single = Agent::start_as(plan, "alone", port, &alone, folder)?;
    let single = Rival::new("alone", single.0, port, &at("alone", "to-alone"))?;
    let any = |model, client| format!("edge/v1/{REGION}/any/infer/{model}/{client}");
    let answer_bytes = agent.load.answer_bytes();
    let echo = start_echo(plan, port, answer_bytes, folder)?;
    let echo = Rival::new("echo", echo, port, &any(echo::NAME, "to-echo"))?;
    let arguments = [
        script.into_os_string(),
        port.to_string().into(),
        graph.into_os_string(),
        any("peer", "+").into(),
    ];
    let python = Process::start("python", &plan.python, arguments, folder)?;
    let python = Rival::new("Python", python, port, &any("peer", "to-python"))?;
    let mut all = [echo, python, single, agent];

    let mut closed = Vec::new();
    for in_flight in [1, 16, 64] {
        say(&format!(
            "digits with {in_flight} in flight: echo, Python, agent"
        ));
        let (mut rates, mut costs) = ([(); 4].map(|()| Vec::new()), [(); 4].map(|()| Vec::new()));
        for _ in 0..ROUNDS {
            for ((rival, rates), costs) in all.iter_mut().zip(&mut rates).zip(&mut costs) {
                let before = cost::processor_ns(&rival.process)?;
                let measured = rival.load.run(in_flight, plan.round)?;
                let spent = cost::processor_ns(&rival.process)?.saturating_sub(before);
                rates.push(measured.per_second());
                costs.push(cost::each_us(spent, measured.answered));
            }
        }
        let each = all
            .iter()
            .zip(rates)
            .zip(costs)
            .map(|((rival, rates), costs)| Figures {
                name: rival.name,
                per_second: median(rates),
                processor_us: median(costs),
            });
        closed.push(Closed {
            in_flight,
            each: each.collect(),
        });
    }
    let [echo, _, _, agent] = &mut all;
    let saturation = closed
        .last()
        .and_then(|last| last.each.last())
        .map_or(0.0, |it| it.per_second);
    let mut open = Vec::new();
    for part in [0.5, 0.8] {
        let rate = saturation * part;
        say(&format!("digits at {rate:.0} a second, at random times"));
        let time = plan.round * 5;
        let floor = echo.load.open_loop(rate, time)?;
        let answered = agent.load.open_loop(rate, time)?;
        open.push(Open {
            part_of_saturation: part,
            per_second: rate,
            echo_p50_us: microseconds(&floor.nanoseconds, 0.5),
            echo_p99_us: microseconds(&floor.nanoseconds, 0.99),
            agent_p50_us: microseconds(&answered.nanoseconds, 0.5),
            agent_p99_us: microseconds(&answered.nanoseconds, 0.99),
        });
    }
    Ok(Rivals { closed, open })
}

impl Rivals {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "Answers a second, digits at QoS 1; processor time of the responder for each, microseconds\n\
             in flight    echo  Python   alone   agent   agent/echo  agent/alone  agent/Python   processor: echo  Python  alone  agent\n",
        );
        for row in &self.closed {
            let rate = |name| {
                row.each
                    .iter()
                    .find(|it| it.name == name)
                    .map_or(f64::NAN, |it| it.per_second)
            };
            let cost = |name| {
                row.each
                    .iter()
                    .find(|it| it.name == name)
                    .map_or(f64::NAN, |it| it.processor_us)
            };
            let _infallible = writeln!(
                text,
                "{:>9} {:>7.0} {:>7.0} {:>7.0} {:>7.0}   {:>10.2}  {:>11.2}  {:>12.2}   {:>15.0}  {:>6.0}  {:>5.0}  {:>5.0}",
                row.in_flight,
                rate("echo"),
                rate("Python"),
                rate("alone"),
                rate("agent"),
                rate("agent") / rate("echo"),
                rate("agent") / rate("alone"),
                rate("agent") / rate("Python"),
                cost("echo"),
                cost("Python"),
                cost("alone"),
                cost("agent"),
            );
        }
        text.push_str(
            "alone = the agent with max_batch_size = 1; Python = paho-mqtt, TCP_NODELAY, orjson, onnxruntime, no checks, no cache\n\n\
             At random times (an open loop), digits at QoS 1, microseconds\n\
             of saturation   a second   echo p50    p99   agent p50    p99\n",
        );
        for row in &self.open {
            let _infallible = writeln!(
                text,
                "{:>13} {:>10.0}   {:>8.0} {:>6.0}   {:>9.0} {:>6.0}",
                format!("{:.0} %", row.part_of_saturation * 100.0),
                row.per_second,
                row.echo_p50_us,
                row.echo_p99_us,
                row.agent_p50_us,
                row.agent_p99_us
            );
        }
        text
    }
}
