//! The agent for boxes as it is shipped, with ONNX Runtime for boxes, under QEMU's emulator of single programs.
//!
//! Run by `cargo xtask test --only aarch64`, which builds the agent and names it in `EDGE_FOREIGN_AGENT`.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use cross::cache::{Arch, Cache};
use cross::processes::Process;
use cross::region::{self, Broker, Plan, Region};
use cross::sensor::{Sensor, Until};
use cross::setup::emulator::LIBRARIES;

/// Starting takes ten seconds under emulation on an idle machine.
const LIMIT: Duration = Duration::from_secs(150);

fn named_by(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test --only aarch64`"))
}

/// What a shipped agent may take, in bytes.
const AGENT_MAX: u64 = 15_000_000;

#[test]
fn an_agent_for_boxes_reads_digits() {
    let cache = Cache::from_env().expect("a cache folder");
    let mut region = Region::start(Plan {
        programs: support::programs(),
        onnxruntime: support::onnxruntime(),
        models: cross::committed_models(),
        broker: Broker::Embedded,
        boxes: 0,
        mqtt_port: None,
        http_port: None,
    })
    .expect("a region");
    let data = region.folder().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let agent = named_by("EDGE_FOREIGN_AGENT");
    let bytes = std::fs::metadata(&agent).expect("an agent").len();
    assert!(bytes <= AGENT_MAX, "the agent has {bytes} bytes");
    let text = |path: PathBuf| path.display().to_string();
    let broker = region.broker_url();
    let arguments = [
        ["-L", LIBRARIES],
        [&text(agent), "run"],
        ["--board", "host-sim"],
        ["--region", region::NAME],
        ["--box-id", "box-arm"],
        ["--broker", &broker],
        ["--models", &text(cross::committed_models())],
        ["--data", &text(data)],
        ["--onnxruntime", &text(cache.onnxruntime(Arch::Aarch64))],
    ];
    let emulator = named_by("EDGE_EMULATOR");
    let arguments = arguments.as_flattened();
    let mut agent =
        Process::start("box-arm", &emulator, arguments, region.folder()).expect("an agent");
    region
        .wait_until("the agent serves its model", LIMIT, |region| {
            let boxes = region.boxes().unwrap_or_default();
            boxes.iter().any(region::is_serving)
        })
        .unwrap_or_else(|error| panic!("{error}{}", agent.log()));
    agent.must_run("it serves").expect("an agent");

    let images = cross::heldout_images();
    let sensor =
        Sensor::start(&region, "sensor-1", &images, Until::Count(30), 10).expect("a sensor");
    let result = sensor.result(LIMIT).expect("a result");
    assert_eq!(result.answered, 30, "{result:?}");
    assert!(result.correct >= 29, "{result:?}");
    agent.stop().expect("an agent that ends in order");
    region.stop().expect("the end");
}
