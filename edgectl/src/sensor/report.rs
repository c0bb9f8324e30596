//! What a run's outcome looks like: a table for people, one JSON object for programs.

use std::{collections::BTreeMap, time::Duration};

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde::Serialize;

use super::{ledger, run::Outcome};

/// The figures of a run. Its JSON is `edgectl sense --json`'s output, and keeps its keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Requests sent, each once however often it was repeated.
    pub requests: u64,
    /// Requests answered with status 200.
    pub answered: u64,
    /// Answered requests with the expected label.
    pub correct: u64,
    /// Share of right labels among the answered requests with a known label; `null` without any.
    pub accuracy: Option<f64>,
    /// Requests that failed, by status, or `expired`, `bad-answer`, `abandoned`.
    pub failures: BTreeMap<String, u64>,
    /// Times that a request was sent again.
    pub retries: u64,
    /// Answers to requests that had been answered before.
    pub duplicates: u64,
    /// Answers to requests that had been given up.
    pub late: u64,
    /// Time from first sending to answer; `null` when nothing was answered.
    pub latency_us: Option<Latency>,
    /// Length of the run.
    pub seconds: f64,
    #[serde(skip)]
    first_messages: BTreeMap<String, String>,
    #[serde(skip)]
    undelivered: Option<PubAckReason>,
}

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 90 of 100 are at most this.
    pub p90: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Report {
    /// The figures of `outcome`.
    #[must_use]
    pub fn new(outcome: &Outcome) -> Self {
        let tally = &outcome.tally;
        let histogram = &tally.latency_us;
        let latency = Latency {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        };
        Self {
            requests: tally.requests,
            answered: tally.answered,
            correct: tally.correct,
            accuracy: share(tally.correct, tally.labelled),
            failures: tally
                .failures
                .iter()
                .map(|(reason, failure)| (reason.clone(), failure.count))
                .collect(),
            retries: tally.retries,
            duplicates: tally.duplicates,
            late: tally.late,
            latency_us: (tally.answered > 0).then_some(latency),
            seconds: outcome.elapsed.as_secs_f64(),
            first_messages: tally
                .failures
                .iter()
                .map(|(reason, failure)| (reason.clone(), failure.first_message.clone()))
                .collect(),
            undelivered: outcome.undelivered,
        }
    }

    /// Whether every request was answered with status 200.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }

    /// The table for people; each line ends.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        line("requests", self.requests.to_string());
        line("answered", with_share(self.answered, self.requests));
        let correct = self.accuracy.map_or_else(
            || "unknown: the data has no labels, or nothing was answered".to_owned(),
            |accuracy| format!("{}  ({:.1} %)", self.correct, accuracy * 100.0),
        );
        line("correct", correct);
        for (reason, count) in &self.failures {
            let message = self.first_messages.get(reason).map_or("", String::as_str);
            let words = match (reason.as_str(), message) {
                (_, "") => String::new(),
                (ledger::EXPIRED | ledger::ABANDONED, message) => format!("  {message}"),
                (_, message) => format!("  first: {message}"),
            };
            line(&format!("failed: {reason}"), format!("{count}{words}"));
        }
        line("sent again", self.retries.to_string());
        line("answered twice", self.duplicates.to_string());
        if self.late > 0 {
            line("answered too late", self.late.to_string());
        }
        if let Some(latency) = self.latency_us {
            let Latency { p50, p90, p99, max } = latency;
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(milliseconds);
            line(
                "latency",
                format!("p50 {p50}   p90 {p90}   p99 {p99}   max {max}"),
            );
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.answered as f64 / self.seconds.max(f64::MIN_POSITIVE);
        line(
            "throughput",
            format!("{rate:.0} answers/s over {:.2} s", self.seconds),
        );
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut table = String::new();
        for (name, value) in lines {
            table.push_str(&format!("{name:<width$}  {value}\n"));
        }
        if let Some(hint) = self.hint() {
            table.push_str(&format!("\n{hint}\n"));
        }
        table
    }

    /// What to do about requests that nobody answered.
    fn hint(&self) -> Option<&'static str> {
        if !self.failures.contains_key(ledger::EXPIRED) {
            return None;
        }
        Some(match self.undelivered {
            Some(PubAckReason::NoMatchingSubscribers) => {
                "The broker passed requests to nobody: no box of this region subscribes to this model. \
                 Check --region, --model and --box, and that a box is online."
            }
            Some(PubAckReason::NotAuthorized) => {
                "The broker did not let this client publish: its access list must allow the request topic."
            }
            Some(_) => "The broker refused some requests; its log says why.",
            None => {
                "Some requests were never answered: check that a box of this region serves the model, and its log."
            }
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn with_share(part: u64, whole: u64) -> String {
    match share(part, whole) {
        Some(share) => format!("{part}  ({:.1} %)", share * 100.0),
        None => part.to_string(),
    }
}

fn milliseconds(us: u64) -> String {
    format!("{:.3} ms", Duration::from_micros(us).as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::ledger::{Ledger, Verdict};
    use edge_protocol::sensor::Patience;

    fn outcome(events: &[(u64, Verdict)], undelivered: Option<PubAckReason>) -> Outcome {
        let mut ledger = Ledger::new(Patience::until(Duration::from_secs(30)));
        for (latency_us, verdict) in events {
            let number = ledger.begin(Duration::ZERO).number;
            let now = Duration::from_micros(*latency_us);
            ledger.answer(now, number, verdict.clone());
        }
        let end = Duration::from_secs(30);
        while ledger.take_due(end).is_some() {}
        Outcome {
            tally: ledger.close("the run was interrupted"),
            elapsed: Duration::from_millis(1_250),
            undelivered,
            lost: None,
        }
    }

    fn good(latency_us: u64) -> (u64, Verdict) {
        let is_correct = Some(true);
        (latency_us, Verdict::Answered { is_correct })
    }

    fn mixed() -> Outcome {
        let mut events: Vec<_> = (1..=98).map(|n| good(300 + n)).collect();
        let wrong = Verdict::Answered {
            is_correct: Some(false),
        };
        events.push((12_345, wrong));
        events.push(good(15_001));
        let shape = "input \"pixels\" has shape [1, 3], the model wants [-1, 64]".to_owned();
        for message in [shape, "later".to_owned()] {
            let reason = "400".to_owned();
            events.push((500, Verdict::Failed { reason, message }));
        }
        let full = Verdict::NotNow {
            status: 503,
            retry_after: Some(Duration::from_secs(60)),
            message: "queue full".to_owned(),
        };
        events.push((400, full));
        outcome(&events, None)
    }

    #[test]
    fn table_of_a_clean_run() {
        let report = Report::new(&outcome(&[good(310), good(290), good(1_234)], None));
        assert!(report.is_clean());
        insta::assert_snapshot!(report.table());
    }

    #[test]
    fn table_and_json_of_a_mixed_run() {
        let report = Report::new(&mixed());
        assert!(!report.is_clean());
        insta::assert_snapshot!(report.table());
        insta::assert_json_snapshot!(report);
    }

    #[test]
    fn table_and_json_when_nobody_answers() {
        let mut ledger = Ledger::new(Patience::until(Duration::from_secs(5)));
        ledger.begin(Duration::ZERO);
        while ledger.take_due(Duration::from_secs(5)).is_some() {}
        let report = Report::new(&Outcome {
            tally: ledger.close(""),
            elapsed: Duration::from_secs(5),
            undelivered: Some(PubAckReason::NoMatchingSubscribers),
            lost: None,
        });
        insta::assert_snapshot!(report.table());
        insta::assert_json_snapshot!(report);
    }
}
