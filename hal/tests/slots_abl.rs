//! Slots of ABL against a model of ABL: what they write is what it starts, whenever the power ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "images have known sizes"
)]

mod slots_abl_model;
mod slots_power;

use edge_hal::slots::{
    Refusal, Slot, SlotControl, SlotError, Unfinished,
    abl::{
        AblDisk, AblSlots, ChainCheck,
        gpt::{Gpt, GptError},
    },
    running::BootLun,
};
use proptest::prelude::*;
use slots_abl_model::{ACTIVE, Abl, PRIORITY, Part, RETRY, SUCCESSFUL, UNBOOTABLE, copies, image};
use slots_power::{CutDisk, CutFile, Kind, Loss, Medium, Power, Seen, cut_at_every_step};

const TRIES: u8 = 3;
/// First of all, and never written: what XBL and ABL start from.
const FIRMWARE: [&str; 2] = ["xbl_config", "abl"];

const FIRST: u64 = PRIORITY | ACTIVE;
const SECOND: u64 = 2 << 48;
const GOOD: u64 = RETRY | SUCCESSFUL;
const TRIAL: u64 = 2 << 51;

/// Root partitions on the first disk, kernel partitions and firmware on the second.
fn medium(sector: u32, boot: [u64; 2], first: Slot) -> Medium {
    let mut next = 40_u64;
    let mut part = |kind: u8, name: String, attributes: u64| {
        next += 2;
        Part {
            kind: [kind; 16],
            name,
            first: next,
            last: next + 1,
            attributes,
        }
    };
    let mut pair = |kind: u8, name: &str, attributes: [u64; 2]| {
        [("_a", 0), ("_b", 1)].map(|(suffix, slot)| {
            part(
                kind + slot as u8,
                format!("{name}{suffix}"),
                attributes[slot],
            )
        })
    };
    let active = match first {
        Slot::A => [ACTIVE, 0],
        Slot::B => [0, ACTIVE],
    };
    let root = [
        pair(0x10, "system", active).to_vec(),
        vec![Part {
            kind: [9; 16],
            name: "userdata".to_owned(),
            first: 60,
            last: 61,
            attributes: 1,
        }],
    ]
    .concat();
    let kernel = [
        pair(0x20, FIRMWARE[0], active),
        pair(0x30, FIRMWARE[1], active),
        pair(0x40, "boot", boot),
        pair(0x50, "dtbo", active),
    ]
    .concat();
    let sectors = 128;
    Medium {
        sector,
        disks: vec![
            image(sector as usize, sectors, &root),
            image(sector as usize, sectors, &kernel),
        ],
        files: vec![None],
    }
}

fn slots(power: &Power, running: Option<Slot>) -> AblSlots<CutDisk, CutFile> {
    let disk = |index: usize, lun, partitions: &[&str]| AblDisk {
        name: format!("/dev/disk{index}"),
        lun,
        device: power.disk(index),
        partitions: partitions.iter().map(|&name| name.to_owned()).collect(),
    };
    AblSlots::new(
        vec![disk(0, 0, &["system"]), disk(1, 4, &["boot", "dtbo"])],
        power.file(0, Kind::Replaced),
        TRIES,
        running,
        ChainCheck::Required { boot_lun: None },
    )
    .unwrap()
}

const LOADER: Abl = Abl {
    boot_lun: None,
    validates: true,
};

fn model_starts(medium: &Medium) -> Option<Slot> {
    LOADER.start(medium.sector, &mut medium.disks.clone())
}

struct Scenario {
    name: &'static str,
    boot: [u64; 2],
    first: Slot,
    running: Slot,
    operation: fn(&mut dyn SlotControl) -> Result<(), SlotError>,
    after: Slot,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "arm B",
        boot: [FIRST | GOOD, SECOND | UNBOOTABLE],
        first: Slot::A,
        running: Slot::A,
        operation: |slots| slots.arm(Slot::B),
        after: Slot::B,
    },
    Scenario {
        name: "arm B, which was good",
        boot: [FIRST | GOOD, SECOND | GOOD],
        first: Slot::A,
        running: Slot::A,
        operation: |slots| slots.arm(Slot::B),
        after: Slot::B,
    },
    Scenario {
        name: "mark B good",
        boot: [SECOND | GOOD, FIRST | TRIAL],
        first: Slot::B,
        running: Slot::B,
        operation: |slots| slots.mark_good(Slot::B),
        after: Slot::B,
    },
    Scenario {
        name: "give B up before it is written",
        boot: [FIRST | GOOD, SECOND | GOOD],
        first: Slot::A,
        running: Slot::A,
        operation: |slots| slots.mark_dead(Slot::B),
        after: Slot::A,
    },
    Scenario {
        name: "give armed B up",
        boot: [SECOND | GOOD, FIRST | TRIAL],
        first: Slot::B,
        running: Slot::A,
        operation: |slots| slots.mark_dead(Slot::B),
        after: Slot::A,
    },
    Scenario {
        name: "give running A up",
        boot: [FIRST | GOOD, SECOND | GOOD],
        first: Slot::A,
        running: Slot::A,
        operation: |slots| slots.mark_dead(Slot::A),
        after: Slot::B,
    },
];

const LOSSES: [Loss; 6] = [
    Loss::All,
    Loss::Tail,
    Loss::Some(1),
    Loss::Some(2),
    Loss::Some(3),
    Loss::Some(4),
];

/// Everything but the attributes of our pairs, and which copies are whole.
fn foreign(medium: &Medium) -> Vec<Part> {
    let mut parts = Vec::new();
    for disk in &medium.disks {
        let [primary, backup] = copies(medium.sector as usize, disk);
        assert!(primary.is_some() || backup.is_some(), "no copy is whole");
        for mut part in primary.or(backup).unwrap() {
            if ["boot_", "system_", "dtbo_"]
                .iter()
                .any(|name| part.name.starts_with(name))
            {
                part.attributes = 0;
            }
            parts.push(part);
        }
    }
    parts
}

fn tidy(medium: &Medium) -> bool {
    medium.files[0].is_none()
        && medium.disks.iter().all(|disk| {
            let [primary, backup] = copies(medium.sector as usize, disk);
            primary.is_some() && primary == backup
        })
}

/// Looks at what a cut left: the model starts a slot, status tells which, and repair tidies up without changing it.
fn check(left: &Medium, scenario: &Scenario, context: &str) {
    let starts = model_starts(left);
    assert!(
        starts == Some(scenario.first) || starts == Some(scenario.after),
        "{context}: starts {starts:?}"
    );
    // Where the last disk says the new slot, the other one follows already.
    let active = format!(
        "system{}",
        if starts == Some(Slot::A) { "_a" } else { "_b" }
    );
    if starts == Some(scenario.after) {
        let [primary, backup] = copies(left.sector as usize, &left.disks[0]);
        let parts = primary.or(backup).unwrap();
        let part = parts.iter().find(|part| part.name == active).unwrap();
        assert_ne!(
            part.attributes & ACTIVE,
            0,
            "{context}: committed too early"
        );
    }
    let power = Power::new(left.clone(), None, Loss::All);
    let mut slots = slots(&power, Some(scenario.running));
    let status = slots.status().unwrap();
    assert_eq!(status.next, starts, "{context}: status");
    assert_eq!(
        status.unfinished.is_none(),
        tidy(left),
        "{context}: {status:?}"
    );
    slots.repair().unwrap();
    let repaired = power.orderly();
    let status = slots.status().unwrap();
    assert_eq!(
        (status.next, status.unfinished),
        (starts, None),
        "{context}"
    );
    assert!(tidy(&repaired), "{context}");
    assert_eq!(model_starts(&repaired), starts, "{context}: after repair");
}

fn cut_everywhere(sector: u32) {
    for scenario in &SCENARIOS {
        let start = medium(sector, scenario.boot, scenario.first);
        assert_eq!(model_starts(&start), Some(scenario.first));
        let (mut seen, mut seen_after_repair) = (Seen::default(), Seen::default());
        let (done, total) = cut_at_every_step(
            &start,
            scenario.name,
            |_| LOSSES.to_vec(),
            |power| (scenario.operation)(&mut slots(power, Some(scenario.running))),
            |left, context| {
                if !seen.is_new(left) {
                    return;
                }
                assert_eq!(foreign(left), foreign(&start), "{context}");
                check(left, scenario, context);
                cut_repair(left, scenario, context, &mut seen_after_repair);
                start_then_repair(left, context);
            },
        );
        let name = scenario.name;
        assert_eq!(model_starts(&done), Some(scenario.after), "{name}");
        assert!(total >= 5, "{name}: {total} operations");
    }
}

/// The power ends again at every step of the repair.
fn cut_repair(left: &Medium, scenario: &Scenario, context: &str, seen: &mut Seen) {
    let starts = model_starts(left);
    let losses = |operations| vec![Loss::All, Loss::Tail, Loss::Some(operations + 7)];
    let repair = |power: &Power| slots(power, None).repair();
    cut_at_every_step(left, context, losses, repair, |left, context| {
        assert_eq!(model_starts(left), starts, "{context}");
        if seen.is_new(left) {
            check(left, scenario, context);
        }
    });
}

/// ABL starts the box, and writes to the tables itself, before anybody repairs them.
fn start_then_repair(left: &Medium, context: &str) {
    let mut left = left.clone();
    let started = LOADER.start(left.sector, &mut left.disks);
    let power = Power::new(left.clone(), None, Loss::All);
    let mut slots = slots(&power, started);
    let next = slots.status().unwrap().next;
    assert_eq!(next, model_starts(&left), "{context}: after a start");
    slots.repair().unwrap();
    let repaired = power.orderly();
    assert!(tidy(&repaired), "{context}: after a start");
    assert_eq!(model_starts(&repaired), next, "{context}: after a start");
    slots.mark_good(started.unwrap()).unwrap();
    assert_eq!(model_starts(&power.orderly()), started, "{context}");
}

#[test]
fn a_cut_at_any_write_leaves_a_slot_that_starts_with_512_byte_sectors() {
    cut_everywhere(512);
}

#[test]
fn a_cut_at_any_write_leaves_a_slot_that_starts_with_4096_byte_sectors() {
    cut_everywhere(4096);
}

#[test]
fn an_armed_slot_that_fails_gives_way_to_the_old_one() {
    for sector in [512, 4096] {
        let start = medium(sector, [FIRST | GOOD, SECOND | UNBOOTABLE], Slot::A);
        let power = Power::new(start, None, Loss::All);
        slots(&power, Some(Slot::A)).arm(Slot::B).unwrap();
        let mut left = power.orderly();
        for _ in 0..TRIES {
            assert_eq!(LOADER.start(sector, &mut left.disks), Some(Slot::B));
        }
        for _ in 0..20 {
            assert_eq!(LOADER.start(sector, &mut left.disks), Some(Slot::A));
        }
        let power = Power::new(left, None, Loss::All);
        let mut slots = slots(&power, Some(Slot::A));
        let status = slots.status().unwrap();
        assert_eq!((status.next, status.unfinished), (Some(Slot::A), None));
        assert!(status.table.b.is_dead() && status.table.a.is_good());
        // ABL swapped the types of all pairs on its way back; that keeps no slot from being armed again.
        slots.arm(Slot::B).unwrap();
        assert_eq!(model_starts(&power.orderly()), Some(Slot::B));
    }
}

#[test]
fn a_slot_marked_good_outlives_any_number_of_starts() {
    let start = medium(4096, [SECOND | GOOD, FIRST | TRIAL], Slot::B);
    let power = Power::new(start, None, Loss::All);
    let mut control = slots(&power, Some(Slot::B));
    control.mark_good(Slot::B).unwrap();
    let used = power.used();
    control.mark_good(Slot::B).unwrap();
    control.repair().unwrap();
    assert_eq!(power.used(), used, "a good slot is marked without a write");
    let mut left = power.orderly();
    for _ in 0..20 {
        assert_eq!(LOADER.start(4096, &mut left.disks), Some(Slot::B));
    }
}

#[test]
fn a_box_that_never_started_is_read_as_abl_reads_it() {
    let start = medium(512, [0, 0], Slot::A);
    assert_eq!(model_starts(&start), Some(Slot::A));
    let power = Power::new(start, None, Loss::All);
    let mut slots = slots(&power, Some(Slot::A));
    assert_eq!(slots.status().unwrap().next, Some(Slot::A));
    assert!(matches!(
        slots.arm(Slot::B),
        Err(SlotError::Refused(Refusal::NoWayBack(Slot::A)))
    ));
    slots.mark_good(Slot::A).unwrap();
    slots.arm(Slot::B).unwrap();
    assert_eq!(model_starts(&power.orderly()), Some(Slot::B));
}

#[test]
fn a_slot_that_abl_would_not_start_is_not_armed() {
    let boot = [FIRST | GOOD, SECOND | UNBOOTABLE];
    let disk = |power: &Power| AblDisk {
        name: "/dev/sde".to_owned(),
        lun: 4,
        device: power.disk(1),
        partitions: vec!["boot".to_owned()],
    };
    let open = |power: &Power, chain| {
        let journal = power.file(0, Kind::Replaced);
        AblSlots::new(vec![disk(power)], journal, TRIES, Some(Slot::A), chain).unwrap()
    };

    // On UFS, with the boot LUN of slot A.
    let power = Power::new(medium(4096, boot, Slot::A), None, Loss::All);
    let ufs = ChainCheck::Required {
        boot_lun: Some(BootLun::Of(Slot::A)),
    };
    let refused = open(&power, ufs).arm(Slot::B).unwrap_err();
    assert!(matches!(refused, SlotError::BootLun { slot: Slot::B }));
    assert_eq!(power.used(), 0);
    // It would have been in vain: a build with the check stays in fastboot, one without starts the slot.
    open(&power, ChainCheck::None).arm(Slot::B).unwrap();
    let left = power.orderly();
    for (validates, starts) in [(true, None), (false, Some(Slot::B))] {
        let loader = Abl {
            boot_lun: Some(1),
            validates,
        };
        assert_eq!(loader.start(4096, &mut left.disks.clone()), starts);
    }

    // With the type that flashing tools give to what is not in use.
    let mut start = medium(4096, boot, Slot::A);
    let [Some(mut parts), _] = copies(4096, &start.disks[1]) else {
        panic!("damaged");
    };
    for part in &mut parts {
        if part.name.ends_with("_b") {
            part.kind = [0x77; 16];
        }
    }
    start.disks[1] = image(4096, 128, &parts);
    let power = Power::new(start, None, Loss::All);
    let emmc = ChainCheck::Required { boot_lun: None };
    let refused = open(&power, emmc).arm(Slot::B).unwrap_err();
    assert!(matches!(refused, SlotError::TypeGuid { slot: Slot::B }));
    open(&power, ChainCheck::None).arm(Slot::B).unwrap();
    assert_eq!(model_starts(&power.orderly()), None);
}

#[test]
fn a_damaged_primary_is_restored_before_its_backup_is_written() {
    for sector in [512_u32, 4096] {
        let mut start = medium(sector, [FIRST | GOOD, SECOND | UNBOOTABLE], Slot::A);
        let at = sector as usize + 20;
        start.disks[1][at] ^= 1;
        let operation = |power: &Power| slots(power, Some(Slot::A)).arm(Slot::B);
        let power = Power::new(start.clone(), None, Loss::All);
        assert_eq!(
            slots(&power, Some(Slot::A)).status().unwrap().unfinished,
            Some(Unfinished::CopiesDiffer)
        );
        operation(&power).unwrap();
        assert!(tidy(&power.orderly()));
        for operations in 0..power.used() {
            for loss in LOSSES {
                let power = Power::new(start.clone(), Some(operations), loss);
                operation(&power).unwrap_err();
                check(
                    &power.cut(),
                    &SCENARIOS[0],
                    &format!("cut after {operations}, {loss:?}"),
                );
            }
        }
    }
}

#[test]
fn both_copies_damaged_is_an_error_that_names_the_disk() {
    let mut start = medium(512, [FIRST | GOOD, SECOND], Slot::A);
    let end = start.disks[0].len();
    start.disks[0][520] ^= 1;
    start.disks[0][end - 500] ^= 1;
    let power = Power::new(start, None, Loss::All);
    let error = slots(&power, Some(Slot::A)).status().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot keep the slots in the partition table of /dev/disk0"
    );
    let SlotError::Gpt { source, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(source, GptError::BothDamaged { .. }), "{source}");
}

#[test]
fn disks_in_an_unsafe_order_are_refused() {
    let power = Power::new(
        medium(512, [FIRST | GOOD, SECOND], Slot::A),
        None,
        Loss::All,
    );
    for order in [
        vec!["boot", "system"],
        vec!["system"],
        vec![],
        vec!["boot", "boot"],
    ] {
        let disks = order
            .iter()
            .map(|&name| AblDisk {
                name: name.to_owned(),
                lun: 0,
                device: power.disk(0),
                partitions: vec![name.to_owned()],
            })
            .collect();
        let journal = power.file(0, Kind::Replaced);
        let slots = AblSlots::new(disks, journal, TRIES, None, ChainCheck::None);
        assert!(
            matches!(slots.err(), Some(SlotError::CommitDisk)),
            "{order:?}"
        );
    }
}

#[test]
fn overlapping_and_doubled_partitions_are_refused() {
    let part = |name: &str, first, last| Part {
        kind: [1; 16],
        name: name.to_owned(),
        first,
        last,
        attributes: 0,
    };
    let read = |parts: &[Part]| {
        let medium = Medium {
            sector: 512,
            disks: vec![image(512, 128, parts)],
            files: vec![],
        };
        let power = Power::new(medium, None, Loss::All);
        Gpt::read(&mut power.disk(0))
    };
    let doubled = read(&[part("boot_a", 40, 41), part("boot_a", 42, 43)]).unwrap();
    assert!(matches!(
        doubled.find("boot_a"),
        Err(GptError::DuplicateName(_))
    ));
    assert_eq!(doubled.find("boot_b").unwrap(), None);
    for parts in [
        [part("x", 40, 50), part("y", 50, 51)],
        [part("x", 40, 39), part("y", 50, 51)],
        [part("x", 3, 41), part("y", 50, 51)],
        [part("x", 40, 41), part("y", 50, 127)],
        [part("x", 40, 41), part("y", 50, u64::MAX)],
    ] {
        assert!(matches!(read(&parts), Err(GptError::BothDamaged { .. })));
    }
}

/// Restoring the primary copy from such a backup would write over the first partition.
#[test]
fn a_backup_that_leaves_no_room_for_the_primary_is_refused() {
    let mut disk = medium(512, [FIRST | GOOD, SECOND], Slot::A).disks.remove(1);
    disk[512..1024].fill(0);
    let read = |disk: &[u8]| {
        let medium = Medium {
            sector: 512,
            disks: vec![disk.to_vec()],
            files: vec![],
        };
        Gpt::read(&mut Power::new(medium, None, Loss::All).disk(0))
    };
    assert!(read(&disk).is_ok());
    let header = disk.len() - 512;
    disk[header + 40..header + 48].copy_from_slice(&33_u64.to_le_bytes());
    disk[header + 16..header + 20].fill(0);
    let sum = crc32fast::hash(&disk[header..header + 92]);
    disk[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
    let error = read(&disk).unwrap_err();
    assert!(matches!(error, GptError::BothDamaged { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever fields a hostile header has, with checksums that fit, reading ends, in bounds.
    #[test]
    fn hostile_headers_are_read_or_refused(
        fields in prop::collection::vec((0_usize..92, any::<u64>(), 1_usize..9), 0..4),
        noise in prop::collection::vec((0_usize..65536, any::<u8>()), 0..8),
        size in 0_usize..65536,
        sector in prop_oneof![Just(512_u32), Just(4096), Just(0), Just(1000)],
    ) {
        let mut disk = medium(512, [FIRST | GOOD, SECOND], Slot::A).disks.remove(1);
        for header in [512, disk.len() - 512] {
            for (at, value, width) in &fields {
                let bytes = &value.to_le_bytes()[..(*width).min(92 - at)];
                disk[header + at..header + at + bytes.len()].copy_from_slice(bytes);
            }
            disk[header + 16..header + 20].fill(0);
            let sum = crc32fast::hash(&disk[header..header + 92]);
            disk[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
        }
        for (at, value) in noise {
            disk[at] = value;
        }
        if sector != 512 {
            disk.truncate(size);
        }
        let power = Power::new(Medium { sector, disks: vec![disk], files: vec![] }, None, Loss::All);
        if let Ok(gpt) = Gpt::read(&mut power.disk(0)) {
            prop_assert!(gpt.find("boot_a").is_ok_and(|found| found.is_none_or(|index| index < 128)) || gpt.find("boot_a").is_err());
        }
    }
}
