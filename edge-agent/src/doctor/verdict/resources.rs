//! Verdicts on what the box has of everything: room, wear and truth of its storage, temperatures, memory.

use std::path::Path;

use edge_hal::{
    board::ThermalZoneConfig,
    storage::StorageBytes,
    storage_health::{Reserve, Wear},
};

use super::super::finding::{Check, Finding, Verdict};
use super::bytes;

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

#[cfg(test)]
mod tests {
    use edge_hal::Board;

    use super::{super::verdicts, *};

    use Verdict::{Bad, Good, Warning};

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
