//! What `doctor` prints: lines for people, one JSON object for programs. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use super::finding::{Finding, Verdict};

/// All that was found, in the order of the checks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of the program that checked.
    pub agent_version: &'static str,
    /// The worst verdict of all.
    pub verdict: Verdict,
    /// How many checks were good.
    pub good: usize,
    /// How many want somebody to look.
    pub warnings: usize,
    /// How many were bad.
    pub bad: usize,
    /// What each check found.
    pub checks: Vec<Finding>,
}

impl Report {
    /// The findings in the order of their checks; within a check in the order given.
    #[must_use]
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.subject.check);
        let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
        Self {
            agent_version: env!("CARGO_PKG_VERSION"),
            verdict: findings
                .iter()
                .map(|finding| finding.verdict)
                .max()
                .unwrap_or(Verdict::Good),
            good: count(Verdict::Good),
            warnings: count(Verdict::Warning),
            bad: count(Verdict::Bad),
            checks: findings,
        }
    }

    /// Lines for people; with `colours`, for a terminal that shows them.
    #[must_use]
    pub fn text(&self, colours: bool) -> String {
        let width = self
            .checks
            .iter()
            .map(|finding| finding.subject.to_string().chars().count())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        let mut group = None;
        for finding in &self.checks {
            let its_group = finding.subject.check.group();
            if group.replace(its_group) != Some(its_group) {
                let gap = if text.is_empty() { "" } else { "\n" };
                write(&mut text, format_args!("{gap}{}\n", its_group.title()));
            }
            let (colour, end) = if colours {
                (colour(finding.verdict), "\x1b[0m")
            } else {
                ("", "")
            };
            write(
                &mut text,
                format_args!(
                    "  {colour}{} {:7}{end}  {:width$}  {}\n",
                    mark(finding.verdict),
                    finding.verdict,
                    finding.subject,
                    printable(&finding.value),
                ),
            );
            if let Some(advice) = &finding.advice {
                // Below the value, since both on one line are wider than terminals are.
                let indent = 2 + 2 + 7 + 2 + width + 2;
                write(
                    &mut text,
                    format_args!("{:indent$}→ {}\n", "", printable(advice)),
                );
            }
        }
        write(&mut text, format_args!("\n{}\n", self.summary()));
        text
    }

    /// One JSON object on lines of its own.
    #[must_use]
    pub fn json(&self) -> String {
        // Texts, numbers and lists of them: nothing that JSON cannot say.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    fn summary(&self) -> String {
        match (self.warnings, self.bad) {
            (0, 0) => "all good".to_owned(),
            (warnings, bad) => {
                let plural = if warnings == 1 { "" } else { "s" };
                format!("{warnings} warning{plural}, {bad} bad")
            }
        }
    }
}

/// Writing to a text cannot fail.
fn write(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _written = text.write_fmt(arguments);
}

/// A broker or a file may have said this: control characters would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

const fn mark(verdict: Verdict) -> char {
    match verdict {
        Verdict::Good => '✓',
        Verdict::Warning => '!',
        Verdict::Bad => '✗',
    }
}

const fn colour(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "\x1b[32m",
        Verdict::Warning => "\x1b[33m",
        Verdict::Bad => "\x1b[31m",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Check, *};

    fn report() -> Report {
        let report = Report::new(vec![
            Finding::bad(
                Check::Broker,
                "mqtt://10.0.0.7:1883 refuses the connection",
                "start the broker, or correct --broker",
            )
            .detail("url", "mqtt://10.0.0.7:1883"),
            Finding::good(Check::Board, "host-sim: this machine, with simulated parts"),
            Finding::good(Check::Temperature, "41.5 °C of 80.0 °C")
                .part("cpu")
                .detail("millicelsius", 41_500),
            Finding::warning(
                Check::UpdateServer,
                "not set: this box gets no updates",
                "set update_server\x1b[2J",
            ),
        ]);
        Report {
            agent_version: "1.2.3",
            ..report
        }
    }

    #[test]
    fn lines_for_people() {
        insta::assert_snapshot!(report().text(false));
    }

    #[test]
    fn json_for_programs() {
        insta::assert_snapshot!(report().json());
    }

    #[test]
    fn colours_only_where_asked() {
        assert!(!report().text(false).contains('\x1b'));
        assert_eq!(report().text(true).matches("\x1b[0m").count(), 4);
    }

    #[test]
    fn counts_say_what_they_count() {
        let only = |findings: Vec<Finding>| {
            let text = Report::new(findings).text(false);
            text.lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(only(vec![Finding::good(Check::Clock, "")]), "all good");
        let warning = || Finding::warning(Check::Clock, "", "");
        assert_eq!(only(vec![warning()]), "1 warning, 0 bad");
        assert_eq!(
            only(vec![
                warning(),
                warning(),
                Finding::bad(Check::Clock, "", "")
            ]),
            "2 warnings, 1 bad"
        );
    }
}
