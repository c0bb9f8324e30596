//! Benchmarks: each prints what it measured beside a floor or a peer measured in the same run.
//!
//! - [`inference`]: `cargo xtask bench inference`
//! - [`flash`]: `cargo xtask bench flash`
//! - [`telemetry`]: `cargo xtask bench telemetry`
//! - [`load`]: an MQTT client that keeps a number of requests in flight
//! - [`echo`]: the smallest responder that the transport allows
//! - [`runtime`]: ONNX Runtime with nothing around it; [`session`]: in a process of its own
//! - [`thermal`]: `cargo xtask bench thermal`

pub mod echo;
pub mod flash;
pub mod inference;
pub mod load;
pub mod runtime;
pub mod session;
pub mod telemetry;
pub mod thermal;

/// A benchmark that could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A process.
    #[error(transparent)]
    Process(#[from] crate::processes::ProcessError),
    /// A command.
    #[error(transparent)]
    Command(#[from] crate::shell::CommandError),
    /// What a command printed.
    #[error("cannot understand what a part of the benchmark printed")]
    Printed(#[from] serde_json::Error),
    /// `edgectl` did not flash.
    #[error("edgectl did not flash: {0}")]
    Flash(String),
    /// The system refused.
    #[error("could not {0}")]
    System(&'static str, #[source] std::io::Error),
    /// ONNX Runtime.
    #[error("ONNX Runtime: {0}")]
    Runtime(#[from] ort::Error),
    /// ONNX Runtime's library.
    #[error("ONNX Runtime cannot be loaded: {0}")]
    Library(#[from] ort::LoadDynamicError),
    /// The MQTT connection.
    #[error("the connection to the broker ended: {0}")]
    Connection(Box<rumqttc::v5::ConnectionError>),
    /// No answer for too long.
    #[error("no answer on {topic} within {seconds} s ({answered} came before)")]
    Silence {
        /// Where the requests went.
        topic: String,
        /// How long.
        seconds: u64,
        /// How many came.
        answered: u64,
    },
    /// An answer that is none.
    #[error("a request to {topic} was answered with status {status}: {body}")]
    Refused {
        /// Where the request went.
        topic: String,
        /// HTTP code.
        status: String,
        /// The answer's body.
        body: String,
    },
    /// The simulated board.
    #[error(transparent)]
    Board(#[from] edge_hal::BoardError),
    /// What happens to it.
    #[error(transparent)]
    Script(#[from] edge_hal::sim::ScriptError),
    /// A script for another board.
    #[error(transparent)]
    Simulation(#[from] edge_hal::sim::SimBoardError),
    /// A model that the benchmark does not know how to feed.
    #[error("{0}: {1}")]
    Model(String, &'static str),
}

impl From<rumqttc::v5::ConnectionError> for BenchError {
    fn from(error: rumqttc::v5::ConnectionError) -> Self {
        Self::Connection(Box::new(error))
    }
}
