//! Verdicts on the box itself: settings, board, clock, identity, agent, watchdog.

use std::path::{Path, PathBuf};

use edge_hal::{Board, clock::ClockTrust};

use super::super::finding::{Check, Finding};
use super::{is_simulated, span_s};
use crate::health::ladder::{History, Rungs};

/// No clock is right that shows an earlier time: 2026-11-24, when these lines were written.
const NOT_BEFORE_S: u64 = 1_795_478_400;
/// A stated error over which certificates and expiry times of requests go wrong, in microseconds.
const CLOCK_ERROR_MAX_US: u64 = 1_000_000;

/// What is set, and what is missing.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct SettingsFacts {
    pub(in super::super) file: Option<PathBuf>,
    /// Why the file is not used.
    pub(in super::super) file_error: Option<String>,
    pub(in super::super) region: Option<String>,
    pub(in super::super) box_id: Option<String>,
    pub(in super::super) has_broker: bool,
}

pub(in super::super) fn settings(facts: &SettingsFacts) -> Finding {
    if let Some(why) = &facts.file_error {
        return Finding::bad(
            Check::Settings,
            why,
            "correct the file, or name another one with --config",
        );
    }
    let missing: Vec<&str> = [
        ("region", facts.region.is_none()),
        ("box-id", facts.box_id.is_none()),
        ("broker", !facts.has_broker),
    ]
    .into_iter()
    .filter_map(|(flag, is_missing)| is_missing.then_some(flag))
    .collect();
    let source = facts.file.as_ref().map_or_else(
        || "no settings file".to_owned(),
        |file| file.display().to_string(),
    );
    let Some(first) = missing.first() else {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        return Finding::good(
            Check::Settings,
            format!(
                "{} in region {} ({source})",
                name(&facts.box_id),
                name(&facts.region)
            ),
        )
        .detail("region", facts.region.clone())
        .detail("box_id", facts.box_id.clone());
    };
    let key = first.replace('-', "_");
    Finding::bad(
        Check::Settings,
        format!("not set: {} ({source})", missing.join(", ")),
        format!(
            "the agent does not start without; give --{first} or write {key} = \"...\" into the file that --config \
             names"
        ),
    )
}

/// `how` says how the board was chosen: `as set`, `by default`.
pub(in super::super) fn board(board: Result<&Board, &str>, how: &str) -> Finding {
    let board = match board {
        Ok(board) => board,
        Err(why) => {
            return Finding::bad(
                Check::Board,
                why,
                "the agent does not start without its board; correct --board or the file",
            );
        }
    };
    let value = format!("{}: {} ({how})", board.name, board.description);
    let finding = if board.unconfirmed.is_empty() {
        Finding::good(Check::Board, value)
    } else {
        Finding::warning(
            Check::Board,
            format!(
                "{value}; unconfirmed values: {}",
                board.unconfirmed.join(", ")
            ),
            "no public source confirms these values of the board file; compare them with the hardware",
        )
    };
    finding
        .detail("name", board.name.clone())
        .detail("chosen_by", how)
        .detail("simulated", is_simulated(board))
        .detail("unconfirmed", board.unconfirmed.clone())
}

/// Parts that the board file names and that cannot be used, each with the reason.
pub(in super::super) fn parts(missing: &[(String, String)]) -> Vec<Finding> {
    if missing.is_empty() {
        return vec![Finding::good(
            Check::Parts,
            "all that the board file names are there",
        )];
    }
    missing
        .iter()
        .map(|(part, why)| {
            Finding::bad(
                Check::Parts,
                why,
                "load the driver, check the wiring, or take the part out of the board file",
            )
            .part(part.replace(' ', "-"))
        })
        .collect()
}

/// The time, and what the kernel says of it.
pub(in super::super) fn clock(now_s: u64, trust: &Result<ClockTrust, String>) -> Finding {
    const SYNCHRONISE: &str = "let a time service hold it: timedatectl set-ntp true";
    let finding = if now_s < NOT_BEFORE_S {
        Finding::bad(
            Check::Clock,
            format!("{now_s} s since 1970: before this program was written"),
            format!("requests expire wrongly and updates are refused; {SYNCHRONISE}"),
        )
    } else {
        match trust {
            Err(why) => Finding::warning(Check::Clock, why, SYNCHRONISE),
            Ok(trust) if !trust.is_synchronised => Finding::warning(
                Check::Clock,
                "plausible, but no time service holds it",
                SYNCHRONISE,
            ),
            Ok(trust) => {
                let value = format!(
                    "synchronised, at most {} ms off",
                    trust.max_error_us.div_ceil(1_000)
                );
                if trust.max_error_us > CLOCK_ERROR_MAX_US {
                    Finding::warning(
                        Check::Clock,
                        value,
                        "check that the time server is reached: timedatectl timesync-status",
                    )
                } else {
                    Finding::good(Check::Clock, value)
                }
            }
        }
    };
    let finding = finding.detail("unix_s", now_s);
    match trust {
        Ok(trust) => finding
            .detail("synchronised", trust.is_synchronised)
            .detail("max_error_us", trust.max_error_us),
        Err(_) => finding,
    }
}

/// The box's key on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum IdentityFacts {
    Absent,
    /// Its fingerprint.
    Key(String),
    /// Why it cannot be used.
    Unusable(String),
}

/// `days_left` is what is left of the certificate, where the broker wants one.
pub(in super::super) fn identity(
    path: &Path,
    facts: &IdentityFacts,
    days_left: Option<&Result<i64, String>>,
) -> Finding {
    match facts {
        IdentityFacts::Absent => Finding::warning(
            Check::Identity,
            format!("no key yet at {}", path.display()),
            "the agent makes it at its first start; if this box had one, restore it, or the region sees a new box",
        ),
        IdentityFacts::Unusable(why) => Finding::bad(
            Check::Identity,
            why,
            "until this is set right the box cannot prove who it is",
        ),
        IdentityFacts::Key(fingerprint) => {
            let finding = match days_left {
                None => Finding::good(Check::Identity, format!("fingerprint {fingerprint}")),
                Some(Ok(days)) if *days < 0 => Finding::bad(
                    Check::Identity,
                    format!("the certificate has ended; fingerprint {fingerprint}"),
                    "the agent asks for another one by itself: see its log, and whether the clock is right",
                ),
                Some(Ok(days)) => Finding::good(
                    Check::Identity,
                    format!("certificate for {days} more days, fingerprint {fingerprint}"),
                )
                .detail("days_left", *days),
                Some(Err(why)) => Finding::warning(
                    Check::Identity,
                    format!("{why}; fingerprint {fingerprint}"),
                    "an admin approves it: edgectl ca approve NAME FINGERPRINT; or give the box an enrolment token",
                ),
            };
            finding.detail("fingerprint", fingerprint.replace(' ', ""))
        }
    }
}

/// The process id of the agent that holds the data folder.
pub(in super::super) fn agent(running: &Result<Option<u32>, String>) -> Finding {
    match running {
        Ok(Some(process)) => Finding::good(Check::Agent, format!("runs as process {process}"))
            .detail("process", *process),
        Ok(None) => Finding::warning(
            Check::Agent,
            "does not run on this data folder",
            "start it: systemctl start edge-agent, or edge-agent run; if it does run, give doctor the same --config and --data",
        ),
        Err(why) => Finding::warning(
            Check::Agent,
            why,
            "run doctor as the agent's user or as root",
        ),
    }
}

/// What the agent keeps of what was done about stuck parts. `has_one` says whether the board has a watchdog.
pub(in super::super) fn watchdog(has_one: bool, history: History) -> Finding {
    let resets_max = Rungs::new(None).resets_max;
    let ends = match history.agent_ends {
        0 => String::new(),
        ends => format!("; in this boot the agent ended itself {ends} times over stuck parts"),
    };
    let resets = history.resets;
    let finding = if !has_one {
        Finding::good(Check::Watchdog, format!("the board has none{ends}"))
    } else if resets >= resets_max {
        Finding::bad(
            Check::Watchdog,
            format!(
                "{resets} resets of the box have not helped, so it is fed whatever is stuck{ends}"
            ),
            "find what hangs: journalctl -u edge-agent -b -1; an hour of calm starts the count again",
        )
    } else if resets > 0 {
        Finding::warning(
            Check::Watchdog,
            format!("the box was reset {resets} times without an hour of calm in between{ends}"),
            format!(
                "find what hangs: journalctl -u edge-agent -b -1; after {resets_max} resets there are no more"
            ),
        )
    } else if history.agent_ends > 0 {
        Finding::warning(
            Check::Watchdog,
            format!("no reset of late{ends}"),
            "find what hangs: journalctl -u edge-agent",
        )
    } else {
        Finding::good(Check::Watchdog, "no reset of late")
    };
    finding
        .detail("resets", resets)
        .detail("agent_ends", history.agent_ends)
}

/// What `doctor` says of a check that did not end.
pub(in super::super) fn hanging(check: Check, limit_s: u64) -> Finding {
    Finding::bad(
        check,
        format!("did not answer in {}", span_s(limit_s)),
        "something that this check reads hangs (disk, bus, network); dmesg may say which, --timeout gives it longer",
    )
}

/// What `doctor` says of a check that failed itself.
pub(in super::super) fn failed(check: Check, why: &str) -> Finding {
    Finding::bad(
        check,
        format!("could not be checked: {why}"),
        "this is a fault of doctor: tell its makers, with what it printed",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::super::finding::Verdict, super::verdicts, *};

    use Verdict::{Bad, Good, Warning};

    #[test]
    fn settings_that_are_missing_are_named() {
        let whole = SettingsFacts {
            region: Some("lab".into()),
            box_id: Some("box-1".into()),
            has_broker: true,
            ..SettingsFacts::default()
        };
        assert_eq!(verdicts([settings(&whole)]), [Good]);
        let part = SettingsFacts {
            box_id: None,
            ..whole.clone()
        };
        let finding = settings(&part);
        assert_eq!(finding.value, "not set: box-id (no settings file)");
        assert!(finding.advice.unwrap().contains("box_id = "));
        let broken = SettingsFacts {
            file_error: Some("cannot read".into()),
            ..whole
        };
        assert_eq!(verdicts([settings(&broken)]), [Bad]);
    }

    #[test]
    fn boards() {
        let mut sim = Board::builtin("host-sim").unwrap();
        let good = board(Ok(&sim), "by default");
        assert!(good.value.ends_with("(by default)"), "{}", good.value);
        sim.unconfirmed = vec!["gpu.max_khz".into()];
        let unconfirmed = board(Ok(&sim), "as set");
        assert!(unconfirmed.value.contains("gpu.max_khz"));
        let missing = board(Err("no board is called \"x\""), "as set");
        assert_eq!(verdicts([good, unconfirmed, missing]), [Good, Warning, Bad]);
    }

    #[test]
    fn missing_parts_have_a_line_each() {
        assert_eq!(verdicts(parts(&[])), [Good]);
        let missing = [("fan", "no chip"), ("cpu load", "no file")]
            .map(|(part, why)| (part.to_owned(), why.to_owned()));
        let found = parts(&missing);
        assert_eq!(found[1].subject.to_string(), "parts/cpu-load");
        assert_eq!(verdicts(found), [Bad, Bad]);
    }

    #[test]
    fn clocks() {
        let now = NOT_BEFORE_S + 1;
        let trust = |is_synchronised, max_error_us| {
            Ok(ClockTrust {
                is_synchronised,
                max_error_us,
            })
        };
        let found = [
            clock(now, &trust(true, 1_500)),
            clock(now, &trust(true, 1_000_001)),
            clock(now, &trust(false, 16_000_000)),
            clock(now, &Err("refused".into())),
            clock(NOT_BEFORE_S - 1, &trust(true, 1)),
            clock(0, &Err("refused".into())),
        ];
        assert_eq!(found[0].value, "synchronised, at most 2 ms off");
        assert_eq!(verdicts(found), [Good, Warning, Warning, Warning, Bad, Bad]);
    }

    #[test]
    fn identities() {
        let path = Path::new("/data/identity.key");
        let found = [
            IdentityFacts::Absent,
            IdentityFacts::Key("01ab 23cd".into()),
            IdentityFacts::Unusable("others may read it".into()),
        ]
        .map(|facts| identity(path, &facts, None));
        assert_eq!(found[1].details["fingerprint"], "01ab23cd");
        assert_eq!(verdicts(found), [Warning, Good, Bad]);
        let key = IdentityFacts::Key("01ab 23cd".into());
        let found = [Ok(5), Ok(0), Ok(-1), Err("no certificate yet".to_owned())]
            .map(|days| identity(path, &key, Some(&days)));
        assert_eq!(
            found[0].value,
            "certificate for 5 more days, fingerprint 01ab 23cd"
        );
        assert_eq!(verdicts(found), [Good, Good, Bad, Warning]);
    }

    #[test]
    fn agents() {
        let found = [Ok(Some(7)), Ok(None), Err("no right".to_owned())].map(|f| agent(&f));
        assert_eq!(verdicts(found), [Good, Warning, Warning]);
    }

    #[test]
    fn what_the_watchdog_did() {
        let history = |resets, agent_ends| History {
            agent_ends,
            resets,
            is_reset_wanted: false,
        };
        let found = [
            watchdog(true, history(0, 0)),
            watchdog(false, history(0, 0)),
            watchdog(true, history(0, 2)),
            watchdog(true, history(1, 0)),
            watchdog(true, history(3, 1)),
        ];
        assert_eq!(found[0].value, "no reset of late");
        assert!(found[4].value.contains("have not helped"));
        assert_eq!(found[4].details["resets"], 3);
        assert_eq!(verdicts(found), [Good, Good, Warning, Warning, Bad]);
    }
}
