//! Board files: those of the program are valid, and a wrong one says where and what.

use std::{collections::BTreeSet, fs, path::Path};

use edge_hal::board::{
    Board, BoardError, ExecutionProvider, StorageSource, ThermalZoneConfig, ZoneSource,
};

const VALID: &str = r#"[board]
name = "bench"
description = "the board on the bench"
compatible = ["vendor,board"]

[storage]
kind = "simulated"
total_bytes = 1_000
available_bytes = 400

[inference]
execution_providers = ["cpu"]

[[thermal_zone]]
name = "cpu"
kind = "linux"
type = "cpu0-thermal"

[[thermal_zone]]
name = "board"
kind = "hwmon"
chip = "tmp102"
input = "temp1"
"#;

#[test]
fn every_file_of_the_folder_is_part_of_the_program_under_its_own_name() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../board-configs"));
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
        .collect();
    let known: BTreeSet<String> = Board::builtin_names().map(str::to_owned).collect();
    assert_eq!(files, known);
    for name in known {
        assert_eq!(Board::builtin(&name).unwrap().name, name);
    }
}

#[test]
fn a_file_gives_its_board() {
    let expected = Board {
        name: "bench".to_owned(),
        description: "the board on the bench".to_owned(),
        compatible: vec!["vendor,board".to_owned()],
        storage: StorageSource::Simulated {
            total_bytes: 1_000,
            available_bytes: 400,
        },
        execution_providers: vec![ExecutionProvider::Cpu],
        thermal_zones: vec![
            ThermalZoneConfig {
                name: "cpu".to_owned(),
                source: ZoneSource::Linux {
                    zone_type: "cpu0-thermal".to_owned(),
                },
            },
            ThermalZoneConfig {
                name: "board".to_owned(),
                source: ZoneSource::Hwmon {
                    chip: "tmp102".to_owned(),
                    input: "temp1".to_owned(),
                },
            },
        ],
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.toml");
    fs::write(&path, VALID).unwrap();
    assert_eq!(
        Board::resolve(path.to_str().unwrap()).unwrap(),
        expected,
        "by path"
    );
}

#[test]
fn a_wrong_file_names_line_and_cure() {
    for (from, to, line, problem) in [
        ("name = \"bench\"", "name = \"Bench\"", 2, "a-z"),
        ("name = \"bench\"\n", "", 1, "missing field `name`"),
        (
            "description",
            "descripton",
            3,
            "unknown field `descripton`, expected one of `name`, `description`, `compatible`",
        ),
        (
            "total_bytes = 1_000",
            "",
            6,
            "needs total_bytes and available_bytes",
        ),
        ("\"simulated\"", "\"floppy\"", 7, "unknown variant `floppy`"),
        (
            "\"simulated\"",
            "\"linux\"",
            6,
            "kind \"linux\" has no other key",
        ),
        ("[\"cpu\"]", "[\"gpu\"]", 12, "unknown variant `gpu`"),
        ("[\"cpu\"]", "[]", 12, "execution_providers is empty"),
        ("type = \"cpu0-thermal\"", "", 14, "has name, kind, type"),
        (
            "input = \"temp1\"",
            "type = \"x\"",
            19,
            "has name, kind, chip and input",
        ),
        (
            "name = \"board\"",
            "name = \"cpu\"",
            20,
            "two thermal zones are called \"cpu\"",
        ),
        (
            "[[thermal_zone]]",
            "[[thermalzone]]",
            14,
            "unknown field `thermalzone`",
        ),
        ("= 1_000", "= ", 8, ""),
    ] {
        let text = VALID.replacen(from, to, 1);
        let error = Board::parse(&text, "bench.toml").unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("bench.toml:{line}: ")) && message.contains(problem),
            "{from} -> {to:?}: {message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn what_is_no_board_lists_the_boards() {
    for name in ["rb6", "./rb6.toml"] {
        let error = Board::resolve(name).unwrap_err();
        assert!(matches!(
            error,
            BoardError::Unknown { .. } | BoardError::Read { .. }
        ));
        let message = error.to_string();
        assert!(
            message.contains(name) && message.contains("host-sim"),
            "{message}"
        );
    }
}
