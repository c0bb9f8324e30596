//! How many rows of a model run together: what its settings wish, what its graph allows, and what a trial shows.

use std::time::{Duration, Instant};

use edge_protocol::{Datatype, Id, oip::Inputs, oip::Request, oip::Tensor};
use tracing::{info, warn};

use super::{
    compare::difference,
    graph::{Graph, Port},
    model::ModelError,
    model_config::ModelConfig,
    schedule::{Policy, Quota},
    worker::Run,
};

/// How many rows the settings want to run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// So many; up to 1 means alone.
    Rows(usize),
    /// As many as a trial shows to be worth it.
    Trial,
}

/// Most rows that a trial finds.
const TRIAL_ROWS_MAX: usize = 64;
/// A run that ends within this delays nobody much, whatever it saves.
const SHORT: Duration = Duration::from_micros(500);
/// A longer one must save a quarter of the time that its rows take alone, and end within this.
const LONG: Duration = Duration::from_millis(50);
/// Time for which one size is tried.
const TRIAL: Duration = Duration::from_millis(1);
/// Difference between an answer alone and with others, relative to the largest value of its output, that other kernels
/// and another order of sums may make.
const TOLERANCE: f64 = 1e-3;

/// What a model's settings wish.
pub(super) fn wish(config: &ModelConfig) -> (Policy, Wish) {
    let quota = Duration::from_secs(60).checked_div(config.client_requests_per_minute);
    let policy = Policy {
        max_queue_size: config.max_queue_size,
        max_queue_delay: Duration::from_micros(config.max_queue_delay_microseconds),
        priority_levels: config.priority_levels,
        default_priority_level: config.default_priority_level,
        quota: quota.map(|interval| Quota {
            interval,
            burst: config.client_burst,
        }),
        ..Policy::default()
    };
    (
        policy,
        config.max_batch_size.map_or(Wish::Trial, Wish::Rows),
    )
}

/// The policy for a model, of which this is a copy.
pub(super) fn policy(model: &mut dyn Run, name: &Id, policy: &Policy, wish: Wish) -> Policy {
    let graph = model.graph();
    let rows = match wish {
        Wish::Rows(0 | 1) => 1,
        Wish::Rows(rows) if graph.has_rows() => rows,
        Wish::Rows(_) => {
            let why = "an input or output of the graph has a fixed first dimension, or none";
            warn!(model = %name, why, "max_batch_size has no effect");
            1
        }
        Wish::Trial if graph.has_rows() => match worth(model, &graph) {
            Ok(rows) => rows,
            Err(why) => {
                info!(model = %name, why, "every request runs alone");
                1
            }
        },
        Wish::Trial => 1,
    };
    Policy {
        max_batch_size: rows,
        is_steady: graph.is_steady(),
        ..policy.clone()
    }
}

/// Rows up to which it pays to run together.
fn worth(model: &mut dyn Run, graph: &Graph) -> Result<usize, String> {
    let failed = |error: ModelError| format!("a trial run fails: {error}");
    // Different rows, so that an answer that depends on the others shows.
    let mut rows = vec![request(graph, 0)?];
    let alone = time(model, graph, &rows, 1).map_err(failed)?;
    let mut worth = 1;
    while worth < TRIAL_ROWS_MAX {
        let more = worth * 2;
        for seed in worth..more {
            rows.push(request(graph, seed)?);
        }
        let took = time(model, graph, &rows, more).map_err(failed)?;
        let saves = took * 4 <= alone * 3 * u32::try_from(more).unwrap_or(u32::MAX);
        if took > SHORT && !(saves && took <= LONG) {
            break;
        }
        worth = more;
    }
    if worth > 1 && !is_same(model, graph, &rows, worth).map_err(failed)? {
        return Err("a row's answer depends on the others that run with it".into());
    }
    Ok(worth)
}

/// The shortest time of a run of so many rows.
fn time(
    model: &mut dyn Run,
    graph: &Graph,
    rows: &[Request],
    count: usize,
) -> Result<Duration, ModelError> {
    let prepared = prepare(graph, rows.iter().take(count))?;
    // The first run plans memory.
    model.run(&prepared)?;
    let (started, mut shortest) = (Instant::now(), Duration::MAX);
    while started.elapsed() < TRIAL || shortest == Duration::MAX {
        let before = Instant::now();
        model.run(&prepared)?;
        shortest = shortest.min(before.elapsed());
    }
    Ok(shortest)
}

/// Whether the first and the last of so many rows get the same answers alone and together.
fn is_same(
    model: &mut dyn Run,
    graph: &Graph,
    rows: &[Request],
    count: usize,
) -> Result<bool, ModelError> {
    let together = model.run(&prepare(graph, rows.iter().take(count))?)?;
    for index in [0, count / 2, count - 1] {
        let alone = model.run(&prepare(graph, rows.iter().skip(index).take(1))?)?;
        let (Some(together), Some(alone)) = (together.get(index), alone.first()) else {
            return Ok(false);
        };
        let is_close = |(a, b)| difference(a, b).is_some_and(|apart| apart <= TOLERANCE);
        if !together.iter().zip(alone).all(is_close) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn prepare<'a>(
    graph: &Graph,
    rows: impl Iterator<Item = &'a Request>,
) -> Result<Vec<super::graph::Prepared>, ModelError> {
    rows.map(|request| graph.prepare(request.clone())).collect()
}

/// A request of one row, another one for each seed.
fn request(graph: &Graph, seed: usize) -> Result<Request, String> {
    let inputs = graph.inputs.iter().map(|port| input(port, seed));
    Ok(Request {
        inputs: Inputs::Named(inputs.collect::<Result<_, _>>()?),
        ..Request::default()
    })
}

fn input(port: &Port, seed: usize) -> Result<Tensor, String> {
    let shape: Vec<u64> = port
        .shape
        .iter()
        .map(|length| u64::try_from(*length).unwrap_or(1))
        .collect();
    let elements = shape
        .iter()
        .try_fold(1, |product: u64, length| product.checked_mul(*length));
    let elements = elements.and_then(|count| usize::try_from(count).ok());
    let elements = elements.filter(|count| *count <= edge_protocol::limit::REQUEST_MAX_BYTES);
    let elements = elements.ok_or("its inputs are too large for a trial")?;
    // 0 to 1 for fractions; 0 or 1 for what may be an index.
    let value = |index: usize| (index * 7 + seed * 13 + 3) % 11;
    let data: Vec<u8> = (0..elements)
        .flat_map(|index| {
            let (whole, part) = (value(index) % 2, value(index) as f32 / 10.0);
            element(port.datatype, whole == 1, part)
        })
        .collect();
    Tensor::new(port.name.clone(), port.datatype, shape, data.into())
        .map_err(|error| format!("no trial input can be made: {error}"))
}

fn element(datatype: Datatype, whole: bool, part: f32) -> Vec<u8> {
    let byte = u8::from(whole);
    match datatype {
        Datatype::Fp16 => half::f16::from_f32(part).to_le_bytes().to_vec(),
        Datatype::Bf16 => half::bf16::from_f32(part).to_le_bytes().to_vec(),
        Datatype::Fp32 => part.to_le_bytes().to_vec(),
        Datatype::Fp64 => f64::from(part).to_le_bytes().to_vec(),
        // An empty text, or one of one letter.
        Datatype::Bytes if whole => vec![1, 0, 0, 0, b'a'],
        Datatype::Bytes => vec![0; 4],
        integer => {
            let mut bytes = vec![0; integer.element_bytes().unwrap_or(1)];
            if let Some(lowest) = bytes.first_mut() {
                *lowest = byte;
            }
            bytes
        }
    }
}
