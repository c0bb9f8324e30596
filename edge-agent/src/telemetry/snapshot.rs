//! Takes the values of all metrics at once.

use std::{sync::Arc, time::Instant};

use edge_hal::{Board, board::ExecutionProvider};
use edge_protocol::{Status, metric, sparkplug::Value};
use tracing::warn;

use crate::{
    hardware::{Hardware, Look, Looks},
    inference::{ModelReport, ModelState, Models, Stage},
    requests::service::Service,
};

/// Where the values come from.
pub(crate) struct Source {
    board: String,
    reset_reason: &'static str,
    /// 32 bits, so that JSON readers that know only doubles keep all of it.
    instance: u32,
    started: Instant,
    looks: Arc<Looks>,
    models: Arc<Models>,
    service: Arc<Service>,
    faults: Vec<edge_hal::sensors::Fault>,
}

impl Source {
    pub(crate) fn new(
        board: &Board,
        hardware: &Hardware,
        models: Arc<Models>,
        service: Arc<Service>,
    ) -> Self {
        Self {
            board: board.name.clone(),
            reset_reason: hardware.reset_reason(),
            instance: rand::random(),
            started: Instant::now(),
            looks: hardware.looks(),
            models,
            service,
            faults: Vec::new(),
        }
    }

    /// Takes all values. The first time it may wait for the hardware.
    pub(super) fn take(&mut self) -> Vec<(String, Value)> {
        let mut metrics = Vec::with_capacity(64);
        let mut put = |name: &str, value: Value| metrics.push((name.to_owned(), value));
        put(metric::BOARD, Value::Text(self.board.clone()));
        put(
            metric::AGENT_VERSION,
            Value::Text(env!("CARGO_PKG_VERSION").to_owned()),
        );
        put(metric::INSTANCE, Value::UInt(self.instance.into()));
        put(
            metric::UPTIME_S,
            Value::UInt(self.started.elapsed().as_secs()),
        );
        put(
            metric::RESET_REASON,
            Value::Text(self.reset_reason.to_owned()),
        );
        let look = self.looks.latest();
        take_board(&look, &mut put);
        for (reason, count) in self.service.dropped() {
            put(
                &format!("{}{reason}", metric::DROPPED_PREFIX),
                Value::UInt(count),
            );
        }
        for report in self.models.report() {
            take_model(&report, &mut put);
        }
        if look.readings.faults != self.faults {
            for fault in &look.readings.faults {
                warn!(%fault, "a sensor cannot be read");
            }
            self.faults = look.readings.faults;
        }
        metrics
    }
}

/// What the board says and what the governor made of it. A part that the board does not have has no metric.
fn take_board(look: &Look, put: &mut impl FnMut(&str, Value)) {
    let readings = &look.readings;
    if let Some(release) = &readings.kernel_release {
        put(metric::KERNEL_VERSION, Value::Text(release.to_string()));
    }
    if let Some(load) = readings.cpu_load_percent {
        put(metric::CPU_LOAD_PERCENT, Value::Double(load.into()));
    }
    for (cluster, clock) in &readings.cpu_clocks {
        let name = format!("{}{cluster}/{}", metric::CPU_PREFIX, metric::KHZ);
        put(&name, Value::UInt(clock.khz.into()));
    }
    let wear = readings.wear.unwrap_or_default();
    let gpu = readings.gpu.unwrap_or_default();
    for (name, value) in [
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
        (
            metric::STORAGE_WORN_PERCENT,
            wear.used_percent.map(u64::from),
        ),
        (metric::STORAGE_WRITTEN_BYTES, wear.written_bytes),
        (metric::GPU_KHZ, gpu.khz.map(u64::from)),
        (metric::FAN_RPM, readings.fan_rpm.map(u64::from)),
    ] {
        if let Some(value) = value {
            put(name, Value::UInt(value));
        }
    }
    if let Some(pressure) = readings.memory_pressure {
        let percent = Value::Double(pressure.some_percent.into());
        put(metric::MEMORY_PRESSURE_PERCENT, percent);
    }
    if let Some(load) = gpu.load_percent {
        put(metric::GPU_LOAD_PERCENT, Value::Double(load.into()));
    }
    for (zone, millicelsius) in &readings.temperatures {
        let name = format!("{}{zone}", metric::TEMPERATURE_PREFIX);
        put(&name, Value::Int((*millicelsius).into()));
    }
    for (rail, reading) in &readings.power {
        for (prefix, value) in [
            (metric::POWER_PREFIX, reading.milliwatts),
            (metric::VOLTAGE_PREFIX, reading.millivolts),
        ] {
            if let Some(value) = value {
                put(&format!("{prefix}{rail}"), Value::Int(value));
            }
        }
    }
    for link in &readings.links {
        let name = |end| format!("{}{}/{end}", metric::NETWORK_PREFIX, link.name);
        put(&name(metric::LINK_UP), Value::Bool(link.is_up));
        put(&name(metric::RX_BYTES), Value::UInt(link.received_bytes));
        put(&name(metric::TX_BYTES), Value::UInt(link.sent_bytes));
    }
    if let Some(trust) = readings.clock_trust {
        let is_synchronised = Value::Bool(trust.is_synchronised);
        put(metric::CLOCK_IS_SYNCHRONISED, is_synchronised);
    }
    if let Some(decision) = look.decision {
        let concurrency = f64::from(decision.inference_concurrency_milli) / 1_000.0;
        put(metric::INFERENCE_CONCURRENCY, Value::Double(concurrency));
        if look.has_fan {
            put(
                metric::FAN_PERCENT,
                Value::UInt(decision.fan_percent.into()),
            );
        }
    }
}

fn take_model(report: &ModelReport, put: &mut impl FnMut(&str, Value)) {
    let mut put = |name: &str, value| put(&metric::of_model(report.name.as_str(), name), value);
    let provider = report.provider.map_or("", ExecutionProvider::name);
    put(metric::PROVIDER, Value::Text(provider.to_owned()));
    let refused = report.refused_providers.join("; ");
    put(metric::REFUSED_PROVIDERS, Value::Text(refused));
    put(metric::MODEL_VERSION, Value::UInt(report.version));
    let state = match &report.state {
        ModelState::Loading => "loading".to_owned(),
        ModelState::Ready => "ready".to_owned(),
        ModelState::Evicted => "evicted".to_owned(),
        ModelState::Failed(why) => format!("failed: {why}"),
        ModelState::Unloaded => "unloaded".to_owned(),
    };
    put(metric::MODEL_STATE, Value::Text(state));
    let failed = report
        .failed
        .as_ref()
        .map(|(version, why)| format!("{version}: {why}"));
    put(
        metric::FAILED_VERSION,
        Value::Text(failed.unwrap_or_default()),
    );
    for (status, count) in report.statistics.outcomes() {
        if status == Status::Ok {
            put(metric::SUCCESS, Value::UInt(count));
        } else {
            let name = format!("{}{}", metric::FAILURE_PREFIX, status.reason());
            put(&name, Value::UInt(count));
        }
    }
    let (inferences, executions) = report.statistics.runs();
    put(metric::INFERENCES, Value::UInt(inferences));
    put(metric::EXECUTIONS, Value::UInt(executions));
    put(metric::PENDING, Value::UInt(report.waiting as u64));
    let stages = report.statistics.stages();
    put(metric::REQUEST_US, Value::UInt(stages.total().total_us));
    put(metric::INPUT_US, Value::UInt(stages.total_us(Stage::Input)));
    put(
        metric::OUTPUT_US,
        Value::UInt(stages.total_us(Stage::Output)),
    );
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use edge_protocol::Id;

    use super::*;
    use crate::inference::{Statistics, Times};

    #[test]
    fn a_model_reports_what_prometheus_gets() {
        let statistics = Statistics::new();
        let us = Duration::from_micros;
        statistics.executed(3);
        statistics.ended(Status::Ok);
        statistics.ended(Status::TooLarge);
        statistics.ran(&Times {
            queue: us(1),
            input: us(2),
            infer: us(3),
            output: us(4),
            total: us(11),
        });
        let report = ModelReport {
            name: Id::new("digits").unwrap(),
            version: 2,
            state: ModelState::Ready,
            provider: Some(ExecutionProvider::Cpu),
            refused_providers: vec!["acl: crashes".to_owned(), "xnnpack: slower".to_owned()],
            failed: Some((3, "bad graph".to_owned())),
            waiting: 5,
            statistics: Arc::new(statistics),
        };
        let mut metrics = BTreeMap::new();
        take_model(&report, &mut |name: &str, value| {
            metrics.insert(name.to_owned(), value);
        });
        let of = |name: &str| metrics.get(&metric::of_model("digits", name));
        for (name, value) in [
            (metric::SUCCESS, 1),
            ("failure/too-large", 1),
            (metric::INFERENCES, 3),
            (metric::EXECUTIONS, 1),
            (metric::PENDING, 5),
            (metric::QUEUE_US, 1),
            (metric::INPUT_US, 2),
            (metric::COMPUTE_US, 3),
            (metric::OUTPUT_US, 4),
            (metric::REQUEST_US, 11),
        ] {
            assert_eq!(of(name), Some(&Value::UInt(value)), "{name}");
        }
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(of(metric::PROVIDER), Some(&text("cpu")));
        let refused = text("acl: crashes; xnnpack: slower");
        assert_eq!(of(metric::REFUSED_PROVIDERS), Some(&refused));
        let failed = Value::Text("3: bad graph".to_owned());
        assert_eq!(of(metric::FAILED_VERSION), Some(&failed));
    }
}
