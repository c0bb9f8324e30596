//! Who may import whom. The table is the one of the design, and a new edge is a decision: change
//! both, or neither.

use std::collections::BTreeSet;

use cargo_metadata::MetadataCommand;

/// Package, and those of ours that it may import (for building, testing or running).
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("edge-protocol", &[]),
    ("edge-identity", &["edge-protocol"]),
    ("edge-proof", &["edge-protocol"]),
    ("edge-matching", &["edge-protocol", "edge-proof"]),
    ("edge-rewards", &["edge-protocol"]),
    ("edge-hal", &[]),
    ("edge-ota", &["edge-hal", "edge-protocol"]),
    (
        "edge-agent",
        &[
            "edge-hal",
            "edge-identity",
            "edge-protocol",
            "edge-proof",
            "edge-rewards",
        ],
    ),
    (
        "edge-indexer",
        &[
            "edge-identity",
            "edge-protocol",
            "edge-proof",
            "edge-matching",
            "edge-rewards",
        ],
    ),
    (
        "edge-checker",
        &["edge-identity", "edge-protocol", "edge-proof"],
    ),
    (
        "edgectl",
        &[
            "edge-identity",
            "edge-protocol",
            "edge-proof",
            "edge-matching",
            "edge-hal",
            "edge-ota",
            "edge-rewards",
        ],
    ),
    ("cross", &["edge-hal"]),
];

#[test]
fn no_crate_imports_what_the_design_does_not_allow() {
    let workspace = MetadataCommand::new()
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let ours: BTreeSet<&str> = workspace.packages.iter().map(|p| p.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        let name = package.name.as_str();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in &package.dependencies {
            let imported = dependency.name.as_str();
            // A crate may test itself with other features.
            if ours.contains(imported) && imported != name && !allowed.contains(&imported) {
                wrong.push(format!("{name} imports {imported} ({:?})", dependency.kind));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "the design's table does not allow:\n  {}",
        wrong.join("\n  ")
    );
}
