//! Verdicts on the box itself: settings, board, clock, identity, agent, storage, temperatures, memory.

use std::path::{Path, PathBuf};

use edge_hal::{
    Board,
    board::ThermalZoneConfig,
    clock::ClockTrust,
    storage::StorageBytes,
    storage_health::{Reserve, Wear},
};

use super::super::finding::{Check, Finding, Verdict};
use super::{bytes, is_simulated, span_s};

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

/// Room and, where the device states it, wear.
pub(in super::super) fn storage(
    room: &Result<StorageBytes, String>,
    wear: Option<&Result<Wear, String>>,
) -> Finding {
    let room = match room {
        Ok(room) => room,
        Err(why) => {
            return Finding::bad(
                Check::Storage,
                why,
                "check that the disk is there and mounted: dmesg, lsblk",
            );
        }
    };
    let free_percent = room
        .available
        .saturating_mul(100)
        .checked_div(room.total)
        .unwrap_or(0);
    let mut verdict = Verdict::Good;
    let mut advice = Vec::new();
    let mut add = |worse: Verdict, what: &str| {
        verdict = verdict.max(worse);
        advice.push(what.to_owned());
    };
    match free_percent {
        0..3 => add(
            Verdict::Bad,
            "delete what is not needed, such as old models and logs; updates and state no longer fit",
        ),
        3..10 => add(
            Verdict::Warning,
            "delete what is not needed, such as old models and logs",
        ),
        _ => {}
    }
    let mut value = format!("{} free of {}", bytes(room.available), bytes(room.total));
    match wear {
        None => {}
        Some(Err(why)) => {
            value = format!("{value}; its wear is not known: {why}");
            add(
                Verdict::Warning,
                "check that the board file names the right storage device",
            );
        }
        Some(Ok(wear)) => {
            if let Some(used) = wear.used_percent {
                value = format!("{value}; up to {used} % of its life used");
            }
            let used = wear.used_percent.unwrap_or(0);
            if used >= 100 || wear.reserve == Some(Reserve::Urgent) {
                add(
                    Verdict::Bad,
                    "copy the identity key away and replace the storage: it ends soon",
                );
            } else if used >= 80 || wear.reserve == Some(Reserve::Warning) {
                add(Verdict::Warning, "plan to replace the storage");
            }
        }
    }
    let advice = advice.join("; ");
    let finding = match verdict {
        Verdict::Good => Finding::good(Check::Storage, value),
        Verdict::Warning => Finding::warning(Check::Storage, value, advice),
        Verdict::Bad => Finding::bad(Check::Storage, value, advice),
    };
    let finding = finding
        .detail("total_bytes", room.total)
        .detail("available_bytes", room.available);
    match wear {
        Some(Ok(Wear {
            used_percent: Some(used),
            ..
        })) => finding.detail("life_used_percent", *used),
        _ => finding,
    }
}

/// What writing to the data folder gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum DataFacts {
    /// There is no such folder.
    Missing,
    /// A step failed: what was attempted, and why it failed.
    Failed(&'static str, String),
    /// What was written, forced to the disk and read back came back whole.
    Kept {
        /// How long that took.
        took_us: u64,
    },
}

/// A file that takes longer than this to reach the disk holds up the agent's state, in microseconds.
const SLOW_WRITE_US: u64 = 1_000_000;

pub(in super::super) fn data(folder: &Path, facts: &DataFacts) -> Finding {
    let folder = folder.display();
    match facts {
        DataFacts::Missing => Finding::warning(
            Check::Data,
            format!("{folder} does not exist yet"),
            "the agent makes it at its start; if it ran before, mount the disk or correct --data",
        ),
        DataFacts::Failed(attempt, why) => Finding::bad(
            Check::Data,
            format!("cannot {attempt} in {folder}: {why}"),
            "the agent keeps its state there: give it a folder that its user may write to (chown, mount, --data)",
        ),
        DataFacts::Kept { took_us } => {
            let value = format!("{folder} keeps what is written ({} ms)", took_us / 1_000);
            if *took_us > SLOW_WRITE_US {
                Finding::warning(
                    Check::Data,
                    value,
                    "the storage is slow: see what else writes (iostat), and its wear above",
                )
            } else {
                Finding::good(Check::Data, value)
            }
            .detail("write_us", *took_us)
        }
    }
}

/// One thermal zone: its temperature beside where it is held and where the kernel switches off.
pub(in super::super) fn temperature(
    zone: &ThermalZoneConfig,
    reading: Result<i32, &str>,
) -> Finding {
    let target = zone.target_millicelsius;
    let critical = zone.critical_millicelsius();
    let reading = match reading {
        Ok(reading) => reading,
        Err(why) => {
            return Finding::bad(
                Check::Temperature,
                why,
                "without it this part is not kept from overheating: load its driver or correct the board file",
            )
            .part(&zone.name);
        }
    };
    let mut value = degrees(reading);
    if let Some(target) = target {
        value = format!("{value}, held at {}", degrees(target));
    }
    if let Some(critical) = critical {
        value = format!("{value}, off at {}", degrees(critical));
    }
    // Sensors that are cut off read their lowest or highest value.
    let finding = if !(-40_000..=150_000).contains(&reading) {
        Finding::bad(
            Check::Temperature,
            format!("{}: no real temperature", degrees(reading)),
            "the sensor is broken or its driver wrong",
        )
    } else if critical.is_some_and(|critical| reading >= critical - 5_000) {
        Finding::bad(
            Check::Temperature,
            value,
            "about to switch off: let air to the box, clean the fan, take it out of the sun",
        )
    } else if target.is_some_and(|target| reading > target + 3_000) {
        Finding::warning(
            Check::Temperature,
            value,
            "warmer than it is held: let air to the box, check that the fan turns",
        )
    } else {
        Finding::good(Check::Temperature, value)
    };
    finding
        .part(&zone.name)
        .detail("millicelsius", reading)
        .detail("target_millicelsius", target)
        .detail("critical_millicelsius", critical)
}

fn degrees(millicelsius: i32) -> String {
    format!("{:.1} °C", f64::from(millicelsius) / 1_000.0)
}

/// Main memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct MemoryFacts {
    pub(in super::super) total: u64,
    pub(in super::super) available: u64,
    /// Share of the last 10 s in which some task waited for memory; `None` where the kernel does not say.
    pub(in super::super) pressure_percent: Option<f32>,
    /// What the running agent holds.
    pub(in super::super) agent_resident: Option<u64>,
}

pub(in super::super) fn memory(facts: &Result<MemoryFacts, String>) -> Finding {
    let facts = match facts {
        Ok(facts) => facts,
        Err(why) => {
            return Finding::bad(Check::Memory, why, "check that /proc is mounted");
        }
    };
    let free_percent = facts
        .available
        .saturating_mul(100)
        .checked_div(facts.total)
        .unwrap_or(0);
    let mut value = format!(
        "{} available of {}",
        bytes(facts.available),
        bytes(facts.total)
    );
    if let Some(pressure) = facts.pressure_percent {
        value = format!("{value}, {pressure:.0} % of the time somebody waits for it");
    }
    if let Some(resident) = facts.agent_resident {
        value = format!("{value}, the agent holds {}", bytes(resident));
    }
    let pressure = facts.pressure_percent.unwrap_or(0.0);
    let finding = if free_percent < 3 || pressure >= 40.0 {
        Finding::bad(
            Check::Memory,
            value,
            "programs are about to be killed: serve fewer or smaller models, or end other programs",
        )
    } else if free_percent < 10 || pressure >= 10.0 {
        Finding::warning(
            Check::Memory,
            value,
            "serve fewer or smaller models, or end other programs",
        )
    } else {
        Finding::good(Check::Memory, value)
    };
    finding
        .detail("total_bytes", facts.total)
        .detail("available_bytes", facts.available)
        .detail("agent_resident_bytes", facts.agent_resident)
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
    use super::*;

    use Verdict::{Bad, Good, Warning};

    fn verdicts(findings: impl IntoIterator<Item = Finding>) -> Vec<Verdict> {
        findings
            .into_iter()
            .inspect(|f| assert_eq!(f.advice.is_some(), f.verdict != Good, "{f:?}"))
            .map(|f| f.verdict)
            .collect()
    }

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
    fn room_and_wear() {
        let room = |available| {
            Ok(StorageBytes {
                total: 1_000,
                available,
            })
        };
        let found = [100, 99, 30, 29, 0].map(|available| storage(&room(available), None));
        assert_eq!(verdicts(found), [Good, Warning, Warning, Bad, Bad]);
        let none: Result<StorageBytes, String> = Err("no such folder".into());
        assert_eq!(verdicts([storage(&none, None)]), [Bad]);
        let nothing = StorageBytes {
            total: 0,
            available: 0,
        };
        assert_eq!(verdicts([storage(&Ok(nothing), None)]), [Bad]);
        let worn = |used_percent, reserve| {
            let wear = Ok(Wear {
                used_percent,
                reserve,
                written_bytes: None,
            });
            storage(&room(500), Some(&wear))
        };
        let found = [
            worn(None, None),
            worn(Some(70), Some(Reserve::Normal)),
            worn(Some(80), None),
            worn(Some(10), Some(Reserve::Warning)),
            worn(Some(110), None),
            worn(Some(10), Some(Reserve::Urgent)),
            storage(&room(500), Some(&Err("no file".into()))),
        ];
        assert_eq!(
            verdicts(found),
            [Good, Good, Warning, Warning, Bad, Bad, Warning]
        );
    }

    #[test]
    fn data_folders() {
        let folder = Path::new("/data");
        let found = [
            DataFacts::Kept { took_us: 4_200 },
            DataFacts::Kept { took_us: 1_000_001 },
            DataFacts::Missing,
            DataFacts::Failed("write", "read-only file system".into()),
        ]
        .map(|facts| data(folder, &facts));
        assert_eq!(found[0].value, "/data keeps what is written (4 ms)");
        assert_eq!(
            found[3].value,
            "cannot write in /data: read-only file system"
        );
        assert_eq!(verdicts(found), [Good, Warning, Warning, Bad]);
    }

    #[test]
    fn zones_beside_their_target_and_critical_trip() {
        let board = Board::builtin("host-sim").unwrap();
        let zone = &board.thermal_zones[0];
        let found = [
            41_500,
            83_000,
            83_001,
            104_999,
            105_000,
            150_001,
            -50_000,
            i32::MIN,
            i32::MAX,
        ]
        .map(|reading| temperature(zone, Ok(reading)));
        assert_eq!(found[0].value, "41.5 °C, held at 80.0 °C, off at 110.0 °C");
        assert_eq!(found[0].subject.to_string(), "temperature/cpu");
        assert_eq!(
            verdicts(found),
            [Good, Good, Warning, Warning, Bad, Bad, Bad, Bad, Bad]
        );
        assert_eq!(verdicts([temperature(zone, Err("no zone"))]), [Bad]);
    }

    #[test]
    fn memory_and_its_pressure() {
        let facts = |available, pressure_percent| {
            memory(&Ok(MemoryFacts {
                total: 1_000,
                available,
                pressure_percent,
                agent_resident: None,
            }))
        };
        let found = [
            facts(100, None),
            facts(99, None),
            facts(29, None),
            facts(500, Some(9.9)),
            facts(500, Some(10.0)),
            facts(500, Some(40.0)),
            memory(&Err("no file".into())),
        ];
        assert_eq!(
            verdicts(found),
            [Good, Warning, Bad, Good, Warning, Bad, Bad]
        );
    }
}
