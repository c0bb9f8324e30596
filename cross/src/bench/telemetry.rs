//! `cargo xtask bench telemetry`: what a box at rest costs: bytes of MQTT, and time of the processor.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use serde::Serialize;

use super::BenchError;
use crate::processes::{self, Process};

/// Topic of the heartbeats.
const TOPIC: &str = "spBv1.0/bench/NDATA/box-1";
/// The agent's default heartbeat.
const HEARTBEAT_S: f64 = 60.0;
/// The agent's keep-alive, on each of its connections.
const KEEP_ALIVE_S: f64 = 20.0;
/// Its connections: own requests, shared ones, telemetry.
const CONNECTIONS: f64 = 3.0;
/// A QoS 0 PUBLISH without payload: fixed header 2, topic length 2, property length 1 (MQTT 5, section 3.3).
const PUBLISH_BYTES: usize = 5;
/// The smallest Sparkplug payload: time 7 (tag, 6 bytes of varint), sequence number 2.
const PAYLOAD_BYTES: usize = 9;
/// PINGREQ and PINGRESP (MQTT 5, sections 3.12 and 3.13).
const PING_BYTES: f64 = 4.0;

/// What to measure with.
#[derive(Debug)]
pub struct Plan {
    /// Folder with the release binary of the agent.
    pub programs: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// The committed repository, with `digits`.
    pub digits: PathBuf,
    /// How long the box rests.
    pub rest: Duration,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    rest_s: f64,
    /// Both directions of all connections until the box rests: connects, subscriptions, births.
    start_bytes: u64,
    /// Both directions of all connections while it rests.
    rest_bytes: u64,
    bytes_per_hour: f64,
    floor_bytes_per_hour: f64,
    cpu_percent_of_a_core: f64,
}

/// Runs the benchmark; says on standard error what it does.
///
/// # Errors
/// When a process fails or the system refuses.
pub fn run(plan: &Plan) -> Result<Report, BenchError> {
    let system = |what| move |source| BenchError::System(what, source);
    let folder = tempfile::tempdir().map_err(system("create a folder"))?;
    let folder = folder.path();
    let [port] = processes::free_ports().map_err(system("find a port"))?;
    let _broker = processes::mosquitto(port, folder)?;
    let meter = Meter::before(port).map_err(system("listen for the agent"))?;
    let mut agent = start(plan, meter.port, folder)?;
    let log = agent.log_file();
    agent.wait_until("it serves", Duration::from_secs(60), || {
        fs::read_to_string(&log).is_ok_and(|log| log.matches("taking requests").count() >= 2)
    })?;
    eprintln!("the box settles for 20 s");
    thread::sleep(Duration::from_secs(20));
    let start_bytes = meter.bytes();
    let cpu_before = cpu_time(agent.id()).map_err(system("read the agent's processor time"))?;
    let started = Instant::now();
    eprintln!("the box rests for {} s", plan.rest.as_secs());
    thread::sleep(plan.rest);
    let rest_s = started.elapsed().as_secs_f64();
    let cpu_after = cpu_time(agent.id()).map_err(system("read the agent's processor time"))?;
    let rest_bytes = meter.bytes() - start_bytes;
    agent.must_run("the end of the measurement")?;
    #[allow(clippy::cast_precision_loss, reason = "bytes of an hour fit 2^52")]
    let bytes_per_hour = rest_bytes as f64 * 3600.0 / rest_s;
    Ok(Report {
        rest_s,
        start_bytes,
        rest_bytes,
        bytes_per_hour,
        floor_bytes_per_hour: floor_bytes_per_hour(),
        cpu_percent_of_a_core: (cpu_after - cpu_before).as_secs_f64() / rest_s * 100.0,
    })
}

/// The smallest heartbeats that Sparkplug allows, and the pings that keep three connections.
fn floor_bytes_per_hour() -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "tens of bytes")]
    let heartbeat = (PUBLISH_BYTES + TOPIC.len() + PAYLOAD_BYTES) as f64;
    3600.0 / HEARTBEAT_S * heartbeat + 3600.0 / KEEP_ALIVE_S * CONNECTIONS * PING_BYTES
}

fn start(plan: &Plan, port: u16, folder: &Path) -> Result<Process, BenchError> {
    let arguments = [
        "run".to_owned(),
        "--region=bench".to_owned(),
        "--box-id=box-1".to_owned(),
        "--board=host-sim".to_owned(),
        format!("--broker=mqtt://127.0.0.1:{port}"),
        format!("--models={}", plan.digits.display()),
        format!("--data={}", folder.join("data").display()),
        format!("--onnxruntime={}", plan.onnxruntime.display()),
    ];
    let program = plan.programs.join("edge-agent");
    Ok(Process::start("agent", &program, arguments, folder)?)
}

/// Processor time of all threads of a process so far (`/proc/PID/task/*/schedstat`: nanoseconds on a core).
fn cpu_time(process: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end in between; what it spent is then lost to both readings.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let on_core = text.split_ascii_whitespace().next();
        nanoseconds += on_core
            .and_then(|text| text.parse::<u64>().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Stands between the agent and the broker and counts what passes, in both directions.
struct Meter {
    port: u16,
    bytes: Arc<AtomicU64>,
}

impl Meter {
    /// A meter before the broker at `port` of this machine.
    fn before(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let this = Self {
            port: listener.local_addr()?.port(),
            bytes: Arc::default(),
        };
        let bytes = this.bytes.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                // A connection that fails ends at the agent, which tries again.
                let _ended = client.and_then(|client| connect(&client, port, &bytes));
            }
        });
        Ok(this)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Copies both directions on threads that end with the connection.
fn connect(client: &TcpStream, port: u16, bytes: &Arc<AtomicU64>) -> io::Result<()> {
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    for (from, to) in [(client, &broker), (&broker, client)] {
        to.set_nodelay(true)?;
        let (from, to, bytes) = (from.try_clone()?, to.try_clone()?, bytes.clone());
        thread::spawn(move || {
            let _ended = copy(&from, &to, &bytes);
            let _closed = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, bytes: &AtomicU64) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        bytes.fetch_add(read as u64, Ordering::Relaxed);
        to.write_all(buffer.get(..read).unwrap_or_default())?;
    }
}

impl Report {
    /// The report for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("A box at rest for {:.0} s, with digits\n", self.rest_s);
        let _infallible = writeln!(
            text,
            "MQTT, both directions    {:>8.1} kB an hour   floor {:.1} kB, ratio {:.1}; {:.1} kB more at each start\n\
             processor                {:>8.3} % of a core",
            self.bytes_per_hour / 1e3,
            self.floor_bytes_per_hour / 1e3,
            self.bytes_per_hour / self.floor_bytes_per_hour,
            kilobytes(self.start_bytes),
            self.cpu_percent_of_a_core,
        );
        let _infallible = writeln!(
            text,
            "floor = the smallest Sparkplug heartbeat each {HEARTBEAT_S:.0} s, and the pings of {CONNECTIONS:.0} connections each {KEEP_ALIVE_S:.0} s"
        );
        text
    }
}

fn kilobytes(bytes: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "bytes of a start fit 2^52")]
    let bytes = bytes as f64;
    bytes / 1e3
}
