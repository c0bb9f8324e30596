//! `cargo xtask boards`: its table, its problems, and the list of keys in the documentation.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use cross::boards::{check, files_of_repository, reference};
use edge_hal::Board;

#[test]
fn all_boards_of_the_repository_are_in_the_table() {
    let report = check(files_of_repository().unwrap());
    assert!(report.failures.is_empty(), "{}", report.problems());
    let table = report.table();
    for name in Board::builtin_names() {
        assert!(
            table.contains(&format!("\n{name} ")),
            "{name} is missing:\n{table}"
        );
    }
    let abstract_line = table.lines().last().unwrap();
    assert!(abstract_line.contains("sm8250.toml: abstract"), "{table}");
    let json = report.json();
    assert_eq!(
        json["boards"].as_array().unwrap().len(),
        Board::builtin_names().count()
    );
    assert_eq!(json["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn problems_are_one_a_line_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    fs::write(&file, "inherit = \"qemu-virt\"\nnam = \"mine\"\nled = 5\n").unwrap();
    let report = check(vec![file, folder.path().join("none.toml")]);
    let problems = report.problems();
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(lines.len(), 3, "{problems}");
    assert!(
        lines[0].ends_with("mine.toml:2: unknown key \"nam\"; did you mean \"name\"?"),
        "{problems}"
    );
    assert!(
        lines[1].ends_with("mine.toml:3: led is 5, not an array"),
        "{problems}"
    );
    assert!(
        lines[2].contains("none.toml") && lines[2].contains("No such file"),
        "{problems}"
    );
    assert_eq!(report.json()["problems"][0]["line"], 2);
}

#[test]
fn the_list_of_keys_is_that_of_the_types() {
    let page = reference::Page::read().unwrap();
    assert!(
        page.current == page.wanted,
        "docs/boards.md is out of date: run cargo xtask boards --write-docs"
    );
    for key in [
        "`inherit`",
        "`[[thermal_zone]]`",
        "`[storage.source]`",
        "`mechanism = \"qualcomm-abl\"`",
    ] {
        assert!(page.wanted.contains(key), "{key}");
    }
}

#[test]
fn the_tutorial_says_what_the_program_says() {
    let page = fs::read_to_string(cross::repository().join("docs/boards.md")).unwrap();
    let start = page.find("inherit = \"qrb5165-rb5\"").unwrap();
    let file = page[start..].split("```").next().unwrap();
    let error = Board::parse(file, "mine.toml").unwrap_err().to_string();
    assert!(
        page.contains(&format!("\n{error}\n")),
        "the page lacks: {error}"
    );
    let right = file.replace("taget", "target");
    assert_eq!(Board::parse(&right, "mine.toml").unwrap().name, "mine");
}
