//! `cargo xtask bench inference`: what the agent adds to ONNX Runtime and to the transport.

mod copies;
mod cost;
mod fairness;
mod rivals;
mod sessions;
mod waiting;
mod ways;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rumqttc::v5::mqttbytes::QoS;
use serde::Serialize;

use super::load::{Load, Measured};
use super::runtime::{Runtime, histogram};
use super::{BenchError, echo};
use crate::processes::{self, Process};

/// Region of the benchmark's topics.
const REGION: &str = "bench";
/// Rounds that alternate between runtime, echo and agent, so that a busy moment of the machine meets all.
const ROUNDS: usize = 5;

/// What to measure with.
#[derive(Debug)]
pub struct Plan {
    /// Folder with the release binary of the agent.
    pub programs: PathBuf,
    /// This program, which is also the echo.
    pub this_program: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// The committed repository, with `digits`.
    pub digits: PathBuf,
    /// The repository with models of realistic cost.
    pub realistic: PathBuf,
    /// Python of the set-up.
    pub python: PathBuf,
    /// Length of a round for each of the two.
    pub round: Duration,
}

/// All that was measured; times in microseconds, memory in KiB.
#[derive(Debug, Serialize)]
pub struct Report {
    models: Vec<ModelReport>,
    rivals: rivals::Rivals,
    fairness: fairness::Fairness,
    waiting: waiting::Waiting,
    sessions: sessions::Sessions,
    copies: copies::Copies,
    ways: ways::Ways,
    memory_without_models_kib: u64,
    memory_with_digits_kib: u64,
    memory_with_all_kib: u64,
    start_to_first_answer_ms: f64,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    model: String,
    qos: u8,
    request_bytes: usize,
    answer_bytes: usize,
    runtime_p50_us: f64,
    echo_p50_us: f64,
    echo_p99_us: f64,
    agent_p50_us: f64,
    agent_p99_us: f64,
    added_p50_us: f64,
}

/// Runs the benchmark; says on standard error what it does.
///
/// # Errors
/// When a process, the runtime or a request fails.
pub fn run(plan: &Plan) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir().map_err(|e| BenchError::System("create a folder", e))?;
    let folder = folder.path();
    let all = all_models(plan, folder)?;
    let empty = folder.join("empty");
    fs::create_dir(&empty).map_err(|e| BenchError::System("create a folder", e))?;
    let [port] = processes::free_ports().map_err(|e| BenchError::System("find a port", e))?;
    let _broker = processes::mosquitto(port, folder)?;

    let runtime = Runtime::load(&plan.onnxruntime)?;

    say("memory and start");
    let agent = Agent::start(plan, port, &empty, folder)?;
    let memory_without_models_kib = agent.after("connected to the broker", 3)?.resident_kib()?;
    let start_to_first_answer_ms = start_to_first_answer(plan, port, folder)?;
    let agent = Agent::start(plan, port, &plan.digits, folder)?;
    let memory_with_digits_kib = agent.after("serving model", 1)?.resident_kib()?;
    let agent = Agent::start(plan, port, &all, folder)?.after("serving model", 3)?;
    let memory_with_all_kib = agent.resident_kib()?;

    let mut models = Vec::new();
    for (name, qos) in [
        ("digits", QoS::AtLeastOnce),
        ("digits", QoS::AtMostOnce),
        ("squeezenet", QoS::AtLeastOnce),
        ("resnet50", QoS::AtLeastOnce),
    ] {
        say(&format!("{name} at QoS {}", qos as u8));
        models.push(latency(plan, port, folder, &runtime, &all, name, qos)?);
    }
    drop(agent);
    let rivals = rivals::measure(plan, port, folder)?;
    let fairness = fairness::measure(plan, port, folder)?;
    let waiting = waiting::measure(plan, port, folder, &fairness::models(folder))?;
    let sessions = sessions::measure(plan, &all)?;
    let copies = copies::measure(plan, port, folder)?;
    let ways = ways::measure(plan, port, folder, &runtime, &all)?;
    Ok(Report {
        models,
        rivals,
        fairness,
        waiting,
        sessions,
        copies,
        ways,
        memory_without_models_kib,
        memory_with_digits_kib,
        memory_with_all_kib,
        start_to_first_answer_ms,
    })
}

/// One request after the other, to the runtime, the echo and the agent in turn.
fn latency(
    plan: &Plan,
    port: u16,
    folder: &Path,
    runtime: &Runtime,
    all: &Path,
    name: &str,
    qos: QoS,
) -> Result<ModelReport, BenchError> {
    let graph = all.join(name).join("1/model.onnx");
    let mut floor = runtime.floor(&graph)?;
    let (mut echo, mut agent) = (histogram(), histogram());
    let mut pair = Pair::connect(plan, port, folder, name, floor.input_bytes, qos)?;
    for _ in 0..ROUNDS {
        floor.run(plan.round)?;
        let (echoed, answered) = pair.run(plan.round)?;
        add(&mut echo, &echoed);
        add(&mut agent, &answered);
    }
    let p50 = |histogram: &Histogram<u64>| microseconds(histogram, 0.5);
    Ok(ModelReport {
        model: name.to_owned(),
        qos: qos as u8,
        request_bytes: floor.input_bytes,
        answer_bytes: pair.agent.answer_bytes(),
        runtime_p50_us: p50(&floor.nanoseconds),
        echo_p50_us: p50(&echo),
        echo_p99_us: microseconds(&echo, 0.99),
        agent_p50_us: p50(&agent),
        agent_p99_us: microseconds(&agent, 0.99),
        added_p50_us: p50(&agent) - p50(&echo) - p50(&floor.nanoseconds),
    })
}

/// The same client against the echo and against the agent.
struct Pair {
    echo: Load,
    agent: Load,
    _responder: Process,
}

impl Pair {
    /// Connects to the agent, and to an echo whose answers are as large as the agent's.
    fn connect(
        plan: &Plan,
        port: u16,
        folder: &Path,
        model: &str,
        bytes: usize,
        qos: QoS,
    ) -> Result<Self, BenchError> {
        let body = vec![0_u8; bytes];
        let topic = |model, client| format!("edge/v1/{REGION}/any/infer/{model}/{client}");
        let patience = Duration::from_secs(1);
        let mut agent = Load::connect(port, &topic(model, "bench-agent"), body.clone(), qos)?;
        agent.first_answer(patience)?;
        let responder = start_echo(plan, port, agent.answer_bytes(), folder)?;
        let mut echo = Load::connect(port, &topic(echo::NAME, "bench-echo"), body, qos)?;
        echo.first_answer(patience)?;
        Ok(Self {
            echo,
            agent,
            _responder: responder,
        })
    }

    fn run(&mut self, round: Duration) -> Result<(Measured, Measured), BenchError> {
        Ok((self.echo.run(1, round)?, self.agent.run(1, round)?))
    }
}

/// From the start of the process to the first answer of `digits`, the median of the rounds, in milliseconds.
fn start_to_first_answer(plan: &Plan, port: u16, folder: &Path) -> Result<f64, BenchError> {
    let topic = format!("edge/v1/{REGION}/any/infer/digits/bench-start");
    let mut milliseconds = Vec::new();
    for _ in 0..ROUNDS {
        let mut load = Load::connect(port, &topic, vec![0; 256], QoS::AtLeastOnce)?;
        let started = Instant::now();
        let _agent = Agent::start(plan, port, &plan.digits, folder)?;
        let answered = load.first_answer(Duration::from_millis(2))?;
        milliseconds.push((answered - started).as_secs_f64() * 1e3);
    }
    Ok(median(milliseconds))
}

struct Agent(Process);

impl Agent {
    fn start(plan: &Plan, port: u16, models: &Path, folder: &Path) -> Result<Self, BenchError> {
        Self::start_as(plan, "box-1", port, models, folder)
    }

    fn start_as(
        plan: &Plan,
        box_id: &str,
        port: u16,
        models: &Path,
        folder: &Path,
    ) -> Result<Self, BenchError> {
        Self::start_with(plan, box_id, port, models, folder, &[])
    }

    fn start_with(
        plan: &Plan,
        box_id: &str,
        port: u16,
        models: &Path,
        folder: &Path,
        more: &[String],
    ) -> Result<Self, BenchError> {
        let text = |path: &Path| path.display().to_string();
        let arguments = [
            "run".to_owned(),
            format!("--region={REGION}"),
            format!("--box-id={box_id}"),
            format!("--broker=mqtt://127.0.0.1:{port}"),
            format!("--models={}", text(models)),
            format!("--data={}", text(&folder.join(box_id))),
            format!("--onnxruntime={}", text(&plan.onnxruntime)),
            // One client asks all: its share must hold the answers of a minute.
            "--answer-cache-mib=1024".to_owned(),
        ];
        let arguments = arguments.iter().chain(more);
        let program = plan.programs.join("edge-agent");
        Ok(Self(Process::start(box_id, &program, arguments, folder)?))
    }

    /// The agent, once its log has `text` that many times.
    fn after(mut self, text: &str, times: usize) -> Result<Self, BenchError> {
        let limit = Duration::from_secs(60);
        let log = self.0.log_file();
        self.0
            .wait_until(&format!("its log says {text:?}"), limit, || {
                fs::read_to_string(&log).is_ok_and(|log| log.matches(text).count() >= times)
            })?;
        Ok(self)
    }

    fn resident_kib(&self) -> Result<u64, BenchError> {
        cost::resident_kib(&self.0)
    }
}

fn start_echo(
    plan: &Plan,
    port: u16,
    answer_bytes: usize,
    folder: &Path,
) -> Result<Process, BenchError> {
    let arguments = [
        "bench".into(),
        "echo".into(),
        port.to_string(),
        answer_bytes.to_string(),
    ];
    Ok(Process::start(
        "echo",
        &plan.this_program,
        arguments,
        folder,
    )?)
}

/// A repository with `digits` and the models of realistic cost, by links.
fn all_models(plan: &Plan, folder: &Path) -> Result<PathBuf, BenchError> {
    let all = folder.join("all");
    let link = || {
        fs::create_dir(&all)?;
        for repository in [&plan.digits, &plan.realistic] {
            for entry in fs::read_dir(repository)? {
                let entry = entry?;
                std::os::unix::fs::symlink(entry.path(), all.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    link().map_err(|e| BenchError::System("put the models together", e))?;
    Ok(all)
}

fn add(to: &mut Histogram<u64>, measured: &Measured) {
    // Same bounds on both sides, so nothing is out of range.
    let _added = to.add(&measured.nanoseconds);
}

#[allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds of a minute fit 2^52"
)]
pub(super) fn microseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn say(what: &str) {
    eprintln!("measuring {what}");
}

impl Report {
    /// The report for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from(
            "Request to answer through Mosquitto, one after the other, microseconds\n\
             model       QoS   bytes in, out   runtime p50   echo p50    p99   agent p50    p99   added p50\n",
        );
        for m in &self.models {
            let _infallible = writeln!(
                text,
                "{:<11} {:>3} {:>8} {:>6}   {:>11.1}   {:>8.0} {:>6.0}   {:>9.0} {:>6.0}   {:>9.0}",
                m.model,
                m.qos,
                m.request_bytes,
                m.answer_bytes,
                m.runtime_p50_us,
                m.echo_p50_us,
                m.echo_p99_us,
                m.agent_p50_us,
                m.agent_p99_us,
                m.added_p50_us
            );
        }
        text.push_str(
            "added = agent - echo - runtime; the echo answers with as many bytes and does nothing else\n",
        );
        for part in [
            self.rivals.table(),
            self.fairness.table(),
            self.waiting.table(),
            self.sessions.table(),
            self.copies.table(),
            self.ways.table(),
        ] {
            text.push('\n');
            text.push_str(&part);
        }
        let mib = |kib: u64| {
            #[allow(clippy::cast_precision_loss, reason = "memory in KiB fits 2^52")]
            let mib = kib as f64 / 1024.0;
            mib
        };
        let _infallible = writeln!(
            text,
            "\nResident memory of the agent: {:.1} MiB without models, {:.1} MiB with digits, {:.1} MiB with all three\n\
             Start to first answer: {:.0} ms",
            mib(self.memory_without_models_kib),
            mib(self.memory_with_digits_kib),
            mib(self.memory_with_all_kib),
            self.start_to_first_answer_ms
        );
        text
    }
}
