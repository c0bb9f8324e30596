//! Slots of U-Boot against a model of its boot scripts, with power that ends at every write, and against Debian's
//! fw_printenv and fw_setenv.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "copies have known sizes"
)]

mod slots_power;

use std::{collections::HashMap, fs, path::Path, process::Command};

use edge_hal::slots::{
    Slot, SlotControl, SlotError, Unfinished,
    block::FileDevice,
    state_file::OverwrittenFile,
    uboot::{
        BINARY_BOOT_SCRIPT, EnvError, TEXT_BOOT_SCRIPT, UbootBinarySlots, UbootTextSlots,
        binary::EnvCopy,
    },
};
use slots_power::{CutDisk, CutFile, Kind, Loss, Medium, Power, Seen, crc, cut_at_every_step};
use tempfile::TempDir;

const TRIES: u8 = 3;
const COPY_BYTES: u32 = 8192;

type Variables = HashMap<String, String>;

fn defaults() -> Variables {
    [
        ("BOOT_ORDER", "A B"),
        ("BOOT_A_GOOD", "0"),
        ("BOOT_B_GOOD", "0"),
        ("BOOT_A_LEFT", "3"),
        ("BOOT_B_LEFT", "3"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The loop at the end of both scripts, for slots that start: which one, and whether the record changed.
fn choose(variables: &mut Variables) -> Option<(Slot, bool)> {
    for name in variables["BOOT_ORDER"].clone().split(' ') {
        let slot = if name == "A" { Slot::A } else { Slot::B };
        if variables[&format!("BOOT_{name}_GOOD")] == "1" {
            return Some((slot, false));
        }
        let left = variables.get_mut(&format!("BOOT_{name}_LEFT")).unwrap();
        if left != "0" {
            *left = format!("{:x}", u32::from_str_radix(left, 16).unwrap() - 1);
            return Some((slot, true));
        }
    }
    None
}

/// `slots_read` of the text script.
fn read_text(file: Option<&Vec<u8>>) -> Option<Variables> {
    let file = file.filter(|file| file.len() == 0x6b)?;
    // crc32 stores big-endian, setexpr.l reads little-endian.
    let sum = u32::from_le_bytes(crc(&file[..0x59]).to_be_bytes()) | 0x8000_0000;
    let variables: Variables = String::from_utf8_lossy(file)
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    (variables.get("BOOT_SUM") == Some(&format!("{sum:x}"))).then_some(variables)
}

/// The text script: what starts, and the files afterwards.
fn start_text(files: &mut [Option<Vec<u8>>]) -> Option<Slot> {
    let read = [read_text(files[0].as_ref()), read_text(files[1].as_ref())];
    let count = |variables: &Option<Variables>| {
        let text = variables
            .as_ref()
            .map_or("0", |variables| &variables["BOOT_SEQ"]);
        u64::from_str_radix(text, 16).unwrap()
    };
    let chosen = usize::from(count(&read[1]) > count(&read[0]));
    let (mut variables, spare, count) = match &read[chosen] {
        Some(variables) => (variables.clone(), 1 - chosen, count(&read[chosen])),
        None => (defaults(), 0, 0x8000_0000),
    };
    let (slot, changed) = choose(&mut variables)?;
    if changed {
        let mut text = String::new();
        for name in [
            "BOOT_A_GOOD",
            "BOOT_A_LEFT",
            "BOOT_B_GOOD",
            "BOOT_B_LEFT",
            "BOOT_ORDER",
        ] {
            text.push_str(&format!("{name}={}\n", variables[name]));
        }
        text.push_str(&format!("BOOT_SEQ={:x}\n", count + 1));
        let sum = crc(text.as_bytes()).swap_bytes() | 0x8000_0000;
        text.push_str(&format!("BOOT_SUM={sum:x}\n"));
        files[spare] = Some(text.into_bytes());
    }
    Some(slot)
}

/// A copy of the environment, as U-Boot checks it.
fn read_copy(bytes: &[u8]) -> Option<(u8, Variables)> {
    if bytes[..4] != crc(&bytes[5..]).to_le_bytes() {
        return None;
    }
    let text = String::from_utf8_lossy(&bytes[5..]).into_owned();
    let end = text.find("\0\0").unwrap();
    let variables = text[..end]
        .split('\0')
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Some((bytes[4], variables))
}

/// U-Boot's choice of copy (`env_import_redund`) and the binary script; none of both copies means its defaults.
fn start_binary(disks: &[Vec<u8>]) -> Option<Slot> {
    let copies = [read_copy(&disks[0]), read_copy(&disks[1])];
    let newest = match copies {
        [Some((255, _)), Some((0, newest))] | [Some((0, newest)), Some((255, _))] => newest,
        [Some((first, a)), Some((second, b))] => {
            if second > first {
                b
            } else {
                a
            }
        }
        [Some((_, newest)), None] | [None, Some((_, newest))] => newest,
        [None, None] => panic!("both copies damaged"),
    };
    let mut variables = defaults();
    variables.extend(newest);
    choose(&mut variables).map(|(slot, _)| slot)
}

fn binary_copy(flag: u8, variables: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (name, value) in variables {
        data.extend_from_slice(format!("{name}={value}\0").as_bytes());
    }
    data.resize(COPY_BYTES as usize - 5, 0);
    let mut bytes = crc(&data).to_le_bytes().to_vec();
    bytes.push(flag);
    bytes.extend(data);
    bytes
}

fn text_slots(power: &Power, running: Option<Slot>) -> UbootTextSlots<CutFile> {
    let copies = [0, 1].map(|index| power.file(index, Kind::Overwritten));
    UbootTextSlots::new(copies, "slots.env", TRIES, running).unwrap()
}

fn binary_slots(power: &Power, running: Option<Slot>) -> UbootBinarySlots<CutDisk> {
    let copies = [0, 1].map(|index| EnvCopy {
        name: format!("copy {index}"),
        device: power.disk(index),
        offset_bytes: 0,
    });
    UbootBinarySlots::new(copies, COPY_BYTES, TRIES, running).unwrap()
}

type Operation = fn(&mut dyn SlotControl) -> Result<(), SlotError>;

/// What happens to a box, in this order: each step runs on the slot named, and leads to the slot after it.
const LIFE: [(&str, Slot, Operation, Slot); 6] = [
    (
        "prove A",
        Slot::A,
        |slots| slots.mark_good(Slot::A),
        Slot::A,
    ),
    (
        "give B up before it is written",
        Slot::A,
        |slots| slots.mark_dead(Slot::B),
        Slot::A,
    ),
    ("arm B", Slot::A, |slots| slots.arm(Slot::B), Slot::B),
    (
        "prove B",
        Slot::B,
        |slots| slots.mark_good(Slot::B),
        Slot::B,
    ),
    (
        "give running B up",
        Slot::B,
        |slots| slots.mark_dead(Slot::B),
        Slot::A,
    ),
    ("arm B again", Slot::A, |slots| slots.arm(Slot::B), Slot::B),
];

fn losses(_: u64) -> Vec<Loss> {
    let mut losses = vec![Loss::All, Loss::Tail];
    losses.extend((0..24).map(Loss::Some));
    losses
}

/// Lives a life with a cut at every step of everything in it, and of the repairs after.
fn live(
    mut medium: Medium,
    open: impl Fn(&Power, Option<Slot>) -> Box<dyn SlotControl>,
    starts: impl Fn(&Medium) -> Option<Slot>,
) {
    let mut before = Slot::A;
    for (name, running, operation, after) in LIFE {
        assert_eq!(starts(&medium), Some(before), "{name}");
        let mut seen = Seen::default();
        let live = |power: &Power| operation(&mut *open(power, Some(running)));
        let (done, total) = cut_at_every_step(&medium, name, losses, live, |left, context| {
            if !seen.is_new(left) {
                return;
            }
            let next = starts(left);
            assert!(
                next == Some(before) || next == Some(after),
                "{context}: {next:?}"
            );
            check(left, next, &open, &starts, context);
            let mut seen_after_repair = Seen::default();
            let repair = |power: &Power| open(power, Some(running)).repair();
            cut_at_every_step(left, context, losses, repair, |left, context| {
                if seen_after_repair.is_new(left) {
                    check(left, next, &open, &starts, context);
                }
            });
        });
        assert!(total > 0, "{name}");
        medium = done;
        before = after;
    }
}

fn check(
    left: &Medium,
    next: Option<Slot>,
    open: impl Fn(&Power, Option<Slot>) -> Box<dyn SlotControl>,
    starts: impl Fn(&Medium) -> Option<Slot>,
    context: &str,
) {
    assert_eq!(starts(left), next, "{context}");
    let power = Power::new(left.clone(), None, Loss::All);
    let mut slots = open(&power, None);
    assert_eq!(slots.status().unwrap().next, next, "{context}");
    slots.repair().unwrap();
    let status = slots.status().unwrap();
    assert_eq!((status.next, status.unfinished), (next, None), "{context}");
    assert_eq!(starts(&power.orderly()), next, "{context}");
}

#[test]
fn a_cut_at_any_write_leaves_a_slot_that_starts_from_text_files() {
    let medium = Medium {
        sector: 512,
        disks: vec![],
        files: vec![None, None],
    };
    live(
        medium,
        |power, running| Box::new(text_slots(power, running)),
        |medium| start_text(&mut medium.files.clone()),
    );
}

#[test]
fn a_cut_at_any_write_leaves_a_slot_that_starts_from_the_environment() {
    // Our variables come after what fills the first sector, which has the checksum: a torn copy is a damaged one.
    let filling = "x".repeat(5000);
    for sector in [512, 4096] {
        let medium = Medium {
            sector,
            disks: vec![
                binary_copy(254, &[("bootargs", &filling)]),
                binary_copy(255, &[("bootargs", &filling), ("BOOT_A_LEFT", "2")]),
            ],
            files: vec![],
        };
        live(
            medium,
            |power, running| Box::new(binary_slots(power, running)),
            |medium| start_binary(&medium.disks),
        );
    }
}

#[test]
fn an_armed_slot_that_fails_gives_way_to_the_old_one() {
    let medium = Medium {
        sector: 512,
        disks: vec![],
        files: vec![None, None],
    };
    let power = Power::new(medium, None, Loss::All);
    let mut slots = text_slots(&power, Some(Slot::A));
    slots.mark_good(Slot::A).unwrap();
    slots.arm(Slot::B).unwrap();
    let mut left = power.orderly();
    for _ in 0..TRIES {
        assert_eq!(start_text(&mut left.files), Some(Slot::B));
    }
    for _ in 0..20 {
        assert_eq!(start_text(&mut left.files), Some(Slot::A));
    }
    let power = Power::new(left, None, Loss::All);
    let status = text_slots(&power, Some(Slot::A)).status().unwrap();
    assert_eq!((status.next, status.unfinished), (Some(Slot::A), None));
    assert!(status.table.b.is_dead() && status.table.a.is_good());
}

#[test]
fn text_files_both_damaged_are_as_absent_and_repaired() {
    let medium = Medium {
        sector: 512,
        disks: vec![],
        files: vec![Some(vec![0; 107]), Some(vec![])],
    };
    let power = Power::new(medium, None, Loss::All);
    let mut slots = text_slots(&power, Some(Slot::A));
    let status = slots.status().unwrap();
    assert_eq!(status.next, Some(Slot::A));
    assert_eq!(status.unfinished, Some(Unfinished::CopiesDiffer));
    slots.repair().unwrap();
    assert_eq!(slots.status().unwrap().unfinished, None);
    for file in power.orderly().files {
        assert!(read_text(file.as_ref()).is_some());
    }
}

#[test]
fn an_environment_with_both_copies_damaged_is_an_error() {
    let medium = Medium {
        sector: 512,
        disks: vec![vec![0xFF; COPY_BYTES as usize]; 2],
        files: vec![],
    };
    let power = Power::new(medium, None, Loss::All);
    let error = binary_slots(&power, Some(Slot::A))
        .arm(Slot::B)
        .unwrap_err();
    let SlotError::Env { source, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(source, EnvError::BothDamaged));
    assert_eq!(power.used(), 0);
}

#[test]
fn real_files_hold_what_the_script_reads() {
    let folder = TempDir::new().unwrap();
    let paths = [0, 1].map(|copy| folder.path().join(format!("slots.env.{copy}")));
    let copies = [0, 1].map(|copy: usize| OverwrittenFile(paths[copy].clone()));
    let mut slots = UbootTextSlots::new(copies, "slots.env", TRIES, Some(Slot::A)).unwrap();
    slots.mark_good(Slot::A).unwrap();
    slots.arm(Slot::B).unwrap();
    let mut files = paths.map(|path| fs::read(path).ok());
    assert_eq!(start_text(&mut files), Some(Slot::B));
    for script in [TEXT_BOOT_SCRIPT, BINARY_BOOT_SCRIPT] {
        for name in [
            "BOOT_ORDER",
            "BOOT_A_GOOD",
            "BOOT_B_GOOD",
            "BOOT_A_LEFT",
            "BOOT_B_LEFT",
        ] {
            assert!(script.contains(&format!("setenv {name} ")), "{name}");
        }
    }
}

fn run(program: &str, config: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(arguments);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program} (Debian: libubootenv-tool): {error}"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn fw_printenv_reads_what_we_write_and_we_read_what_fw_setenv_writes() {
    let folder = TempDir::new().unwrap();
    let device = folder.path().join("env.img");
    let config = folder.path().join("fw_env.config");
    // One device that holds both copies, as on an eMMC.
    let mut image = vec![0; 0x1000];
    image.extend(binary_copy(
        255,
        &[("bootcmd", "run distro"), ("ethaddr", "02:00:00:00:00:01")],
    ));
    image.extend(binary_copy(254, &[("bootcmd", "old")]));
    fs::write(&device, image).unwrap();
    let name = device.display();
    fs::write(
        &config,
        format!("{name} 0x1000 0x2000\n{name} 0x3000 0x2000\n"),
    )
    .unwrap();
    let open = || {
        let copies = [0x1000, 0x3000].map(|offset_bytes| EnvCopy {
            name: "env".to_owned(),
            device: FileDevice::open(&device, 512).unwrap(),
            offset_bytes,
        });
        UbootBinarySlots::new(copies, COPY_BYTES, TRIES, Some(Slot::A)).unwrap()
    };

    // The flag wraps from 255 to 0 here.
    open().mark_good(Slot::A).unwrap();
    for armed in 0..3 {
        open().arm(Slot::B).unwrap();
        let printed = run("fw_printenv", &config, &[]);
        for line in [
            "BOOT_ORDER=B A",
            "BOOT_A_GOOD=1",
            "BOOT_B_GOOD=0",
            "BOOT_B_LEFT=3",
            "bootcmd=run distro",
            "ethaddr=02:00:00:00:00:01",
        ] {
            assert!(
                printed.lines().any(|found| found == line),
                "{line}: {printed}"
            );
        }
        run("fw_setenv", &config, &["BOOT_B_LEFT", "0"]);
        let status = open().status().unwrap();
        assert_eq!(
            (status.next, status.unfinished),
            (Some(Slot::A), None),
            "{armed}"
        );
        assert_eq!(status.table.b.tries_left, 0);
    }
}
