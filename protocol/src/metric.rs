//! Names of a box's telemetry metrics: `group/name`, or `inference/{model}/name`.

/// Board name, as in `board-configs/`.
pub const BOARD: &str = "system/board";
/// Version of the agent.
pub const AGENT_VERSION: &str = "system/agent_version";
/// Version of the kernel.
pub const KERNEL_VERSION: &str = "system/kernel_version";
/// Random number of this run of the agent: two live boxes with one id differ in it.
pub const INSTANCE: &str = "system/instance";
/// Seconds since the agent started.
pub const UPTIME_S: &str = "system/uptime_s";
/// Share of CPU time in use over the last interval, 0 to 100, all cores together.
pub const CPU_LOAD_PERCENT: &str = "cpu/load_percent";
/// Prefix of temperatures, followed by the zone's name, in thousandths of a degree Celsius.
pub const TEMPERATURE_PREFIX: &str = "temperature_millicelsius/";
/// Bytes of main memory.
pub const MEMORY_TOTAL_BYTES: &str = "memory/total_bytes";
/// Bytes of main memory that programs can still have.
pub const MEMORY_AVAILABLE_BYTES: &str = "memory/available_bytes";
/// Resident bytes of the agent itself.
pub const AGENT_RESIDENT_BYTES: &str = "memory/agent_resident_bytes";
/// Bytes of the file system that holds the agent's data.
pub const STORAGE_TOTAL_BYTES: &str = "storage/total_bytes";
/// Bytes of it that are free for the agent.
pub const STORAGE_AVAILABLE_BYTES: &str = "storage/available_bytes";

/// Prefix of cluster clocks: `cpu/{cluster}/khz`, in thousands of cycles a second.
pub const CPU_PREFIX: &str = "cpu/";
/// End of the name of a cluster's clock.
pub const KHZ: &str = "khz";
/// Share of time that some program waited for memory in the last 10 s, in percent (pressure stall information).
pub const MEMORY_PRESSURE_PERCENT: &str = "memory/pressure_percent";
/// Upper bound of the storage's life that is used up, in percent.
pub const STORAGE_WORN_PERCENT: &str = "storage/worn_percent";
/// Bytes written to the storage since the kernel started.
pub const STORAGE_WRITTEN_BYTES: &str = "storage/written_bytes";
/// Clock of the GPU, in thousands of cycles a second.
pub const GPU_KHZ: &str = "gpu/khz";
/// Share of time that the GPU was busy, 0 to 100.
pub const GPU_LOAD_PERCENT: &str = "gpu/load_percent";
/// Turns of the fan a minute.
pub const FAN_RPM: &str = "fan/rpm";
/// Speed that the governor gave the fan, 0 to 100.
pub const FAN_PERCENT: &str = "fan/percent";
/// Prefix of powers, followed by the rail's name, in thousandths of a watt.
pub const POWER_PREFIX: &str = "power_milliwatts/";
/// Prefix of voltages, followed by the rail's name, in thousandths of a volt.
pub const VOLTAGE_PREFIX: &str = "voltage_millivolts/";
/// Prefix of a network link's metrics: `network/{link}/`.
pub const NETWORK_PREFIX: &str = "network/";
/// Whether a link carries traffic.
pub const LINK_UP: &str = "up";
/// Bytes received by a link since it came up.
pub const RX_BYTES: &str = "rx_bytes";
/// Bytes sent by a link since it came up.
pub const TX_BYTES: &str = "tx_bytes";
/// Whether a time service holds the clock.
pub const CLOCK_IS_SYNCHRONISED: &str = "clock/is_synchronised";
/// Why the box last started: `power-on`, `watchdog`, ...
pub const RESET_REASON: &str = "system/reset_reason";
/// Models that may compute at once on average, as the governor decided for the board's heat: 2.4 are two all the time
/// and a third for 0.4 of it.
pub const INFERENCE_CONCURRENCY: &str = "thermal/inference_concurrency";

/// Prefix of metrics of one model: `inference/{model}/`.
pub const INFERENCE_PREFIX: &str = "inference/";
/// Execution provider that runs the model, by its name in board files; empty while none does.
pub const PROVIDER: &str = "provider";
/// The board's other execution providers, as `PROVIDER: REASON; ...`.
pub const REFUSED_PROVIDERS: &str = "refused_providers";
/// Version of the model being served.
pub const MODEL_VERSION: &str = "version";
/// `loading`, `ready`, `evicted` (loaded again when it is asked for), `unloaded` or `failed: REASON`.
pub const MODEL_STATE: &str = "state";
/// Highest version that could not be loaded, as `VERSION: REASON`, where it is that which serves or a higher one;
/// else empty.
pub const FAILED_VERSION: &str = "failed_version";
/// Requests answered with 200 since the agent started.
pub const SUCCESS: &str = "success";
/// Prefix of failed requests since the agent started, followed by [`crate::Status::reason`].
pub const FAILURE_PREFIX: &str = "failure/";
/// Rows that were computed since the agent started, each row of a batch by itself.
pub const INFERENCES: &str = "inferences";
/// Runs that it took.
pub const EXECUTIONS: &str = "executions";
/// Requests that wait now.
pub const PENDING: &str = "pending";
/// Total time from arrival to answer of the requests that ran since the agent started, in microseconds.
pub const REQUEST_US: &str = "request_us";
/// Total time of reading them, in microseconds.
pub const INPUT_US: &str = "input_us";
/// Total time of writing their answers, in microseconds.
pub const OUTPUT_US: &str = "output_us";
/// Total time that requests waited in the queue since the agent started, in microseconds.
pub const QUEUE_US: &str = "queue_us";
/// Total time of the runtime since the agent started, in microseconds.
pub const COMPUTE_US: &str = "compute_us";
/// Median wait in the queue over the last interval in which requests ran, in microseconds.
pub const QUEUE_P50_US: &str = "queue_p50_us";
/// Median time of the runtime over the last interval in which requests ran, in microseconds.
pub const COMPUTE_P50_US: &str = "compute_p50_us";

/// Prefix of requests that could not be answered, followed by the reason (`no-response-topic`, ...).
pub const DROPPED_PREFIX: &str = "requests/dropped/";

/// Name of a metric of one model.
#[must_use]
pub fn of_model(model: &str, name: &str) -> String {
    format!("{INFERENCE_PREFIX}{model}/{name}")
}
