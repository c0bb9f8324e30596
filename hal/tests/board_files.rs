//! Board files: those of the program are valid, and a wrong one says where and what.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

use edge_hal::board::{
    Board, BoardError, BoardProblem, ExecutionProvider, SlotsConfig, ZoneSource,
};
use proptest::prelude::*;

const VALID: &str = include_str!("data/bench.toml");

/// The problems of a text, each as it is printed.
fn problems(text: &str) -> Vec<String> {
    match Board::parse(text, "bench.toml") {
        Ok(_) => Vec::new(),
        Err(BoardError::Invalid { problems }) => {
            problems.iter().map(BoardProblem::to_string).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

/// The problems after one change, which must hit.
fn after(from: &str, to: &str) -> Vec<String> {
    assert!(VALID.contains(from), "{from:?} is not in the example");
    problems(&VALID.replacen(from, to, 1))
}

/// `bench.toml:LINE: ` of the line in the changed example that has `text`.
fn line_of(from: &str, to: &str, text: &str) -> String {
    let changed = VALID.replacen(from, to, 1);
    let line = 1 + changed
        .lines()
        .position(|line| line.contains(text))
        .unwrap();
    format!("bench.toml:{line}: ")
}

fn folder_of_boards() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../board-configs"))
}

#[test]
fn every_file_of_the_folder_is_part_of_the_program_under_its_own_name() {
    let files: BTreeSet<String> = fs::read_dir(folder_of_boards())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
        .collect();
    let mut known: BTreeSet<String> = Board::builtin_names().map(str::to_owned).collect();
    for name in &known {
        let board = Board::builtin(name).unwrap();
        assert_eq!(board.name, *name);
        let file = folder_of_boards().join(format!("{name}.toml"));
        assert_eq!(
            board,
            Board::from_file(&file).unwrap(),
            "{name} from its file"
        );
    }
    let base = Board::builtin("sm8250").unwrap_err();
    assert!(matches!(base, BoardError::Abstract { .. }), "{base}");
    known.insert("sm8250".to_owned());
    assert_eq!(files, known);
}

#[test]
fn no_two_boards_claim_one_machine() {
    let mut seen = BTreeSet::new();
    for name in Board::builtin_names() {
        for compatible in Board::builtin(name).unwrap().compatible {
            assert!(
                seen.insert(compatible.clone()),
                "{compatible} is claimed twice"
            );
        }
    }
    assert!(seen.contains("linux,dummy-virt") && seen.contains("qcom,qrb5165-rb5"));
}

#[test]
fn the_boards_with_the_865_share_its_facts() {
    for name in ["qrb5165-rb5", "sm8250-hdk", "sm8250-mtp", "aethir-edge"] {
        let board = Board::builtin(name).unwrap();
        let clocks: Vec<_> = board.cpu_clusters.iter().map(|c| c.max_khz).collect();
        assert_eq!(
            clocks,
            [Some(1_804_800), Some(2_419_200), Some(2_841_600)],
            "{name}"
        );
        let cores: Vec<u16> = board
            .cpu_clusters
            .iter()
            .flat_map(|c| c.cores.clone())
            .collect();
        assert_eq!(cores, (0..8).collect::<Vec<u16>>(), "{name}");
        let types: BTreeSet<&str> = board
            .thermal_zones
            .iter()
            .filter_map(|zone| match &zone.source {
                ZoneSource::Thermal { zone_type } => Some(zone_type.as_str()),
                _ => None,
            })
            .collect();
        assert!(types.contains("cpu7-bottom-thermal") && types.contains("gpu-top-thermal"));
        assert_eq!(board.storage.sector_bytes, 4096, "{name}");
        let Some(SlotsConfig::QualcommAbl { disks, .. }) = &board.slots else {
            panic!("{name}: {:?}", board.slots);
        };
        assert_eq!(
            disks.last().unwrap().lun,
            4,
            "{name}: the kernel's unit is the commit point"
        );
    }
    assert!(
        !Board::builtin("aethir-edge")
            .unwrap()
            .unconfirmed
            .is_empty()
    );
}

#[test]
fn a_kind_of_its_own_replaces_what_was_inherited() {
    let board = Board::builtin("qemu-virt").unwrap();
    let host = Board::builtin("host-sim").unwrap();
    assert_eq!(board.thermal_zones, host.thermal_zones, "inherited");
    assert!(board.leds.is_empty(), "an empty array replaces");
    assert!(
        matches!(&board.slots, Some(SlotsConfig::UbootText { .. })),
        "{:?}",
        board.slots
    );
}

#[test]
fn the_example_is_valid() {
    assert_eq!(problems(VALID), Vec::<String>::new());
    let board = Board::parse(VALID, "bench.toml").unwrap();
    assert_eq!(
        board.accelerators.execution_providers,
        [ExecutionProvider::Cpu]
    );
}

#[test]
fn wrong_keys_types_and_values_name_line_and_cure() {
    for (from, to, at, problem) in [
        (
            "target_millicelsius",
            "taget_millicelsius",
            "taget",
            "unknown key \"taget_millicelsius\" in thermal_zone \"cpu\"; did you mean \"target_millicelsius\"?",
        ),
        (
            "[[thermal_zone]]",
            "[[thermalzone]]",
            "[[thermalzone]]",
            "unknown key \"thermalzone\"; did you mean \"thermal_zone\"?",
        ),
        (
            "type = \"cpu0-thermal\"",
            "tipe = \"cpu0-thermal\"",
            "tipe",
            "unknown key \"tipe\" in source of thermal_zone \"cpu\"; did you mean \"type\"?",
        ),
        (
            "min_percent = 20",
            "min_percent = \"x\"",
            "\"x\"",
            "min_percent in fan is \"x\", not a whole number from 0 to 255",
        ),
        (
            "min_percent = 20",
            "min_percent = 256",
            "256",
            "min_percent in fan is 256, not a whole number from 0 to 255",
        ),
        (
            "role = \"performance\"",
            "role = \"performace\"",
            "performace",
            "role in cpu_cluster \"big\" is \"performace\", which is unknown; did you mean \"performance\"?",
        ),
        (
            "kind = \"linux\", identity",
            "kind = \"linus\", identity",
            "linus",
            "kind in source of watchdog is \"linus\", which is unknown; did you mean \"linux\"?",
        ),
        (
            "identity = \"bench_wdt\"",
            "identity = 5",
            "identity",
            "identity in source of watchdog is 5, not a string",
        ),
        (
            "timeout_s = 30\n",
            "",
            "[watchdog]",
            "key \"timeout_s\" is missing in watchdog",
        ),
        (
            "name = \"bench\"\n",
            "",
            "description",
            "key \"name\" is missing",
        ),
        (
            "source = { kind = \"linux\" }\ntechnology",
            "source = { kind = \"linux\", total_bytes = 1 }\ntechnology",
            "total_bytes",
            "unknown key \"total_bytes\" in source of storage; kind \"linux\" has no other key",
        ),
        ("timeout_s = 30", "timeout_s = ", "timeout_s = ", ""),
        (
            "timeout_s = 30",
            "timeout_s = 99999999999999999999",
            "timeout_s",
            "out of the range of whole numbers",
        ),
    ] {
        let found = after(from, to);
        let place = line_of(from, to, at);
        assert!(
            found.len() == 1 && found[0].starts_with(&place) && found[0].contains(problem),
            "{to:?}: wanted {place}{problem}\nfound {found:#?}"
        );
    }
}

#[test]
fn all_problems_of_a_file_are_named_at_once() {
    let text = VALID
        .replace("target_millicelsius", "taget_millicelsius")
        .replace("timeout_s = 30", "timeout_s = \"30\"")
        .replace("name = \"board\"\n", "")
        .replace("role = ", "rule = ");
    let found = problems(&text).join("\n");
    for part in [
        "unknown key \"taget_millicelsius\"",
        "timeout_s in watchdog is \"30\"",
        "key \"name\" is missing in thermal_zone number 2",
        "unknown key \"rule\" in cpu_cluster \"big\"",
    ] {
        assert!(found.contains(part), "{part}\nfound:\n{found}");
    }
    let many: String = (0..1000).fold(String::new(), |text, key| text + &format!("k{key} = 1\n"));
    assert_eq!(problems(&many).len(), 20, "bounded");
}

/// One change for each rule between keys, and what the file says then.
#[test]
fn every_rule_between_keys_is_kept() {
    for (from, to, problem) in [
        (
            "name = \"bench\"",
            "name = \"Bench\"",
            "\"Bench\" is no name",
        ),
        (
            "description = \"the board on the bench\"",
            "description = \"\"",
            "not one line",
        ),
        ("\"vendor,board\"", "\"vendor\"", "not of the form"),
        ("[\"vendor,board\"]", "[\"a,b\", \"a,b\"]", "there twice"),
        (
            "unconfirmed = [\"gpu.max_khz\"]",
            "unconfirmed = [\"gpu.maxkhz\"]",
            "no such key",
        ),
        (
            "cores = [2, 3]",
            "cores = [1, 3]",
            "core 1 of cpu_cluster \"big\" is already one of \"little\"",
        ),
        (
            "cores = [2, 3]",
            "cores = []",
            "cpu_cluster \"big\" has no cores",
        ),
        (
            "name = \"big\"",
            "name = \"little\"",
            "two of cpu_cluster have the name",
        ),
        (
            "max_khz = 2_000_000",
            "max_khz = 0",
            "max_khz in cpu_cluster \"big\" is 0",
        ),
        (
            "name = \"board\"",
            "name = \"cpu\"",
            "two of thermal_zone have the name \"cpu\"",
        ),
        ("name = \"board\"", "name = \"-x\"", "is no name"),
        (
            "\"cpu0-thermal\"",
            "\"cpu0-thermal-of-the-board\"",
            "has not 1 to 19 characters",
        ),
        ("input = \"temp1\"", "input = \"in1\"", "one is temp1"),
        (
            "target_millicelsius = 80_000",
            "target_millicelsius = 90_000",
            "is not below 90000",
        ),
        (
            "millicelsius = 110_000",
            "millicelsius = 85_000",
            "do not rise",
        ),
        (
            "millicelsius = 110_000",
            "millicelsius = 1_100_000",
            "is no temperature of a box",
        ),
        (
            "[simulation]\n",
            "[simulation]\n#",
            "key \"ambient_millicelsius\" is missing in simulation",
        ),
        (
            "millikelvin_per_watt_with_fan = 2_000",
            "millikelvin_per_watt_with_fan = 9_000",
            "says that the fan heats",
        ),
        (
            "millijoules_per_kelvin = 180_000",
            "millijoules_per_kelvin = 0",
            "millijoules_per_kelvin in simulation is 0",
        ),
        (
            "millijoules_per_kelvin = 7_000",
            "millijoules_per_kelvin = 0",
            "nothing warms without a mass",
        ),
        (
            "percent = 100 }",
            "percent = 10 }",
            "curve of fan does not rise",
        ),
        ("percent = 100 }", "percent = 101 }", "has 101 percent"),
        (
            "min_percent = 20",
            "min_percent = 120",
            "min_percent of fan is 120",
        ),
        ("pwm = \"pwm1\"", "pwm = \"fan1\"", "one is pwm1"),
        (
            "tachometer = \"fan1\"",
            "tachometer = \"fan\"",
            "one is fan1",
        ),
        ("max_khz = 600_000", "max_khz = 0", "max_khz in gpu is 0"),
        (
            "power = \"power1\", ",
            "",
            "names none of power, voltage and current",
        ),
        ("power = \"power1\"", "power = \"in1\"", "one is power1"),
        (
            "pretimeout_s = 5",
            "pretimeout_s = 30",
            "pretimeout_s of watchdog is 30",
        ),
        (
            "timeout_s = 30",
            "timeout_s = 0",
            "timeout_s of watchdog is 0",
        ),
        (
            "identity = \"bench_wdt\"",
            "identity = \"\"",
            "identity of watchdog is empty",
        ),
        (
            "name = \"green:ready\"",
            "name = \"../x\"",
            "no folder of /sys/class/leds",
        ),
        (
            "sector_bytes = 4096",
            "sector_bytes = 1024",
            "neither 512 nor 4096",
        ),
        ("sector_bytes = 4096", "sector_bytes = 512", "UFS has 4096"),
        (
            "device = \"sda\"",
            "device = \"/dev/sda\"",
            "no name in /sys/class/block",
        ),
        (
            "size_bytes = 67_108_864",
            "size_bytes = 67_108_865",
            "no multiple of the sector's 4096 bytes",
        ),
        ("size_bytes = 67_108_864", "size_bytes = 0", "no multiple"),
        (
            "name = \"data\"",
            "name = \"root\"",
            "two partitions are called \"root\"",
        ),
        (
            "name = \"root\"",
            "name = \"root_a\"",
            "its name goes without _a or _b",
        ),
        (
            "name = \"root\"",
            "name = \"ro ot\"",
            "is no partition name",
        ),
        (
            "name = \"root\"",
            "name = \"r2345678901234567890123456789012345\"",
            "is no partition name",
        ),
        (
            "content = \"data\"",
            "content = \"data\"\nslotted = true",
            "outlives updates",
        ),
        (
            "lun = 4\nsize",
            "lun = 40\nsize",
            "lun 40 of partition \"boot\" is more than 31",
        ),
        (
            "technology = \"ufs\"",
            "technology = \"disk\"",
            "only UFS has logical units",
        ),
        (
            "type_guid = \"20117F86-",
            "type_guid = \"20117F8-",
            "is no GUID",
        ),
        (
            "grow = true",
            "grow = true\n[[storage.partition]]\nname = \"late\"\nsize_bytes = 4096\ncontent = \"provisioning\"",
            "cannot grow",
        ),
        ("tries = 7", "tries = 8", "tries of slots is 8, not 1 to 7"),
        (
            "lun = 4 }",
            "lun = 5 }",
            "lun 5, the commit point, holds no slotted partition",
        ),
        ("lun = 4 }", "lun = 5 }", "its lun 4 is not among disks"),
        ("lun = 4 }", "lun = 0 }", "is twice in disks"),
        (
            "device = \"/dev/sde\"",
            "device = \"sde\"",
            "is not in /dev",
        ),
        (
            "content = \"kernel\"",
            "content = \"bootloader\"",
            "no slotted partition whose content is \"kernel\"",
        ),
        (
            "console = \"ttyS0\"",
            "console = \"\"",
            "console in boot is empty",
        ),
        (
            "\"vendor/board.dtb\"",
            "\"../board.dtb\"",
            "is no .dtb below the kernel's folder",
        ),
        ("[\"cpu\"]", "[]", "execution_providers is empty"),
        ("[\"cpu\"]", "[\"acl\"]", "lacks \"cpu\""),
        (
            "[\"cpu\"]",
            "[\"sim\", \"cpu\"]",
            "exactly where the key sim says",
        ),
        (
            "[\"cpu\"]",
            "[\"sim\", \"cpu\"]\nsim = \"crash\"",
            "only a simulated board has",
        ),
        (
            "[\"cpu\"]",
            "[\"cpu\", \"cpu\"]",
            "names one provider twice",
        ),
        (
            "[\"big\"]",
            "[\"bog\"]",
            "no such cpu_cluster; did you mean \"big\"?",
        ),
        ("[64]", "[48]", "no power of two"),
        ("[64]", "[]", "subgroup_sizes is empty"),
        (
            "max_workgroup_invocations = 256",
            "max_workgroup_invocations = 64",
            "at least 128",
        ),
        (
            "max_memory_bytes = 1_000_000",
            "max_memory_bytes = 0",
            "max_memory_bytes is 0",
        ),
        (
            "vulkan_device = \"Bench\"",
            "vulkan_device = \"\"",
            "vulkan_device is empty",
        ),
        (
            "method = \"disk\"",
            "method = \"disk\"\n[[flash]]\nmethod = \"disk\"",
            "two of flash have the method",
        ),
        (
            "method = \"disk\"",
            "method = \"disk\"\nenter = \"x\"",
            "method \"disk\" has no other key",
        ),
    ] {
        let found = after(from, to);
        assert!(
            found
                .iter()
                .any(|line| line.starts_with("bench.toml:") && line.contains(problem)),
            "{to:?}: wanted {problem:?}\nfound {found:#?}"
        );
    }
}

#[test]
fn simulated_parts_need_the_case_they_warm() {
    let (head, tail) = VALID.split_once("[simulation]").unwrap();
    let rest = &tail[tail.find("[[").unwrap()..];
    let found = problems(&format!("{head}{rest}"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains("thermal_zone \"gpu\" is simulated, but the board has no [simulation]"),
        "{found:#?}"
    );
}

#[test]
fn slotted_partitions_need_slots() {
    let (head, tail) = VALID.split_once("[slots]").unwrap();
    let found = problems(&format!("{head}{}", &tail[tail.find("[boot]").unwrap()..]));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].contains("partition \"root\" is slotted, but the board has no [slots]"),
        "{found:#?}"
    );
}

#[test]
fn other_slot_mechanisms_have_their_rules_too() {
    for (mechanism, problem) in [
        (
            "mechanism = \"uboot-text\"\nfile = \"slots.env\"\ntries = 3",
            "is no absolute path",
        ),
        (
            "mechanism = \"uboot-binary\"\nsize_bytes = 16_384\ntries = 3\ncopies = [{ device = \"/dev/mmcblk0\", offset_bytes = 0 }, { device = \"/dev/mmcblk0\", offset_bytes = 8_192 }]",
            "copies of slots overlap",
        ),
        (
            "mechanism = \"uboot-binary\"\nsize_bytes = 4\ntries = 3\ncopies = [{ device = \"a\", offset_bytes = 0 }, { device = \"b\", offset_bytes = 0 }]",
            "too small for an environment",
        ),
        (
            "mechanism = \"simulated\"\ntries = 0",
            "tries of slots is 0, not 1 to 9",
        ),
    ] {
        let (head, tail) = VALID.split_once("[slots]").unwrap();
        let text = format!(
            "{head}[slots]\n{mechanism}\n{}",
            &tail[tail.find("[boot]").unwrap()..]
        );
        let found = problems(&text);
        assert!(
            found.len() == 1 && found[0].contains(problem),
            "{mechanism}: {found:#?}"
        );
    }
}

proptest! {
    #[test]
    fn hostile_text_never_panics(text in "\\PC{0,400}") {
        drop(Board::parse(&text, "x.toml"));
    }

    /// Pieces of a valid file in any order and number get past the parser of TOML.
    #[test]
    fn hostile_files_never_panic(
        lines in prop::collection::vec((0..VALID.lines().count(), any::<bool>()), 0..120),
        value in prop::sample::select(vec!["-1", "\"\"", "[]", "{}", "9_223_372_036_854_775_807", "1.5", "nan", "true", "1979-05-27", "[[1]]", "{ kind = 3 }", "\"\\u0000\""]),
    ) {
        let known: Vec<&str> = VALID.lines().collect();
        let text: String = lines.iter().map(|(line, is_kept)| match known[*line].split_once(" = ") {
            Some((key, _)) if !is_kept => format!("{key} = {value}\n"),
            _ => format!("{}\n", known[*line]),
        }).collect();
        if let Err(error) = Board::parse(&text, "x.toml") {
            for line in error.to_string().lines() {
                prop_assert!(line.starts_with("x.toml:"), "{line:?}");
            }
        }
    }

    /// One changed value is never more than problems with places, whatever it is.
    #[test]
    fn one_changed_value_never_panics(
        line in 0..VALID.lines().count(),
        value in prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_filter("TOML has no such number", |f| f.is_finite()).prop_map(|f| format!("{f:e}")),
            "[a-z\"\\[{]{0,6}".prop_map(|text| format!("{text:?}")),
        ],
    ) {
        let text: Vec<String> = VALID.lines().enumerate().map(|(index, text)| match text.split_once(" = ") {
            Some((key, _)) if index == line => format!("{key} = {value}"),
            _ => text.to_owned(),
        }).collect();
        drop(Board::parse(&text.join("\n"), "x.toml"));
    }
}

#[test]
fn deep_nesting_is_refused_by_the_parser() {
    for (open, close) in [("[", "]"), ("{ a = ", " }")] {
        let text = format!("x = {}1{}", open.repeat(5_000), close.repeat(5_000));
        assert_eq!(problems(&text).len(), 1);
    }
}

#[test]
fn models_run_on_the_fast_cores_where_the_board_says_so() {
    let cores = |name| Board::builtin(name).unwrap().inference_cores();
    assert_eq!(cores("qrb5165-rb5"), [4, 5, 6, 7]);
    assert_eq!(cores("host-sim"), [0; 0], "on all");
}
