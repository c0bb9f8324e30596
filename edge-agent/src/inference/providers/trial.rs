//! Tries a model on an execution provider: the same fixed requests there and on the CPU, in turn. In a process of its
//! own, since a provider may crash.

use std::time::{Duration, Instant};

use edge_hal::board::{ExecutionProvider, SimProvider};
use edge_protocol::oip::Tensor;

use super::choice::Trial;
use crate::inference::{
    ModelEntry, Runtime,
    compare::difference,
    graph::Prepared,
    model_config::{Fill, Warmup},
    runtime::dispatch,
    warmup,
    worker::Run,
};

/// Timed runs of each, after one that is not; fewer when they take long.
const RUNS: usize = 21;
/// Fewest of them.
const RUNS_MIN: usize = 3;
/// Largest difference from the CPU's answers, relative to the largest value of an output, that other kernels and another
/// order of sums may make.
const TOLERANCE: f64 = 1e-3;
/// The same for providers that may compute in FP16, as Qualcomm's do by default.
const TOLERANCE_FP16: f64 = 1e-2;
/// Time after which no more than [`RUNS_MIN`] are made.
const LONG: Duration = Duration::from_secs(2);

/// Tries a version of a model on a provider.
pub(crate) fn try_provider(
    runtime: &Runtime,
    entry: &ModelEntry,
    provider: ExecutionProvider,
    sim: Option<SimProvider>,
) -> Trial {
    match dispatch(provider).1 {
        Ok(true) => {}
        Ok(false) => return Trial::Absent,
        Err(error) => {
            let why = error.to_string();
            return Trial::Failed { why };
        }
    }
    measure(runtime, entry, provider, sim).unwrap_or_else(|why| Trial::Failed { why })
}

fn measure(
    runtime: &Runtime,
    entry: &ModelEntry,
    provider: ExecutionProvider,
    sim: Option<SimProvider>,
) -> Result<Trial, String> {
    let on_cpu = |why| format!("there is nothing to compare with, since the CPU fails: {why}");
    let mut cpu = runtime
        .copy(entry, ExecutionProvider::Cpu, None, None)
        .map_err(on_cpu)?;
    let mut candidate = runtime.copy(entry, provider, sim, None)?;
    let graph = cpu.graph();
    let mut requests = Vec::new();
    for wanted in fixed(entry) {
        let request = warmup::request(&graph.signature().inputs, &wanted)?;
        requests.push(graph.prepare(request).map_err(|error| error.to_string())?);
    }
    let mut worst = Some(0.0_f64);
    for request in &requests {
        let (right, _) = run(&mut *cpu, request).map_err(on_cpu)?;
        let (answer, _) = run(&mut *candidate, request)?;
        let apart = right.iter().zip(&answer).map(|(a, b)| difference(a, b));
        worst = apart.fold(worst, |worst, apart| Some(worst?.max(apart?)));
    }
    let (mut cpu_us, mut run_us) = (Vec::new(), Vec::new());
    let started = Instant::now();
    for request in requests.iter().cycle().take(RUNS) {
        if run_us.len() >= RUNS_MIN && started.elapsed() > LONG {
            break;
        }
        cpu_us.push(run(&mut *cpu, request).map_err(on_cpu)?.1);
        run_us.push(run(&mut *candidate, request)?.1);
    }
    Ok(Trial::Ran {
        run_us: median(run_us),
        cpu_us: median(cpu_us),
        difference: worst,
        tolerance: tolerance(provider),
    })
}

/// What a model is tried with: its warm-up; without one, the same numbers each time.
fn fixed(entry: &ModelEntry) -> Vec<Warmup> {
    let given = entry.config.given_warmup();
    if given.is_empty() {
        return vec![Warmup::filled(Fill::Random)];
    }
    given.to_vec()
}

fn run(model: &mut dyn Run, request: &Prepared) -> Result<(Vec<Tensor>, f64), String> {
    let before = Instant::now();
    let outputs = model.run(std::slice::from_ref(request));
    let took_us = before.elapsed().as_secs_f64() * 1e6;
    let outputs = outputs.map_err(|error| error.to_string())?;
    Ok((outputs.into_iter().flatten().collect(), took_us))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

const fn tolerance(provider: ExecutionProvider) -> f64 {
    match provider {
        ExecutionProvider::Cpu
        | ExecutionProvider::Xnnpack
        | ExecutionProvider::Acl
        | ExecutionProvider::Sim => TOLERANCE,
        ExecutionProvider::QnnGpu | ExecutionProvider::QnnHtp => TOLERANCE_FP16,
    }
}
