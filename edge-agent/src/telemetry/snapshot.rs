//! Takes the values of all metrics at once.

use std::{sync::Arc, time::Instant};

use edge_hal::{Board, Sensors};
use edge_protocol::{Status, metric, sparkplug::Value};
use tracing::warn;

use crate::{
    inference::{ModelReport, ModelState, Models, PROVIDER},
    requests::service::Service,
};

/// Where the values come from.
pub(crate) struct Source {
    board: String,
    kernel: String,
    /// 32 bits, so that JSON readers that know only doubles keep all of it.
    instance: u32,
    started: Instant,
    sensors: Sensors,
    models: Arc<Models>,
    service: Arc<Service>,
    faults: Vec<String>,
}

impl Source {
    pub(crate) fn new(
        board: &Board,
        sensors: Sensors,
        models: Arc<Models>,
        service: Arc<Service>,
    ) -> Self {
        Self {
            board: board.name.clone(),
            kernel: sensors.kernel_release(),
            instance: rand::random(),
            started: Instant::now(),
            sensors,
            models,
            service,
            faults: Vec::new(),
        }
    }

    /// Takes all values. Reads hardware, so it may wait.
    pub(super) fn take(&mut self) -> Vec<(String, Value)> {
        let mut metrics = Vec::with_capacity(64);
        let mut put = |name: &str, value: Value| metrics.push((name.to_owned(), value));
        put(metric::BOARD, Value::Text(self.board.clone()));
        put(
            metric::AGENT_VERSION,
            Value::Text(env!("CARGO_PKG_VERSION").to_owned()),
        );
        put(metric::KERNEL_VERSION, Value::Text(self.kernel.clone()));
        put(metric::INSTANCE, Value::UInt(self.instance.into()));
        put(
            metric::UPTIME_S,
            Value::UInt(self.started.elapsed().as_secs()),
        );
        let readings = self.sensors.read();
        if let Some(load) = readings.cpu_load_percent {
            put(metric::CPU_LOAD_PERCENT, Value::Double(load.into()));
        }
        for (name, bytes) in [
            (metric::MEMORY_TOTAL_BYTES, readings.memory_total_bytes),
            (
                metric::MEMORY_AVAILABLE_BYTES,
                readings.memory_available_bytes,
            ),
            (metric::AGENT_RESIDENT_BYTES, readings.agent_resident_bytes),
            (metric::STORAGE_TOTAL_BYTES, readings.storage_total_bytes),
            (
                metric::STORAGE_AVAILABLE_BYTES,
                readings.storage_available_bytes,
            ),
        ] {
            if let Some(bytes) = bytes {
                put(name, Value::UInt(bytes));
            }
        }
        for (zone, millicelsius) in &readings.temperatures {
            let name = format!("{}{zone}", metric::TEMPERATURE_PREFIX);
            put(&name, Value::Int((*millicelsius).into()));
        }
        for (reason, count) in self.service.dropped() {
            put(
                &format!("{}{reason}", metric::DROPPED_PREFIX),
                Value::UInt(count),
            );
        }
        for report in self.models.report() {
            take_model(&report, &mut put);
        }
        if readings.faults != self.faults {
            for fault in &readings.faults {
                warn!(fault, "a sensor cannot be read");
            }
            self.faults = readings.faults;
        }
        metrics
    }
}

fn take_model(report: &ModelReport, put: &mut impl FnMut(&str, Value)) {
    let mut put = |name: &str, value| put(&metric::of_model(report.name.as_str(), name), value);
    put(metric::PROVIDER, Value::Text(PROVIDER.to_owned()));
    put(metric::MODEL_VERSION, Value::UInt(report.version));
    let state = match &report.state {
        ModelState::Loading => "loading".to_owned(),
        ModelState::Ready => "ready".to_owned(),
        ModelState::Failed(why) => format!("failed: {why}"),
    };
    put(metric::MODEL_STATE, Value::Text(state));
    for (status, count) in report.statistics.outcomes() {
        if status == Status::Ok {
            put(metric::SUCCESS, Value::UInt(count));
        } else {
            let name = format!("{}{}", metric::FAILURE_PREFIX, status.reason());
            put(&name, Value::UInt(count));
        }
    }
    let (queue_us, compute_us) = report.statistics.totals_us();
    put(metric::QUEUE_US, Value::UInt(queue_us));
    put(metric::COMPUTE_US, Value::UInt(compute_us));
    // Zeros before the first run, since a name that the birth lacks would need another birth.
    let medians = report.statistics.take_medians_us();
    if let Some((queue_us, compute_us)) = medians.or((compute_us == 0).then_some((0, 0))) {
        put(metric::QUEUE_P50_US, Value::UInt(queue_us));
        put(metric::COMPUTE_P50_US, Value::UInt(compute_us));
    }
}
