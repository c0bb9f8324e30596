//! The box's figures in Prometheus's text format, with the names and labels of Triton where Triton has the same. Pure.

use std::fmt::Write;

use edge_protocol::Status;

use crate::inference::{BOUNDS_US, Figures, Spread, Stage};

/// Content type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why a request failed, by Triton's names.
const fn reason(status: Status) -> &'static str {
    match status {
        // Turned away by a queue, a quota or a deadline.
        Status::DeadlinePassed | Status::QuotaExceeded | Status::Unavailable => "REJECTED",
        Status::RuntimeFailed => "BACKEND",
        Status::Ok
        | Status::BadRequest
        | Status::Forbidden
        | Status::NotFound
        | Status::TooLarge => "OTHER",
    }
}

/// A metric with one value for each version of a model.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Figures) -> u64,
}

const METRICS: [Metric; 9] = [
    Metric {
        name: "nv_inference_request_success",
        kind: "counter",
        help: "Number of successful inference requests",
        value: |figures| figures.outcome(Status::Ok),
    },
    Metric {
        name: "nv_inference_count",
        kind: "counter",
        help: "Number of inferences performed (does not include cached requests)",
        value: |figures| figures.inferences,
    },
    Metric {
        name: "nv_inference_exec_count",
        kind: "counter",
        help: "Number of model executions performed (does not include cached requests)",
        value: |figures| figures.executions,
    },
    Metric {
        name: "nv_inference_pending_request_count",
        kind: "gauge",
        help: "Instantaneous number of pending requests awaiting execution",
        value: |figures| figures.pending,
    },
    Metric {
        name: "nv_inference_request_duration_us",
        kind: "counter",
        help: "Cumulative inference request duration in microseconds",
        value: |figures| figures.total.total_us,
    },
    Metric {
        name: "nv_inference_queue_duration_us",
        kind: "counter",
        help: "Cumulative inference queuing duration in microseconds",
        value: |figures| figures.stage_us(Stage::Queue),
    },
    Metric {
        name: "nv_inference_compute_input_duration_us",
        kind: "counter",
        help: "Cumulative compute input duration in microseconds",
        value: |figures| figures.stage_us(Stage::Input),
    },
    Metric {
        name: "nv_inference_compute_infer_duration_us",
        kind: "counter",
        help: "Cumulative compute inference duration in microseconds",
        value: |figures| figures.stage_us(Stage::Infer),
    },
    Metric {
        name: "nv_inference_compute_output_duration_us",
        kind: "counter",
        help: "Cumulative inference compute output duration in microseconds",
        value: |figures| figures.stage_us(Stage::Output),
    },
];

/// Name of the histogram of every stage, in seconds as Prometheus wants it.
const STAGES: &str = "edge_inference_stage_duration_seconds";
/// Name of the histogram of whole requests.
const REQUEST: &str = "edge_inference_request_duration_seconds";

/// The figures of all versions.
pub(super) fn text(all: &[Figures]) -> String {
    let mut text = String::new();
    for metric in &METRICS {
        head(&mut text, metric.name, metric.kind, metric.help);
        for figures in all {
            line(&mut text, metric.name, figures, "", (metric.value)(figures));
        }
    }
    let failure = "nv_inference_request_failure";
    head(
        &mut text,
        failure,
        "counter",
        "Number of failed inference requests",
    );
    for figures in all {
        for name in ["REJECTED", "BACKEND", "OTHER"] {
            let failed = figures
                .outcomes
                .iter()
                .filter(|(status, _)| *status != Status::Ok);
            let count = failed
                .filter(|(status, _)| reason(*status) == name)
                .map(|(_, count)| count)
                .sum();
            line(
                &mut text,
                failure,
                figures,
                &format!(",reason=\"{name}\""),
                count,
            );
        }
    }
    head(
        &mut text,
        REQUEST,
        "histogram",
        "Time from a request's arrival to its answer",
    );
    for figures in all {
        histogram(&mut text, REQUEST, figures, "", &figures.total);
    }
    head(
        &mut text,
        STAGES,
        "histogram",
        "Time that a request spends in each stage",
    );
    for figures in all {
        for (stage, spread) in &figures.stages {
            let label = format!(",stage=\"{}\"", stage.name());
            histogram(&mut text, STAGES, figures, &label, spread);
        }
    }
    text
}

// Writing to a text cannot fail.
fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
}

fn line(text: &mut String, name: &str, figures: &Figures, more: &str, value: u64) {
    let Figures { model, version, .. } = figures;
    writeln!(
        text,
        "{name}{{model=\"{model}\",version=\"{version}\"{more}}} {value}"
    )
    .ok();
}

#[allow(
    clippy::cast_precision_loss,
    reason = "Prometheus's numbers are doubles"
)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn histogram(text: &mut String, name: &str, figures: &Figures, more: &str, spread: &Spread) {
    let bucket = format!("{name}_bucket");
    for (bound, count) in BOUNDS_US.iter().zip(spread.at_most) {
        let more = format!("{more},le=\"{}\"", seconds(*bound));
        line(text, &bucket, figures, &more, count);
    }
    line(
        text,
        &bucket,
        figures,
        &format!("{more},le=\"+Inf\""),
        spread.count,
    );
    let Figures { model, version, .. } = figures;
    let labels = format!("{{model=\"{model}\",version=\"{version}\"{more}}}");
    writeln!(text, "{name}_sum{labels} {}", seconds(spread.total_us)).ok();
    writeln!(text, "{name}_count{labels} {}", spread.count).ok();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edge_protocol::Id;

    use super::*;
    use crate::inference::{Stages, Times};

    #[test]
    fn figures_have_tritons_names_and_labels() {
        let stages = Stages::default();
        let us = Duration::from_micros;
        stages.record(&Times {
            queue: us(70),
            input: us(5),
            infer: us(300),
            output: us(8),
            total: us(400),
        });
        let figures = Figures {
            model: Id::new("digits").unwrap(),
            version: 3,
            outcomes: vec![
                (Status::Ok, 5),
                (Status::BadRequest, 1),
                (Status::QuotaExceeded, 2),
                (Status::Unavailable, 4),
                (Status::RuntimeFailed, 7),
            ],
            inferences: 9,
            executions: 6,
            pending: 2,
            stages: stages.spreads().collect(),
            total: stages.total(),
        };
        insta::assert_snapshot!(text(&[figures]));
    }
}
