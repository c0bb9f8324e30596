//! Board files that inherit others: what they take over, and the bounds of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{fs, path::Path};

use edge_hal::board::{Board, BoardError, MAX_FILE_BYTES};

const VALID: &str = include_str!("data/bench.toml");

#[test]
fn a_file_takes_over_what_it_inherits() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.toml");
    fs::write(&base, format!("abstract = true\n{VALID}")).unwrap();
    let sub = folder.path().join("sub");
    fs::create_dir(&sub).unwrap();
    let file = sub.join("mine.toml");
    let write =
        |text: &str| fs::write(&file, format!("inherit = \"../base.toml\"\n{text}")).unwrap();

    write(
        "name = \"mine\"\n[watchdog]\ntimeout_s = 60\n[[thermal_zone]]\nname = \"cpu\"\ntarget_millicelsius = 70_000\n[[thermal_zone]]\nname = \"more\"\nsource = { kind = \"thermal\", type = \"x\" }\nheated_by = \"board\"\n",
    );
    let board = Board::from_file(&file).unwrap();
    let watchdog = board.watchdog.as_ref().unwrap();
    assert_eq!(
        (watchdog.timeout_s, watchdog.pretimeout_s),
        (60, Some(5)),
        "key by key"
    );
    let zones: Vec<_> = board
        .thermal_zones
        .iter()
        .map(|z| (z.name.as_str(), z.target_millicelsius))
        .collect();
    assert_eq!(
        zones,
        [
            ("cpu", Some(70_000)),
            ("board", None),
            ("gpu", Some(80_000)),
            ("more", None)
        ],
        "by name"
    );
    assert_eq!(
        board.thermal_zones[0].trips.len(),
        2,
        "the rest of a zone stays"
    );

    // A problem lies in the file that wrote the key.
    write("name = \"mine\"\n[watchdog]\ntimeout_s = 3\n");
    let error = Board::from_file(&file).unwrap_err().to_string();
    assert!(
        error.contains("base.toml:") && error.contains("pretimeout_s"),
        "{error}"
    );
    write("[watchdog]\npretimeout_s = 31\n");
    let error = Board::from_file(&file).unwrap_err().to_string();
    assert!(error.contains("mine.toml:3: pretimeout_s"), "{error}");
    // Two of one name in one file are two.
    write(
        "[[led]]\nname = \"green:ready\"\nmeaning = \"fault\"\n[[led]]\nname = \"green:ready\"\nmeaning = \"fault\"\n",
    );
    let error = Board::from_file(&file).unwrap_err().to_string();
    assert!(error.contains("two of led have the name"), "{error}");

    let error = Board::from_file(&base).unwrap_err().to_string();
    assert!(
        error.contains("base.toml is abstract") && error.contains("qrb5165-rb5"),
        "{error}"
    );
}

#[test]
fn inheriting_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.toml"));
    let error = |name: &str| Board::from_file(&path(name)).unwrap_err().to_string();

    fs::write(path("a"), "inherit = \"./b.toml\"\n").unwrap();
    fs::write(path("b"), "\ninherit = \"./a.toml\"\n").unwrap();
    let cycle = error("a");
    assert!(
        cycle.contains("b.toml:2: \"./a.toml\" inherits this file in turn"),
        "{cycle}"
    );
    for depth in 0..20 {
        fs::write(
            path(&format!("d{depth}")),
            format!("inherit = \"./d{}.toml\"\n", depth + 1),
        )
        .unwrap();
    }
    let deep = error("d0");
    assert!(
        deep.contains("d7.toml:1: more than 8 files inherit one another"),
        "{deep}"
    );
    fs::write(path("gone"), "inherit = \"./nowhere.toml\"\n").unwrap();
    assert!(
        error("gone").contains("nowhere.toml cannot be read"),
        "{}",
        error("gone")
    );
    fs::write(path("typo"), "inherit = \"sm825\"\n").unwrap();
    assert!(
        error("typo").contains("did you mean \"sm8250\"?"),
        "{}",
        error("typo")
    );
    fs::write(path("number"), "inherit = 5\n").unwrap();
    assert!(
        error("number").contains("number.toml:1: inherit is no name"),
        "{}",
        error("number")
    );
    let size = usize::try_from(MAX_FILE_BYTES).unwrap();
    fs::write(path("large"), " ".repeat(size + 1)).unwrap();
    assert!(
        error("large").contains("larger than 65536 bytes"),
        "{}",
        error("large")
    );
    let device = Board::from_file(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(device, BoardError::Read { .. }), "{device}");
    // Text without a folder reads no files.
    let text = Board::parse("inherit = \"./base.toml\"\n", "bench.toml");
    let error = text.unwrap_err().to_string();
    assert!(error.contains("only a file may inherit a path"), "{error}");
}
