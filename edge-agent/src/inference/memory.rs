//! Room in memory for models: what a version takes, and which idle models give way to one that is wanted. Pure but for
//! reading what the process holds.

use std::{
    fs,
    time::{Duration, Instant},
};

use edge_protocol::Id;

use super::ModelEntry;

/// A model that was asked for within this time does not give way to another.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// What a version in memory is, as far as room is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) model: Id,
    pub(super) version: u64,
    pub(super) bytes: u64,
    /// When it was last asked, or loaded.
    pub(super) used: Instant,
    /// Whether requests run or wait.
    pub(super) is_busy: bool,
}

/// Whether there is room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Once these have given way.
    After(Vec<(Id, u64)>),
    /// Not while the others are in use, in words.
    NotNow(String),
    /// Never, in words.
    Never(String),
}

/// Who gives way so that a version of so many bytes fits into the budget: of the idle ones those first that were not
/// asked for longest, and no more than it takes. `may_evict`: whether anyone may.
pub(super) fn make_room(
    budget: u64,
    bytes: u64,
    held: &[Held],
    may_evict: bool,
    now: Instant,
) -> Room {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if bytes > budget {
        let (needed, budget) = (mib(bytes), mib(budget));
        return Room::Never(format!(
            "it takes about {needed} MiB, and all models together may take {budget} MiB; raise --model-memory-mib"
        ));
    }
    let mut taken: u64 = held.iter().map(|it| it.bytes).sum();
    let mut idle: Vec<&Held> = held
        .iter()
        .filter(|it| {
            may_evict && !it.is_busy && now.saturating_duration_since(it.used) >= IDLE_AFTER
        })
        .collect();
    idle.sort_by_key(|it| it.used);
    let mut gone = Vec::new();
    for it in idle {
        if taken.saturating_add(bytes) <= budget {
            break;
        }
        taken -= it.bytes;
        gone.push((it.model.clone(), it.version));
    }
    if taken.saturating_add(bytes) <= budget {
        return Room::After(gone);
    }
    let (needed, budget, taken) = (mib(bytes), mib(budget), mib(taken));
    Room::NotNow(format!(
        "it takes about {needed} MiB, and models that are in use take {taken} of the {budget} MiB that all may take"
    ))
}

/// What models may take where nobody says otherwise: half of the machine's memory.
pub(crate) fn usual_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    // Where the kernel does not say, nobody is kept out.
    kib.map_or(u64::MAX, |kib| kib * 1024 / 2)
}

/// What a version takes at least: its weights, which its copies share.
pub(super) fn least_bytes(entry: &ModelEntry) -> u64 {
    let folder = entry.graph.parent().map(fs::read_dir);
    let files = folder.into_iter().flatten().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}

/// What this process holds, in bytes; 0 where the kernel does not say.
pub(super) fn resident_bytes() -> u64 {
    // Pages in all, then resident (proc_pid_statm(5)).
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(page_bytes())
}

fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let size = size
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok());
    size.unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn held(name: &str, mib: u64, used: Instant, is_busy: bool) -> Held {
        Held {
            model: Id::new(name).unwrap(),
            version: 1,
            bytes: mib * MIB,
            used,
            is_busy,
        }
    }

    #[test]
    fn the_idle_give_way_the_longest_idle_first_and_no_more_than_it_takes() {
        let start = Instant::now();
        let now = start + 4 * IDLE_AFTER;
        let all = [
            held("late", 40, start + IDLE_AFTER, false),
            held("busy", 20, start, true),
            held("early", 30, start, false),
            held("fresh", 10, now, false),
        ];
        let gone = |bytes, may| make_room(100 * MIB, bytes * MIB, &all, may, now);
        let named = |names: &[&str]| {
            Room::After(
                names
                    .iter()
                    .map(|name| (Id::new(name).unwrap(), 1))
                    .collect(),
            )
        };
        assert_eq!(gone(0, true), named(&[]));
        assert_eq!(gone(30, true), named(&["early"]));
        assert_eq!(gone(31, true), named(&["early", "late"]));
        let Room::NotNow(why) = gone(71, true) else {
            panic!("the busy and the fresh stay")
        };
        assert!(why.contains("30 of the 100 MiB"), "{why}");
        assert!(matches!(gone(30, false), Room::NotNow(_)));
        let Room::Never(why) = gone(101, true) else {
            panic!("more than all")
        };
        assert!(why.contains("--model-memory-mib"), "{why}");
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_nobody_in_use_gives_way(
            sizes in prop::collection::vec((1..50_u64, 0..30_u64, any::<bool>()), 0..8),
            bytes in 0..120_u64,
        ) {
            let start = Instant::now();
            let now = start + Duration::from_secs(30);
            let all: Vec<Held> = sizes.iter().enumerate().map(|(index, (size, used, is_busy))| Held {
                version: index as u64,
                ..held("model", *size, start + Duration::from_secs(*used), *is_busy)
            }).collect();
            if let Room::After(gone) = make_room(100 * MIB, bytes * MIB, &all, true, now) {
                let stays = |it: &&Held| !gone.contains(&(it.model.clone(), it.version));
                let taken: u64 = all.iter().filter(stays).map(|it| it.bytes).sum();
                prop_assert!(gone.is_empty() || taken + bytes * MIB <= 100 * MIB);
                for it in all.iter().filter(|it| !stays(it)) {
                    prop_assert!(!it.is_busy && now - it.used >= IDLE_AFTER);
                }
            }
        }
    }
}
