//! ONNX Runtime with nothing around it: the floor of every inference.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ort::environment::Environment;
use ort::session::{Session, builder::GraphOptimizationLevel};
use ort::value::{TensorElementType, TensorRef, ValueType};

use super::BenchError;

/// A model of one `FP32` input, loaded as the agent loads it, on one thread.
pub struct Floor {
    session: Session,
    /// Shape of its input.
    pub shape: Vec<i64>,
    data: Vec<f32>,
    /// Bytes of its input.
    pub input_bytes: usize,
    /// Name of its input.
    pub input: String,
    /// Time of one run, in nanoseconds.
    pub nanoseconds: Histogram<u64>,
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads of one run.
    pub threads: usize,
    /// Whether ONNX Runtime keeps memory from run to run.
    pub arena: bool,
    /// Whether its threads spin while they wait.
    pub spinning: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 1,
            arena: true,
            spinning: false,
        }
    }
}

/// ONNX Runtime in this process, which can have only one.
pub struct Runtime(Environment);

impl Runtime {
    /// Loads the library.
    ///
    /// # Errors
    /// When it is refused.
    pub fn load(library: &Path) -> Result<Self, BenchError> {
        let environment = ort::init_from(library)?.with_telemetry(false).build()?;
        Ok(Self(environment))
    }

    /// Loads a model as the agent does and runs it a few times, since the first runs plan memory.
    ///
    /// # Errors
    /// When the runtime refuses the model, or its input is another.
    pub fn floor(&self, graph: &Path) -> Result<Floor, BenchError> {
        self.floor_with(graph, Options::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`Runtime::floor`].
    pub fn floor_with(&self, graph: &Path, options: Options) -> Result<Floor, BenchError> {
        let processor = ort::ep::CPU::default().with_arena_allocator(options.arena);
        let session = Session::builder(&self.0)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(ort::Error::from)?
            .with_intra_threads(options.threads)
            .map_err(ort::Error::from)?
            .with_intra_op_spinning(options.spinning)
            .map_err(ort::Error::from)?
            .with_execution_providers([processor.build().error_on_failure()])
            .map_err(ort::Error::from)?
            .commit_from_file(graph)?;
        let unknown = |why| BenchError::Model(graph.display().to_string(), why);
        let (input, shape): (String, Vec<i64>) = match session.inputs() {
            [input] => match input.dtype() {
                ValueType::Tensor {
                    ty: TensorElementType::Float32,
                    shape,
                    ..
                } => {
                    let lengths = shape.iter().map(|length| (*length).max(1));
                    (input.name().to_owned(), lengths.collect())
                }
                _ => return Err(unknown("its input is not FP32")),
            },
            _ => return Err(unknown("it has more than one input")),
        };
        let data = vec![0.0; elements(&shape)];
        let mut floor = Floor {
            session,
            shape,
            input,
            input_bytes: size_of_val(data.as_slice()),
            data,
            nanoseconds: histogram(),
        };
        for _ in 0..3 {
            floor.run_once()?;
        }
        Ok(floor)
    }
}

impl Floor {
    /// Runs the model for `time`, at least once.
    ///
    /// # Errors
    /// When the runtime fails.
    pub fn run(&mut self, time: Duration) -> Result<(), BenchError> {
        let started = Instant::now();
        loop {
            let before = Instant::now();
            self.run_once()?;
            let nanoseconds = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.nanoseconds.saturating_record(nanoseconds);
            if started.elapsed() >= time {
                return Ok(());
            }
        }
    }

    fn run_once(&mut self) -> Result<(), BenchError> {
        let input = TensorRef::from_array_view((self.shape.clone(), self.data.as_slice()))?;
        self.session.run(ort::inputs![input])?;
        Ok(())
    }
}

fn elements(shape: &[i64]) -> usize {
    let lengths = shape
        .iter()
        .map(|length| usize::try_from(*length).unwrap_or(1));
    lengths.product()
}

/// A histogram of nanoseconds up to a minute, to three digits.
#[allow(
    clippy::expect_used,
    reason = "the bounds are constants that the histogram accepts"
)]
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("1 < a minute, 3 digits")
}
