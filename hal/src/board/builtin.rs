//! The files of `board-configs/`, which are part of the program.

/// Each file's text under its name without `.toml`, and whether it is abstract: only there to be inherited.
const FILES: &[(&str, bool, &str)] = &[
    (
        "aethir-edge",
        false,
        include_str!("../../../board-configs/aethir-edge.toml"),
    ),
    (
        "host-sim",
        false,
        include_str!("../../../board-configs/host-sim.toml"),
    ),
    (
        "qemu-virt",
        false,
        include_str!("../../../board-configs/qemu-virt.toml"),
    ),
    (
        "qrb5165-rb5",
        false,
        include_str!("../../../board-configs/qrb5165-rb5.toml"),
    ),
    (
        "sm8250",
        true,
        include_str!("../../../board-configs/sm8250.toml"),
    ),
    (
        "sm8250-hdk",
        false,
        include_str!("../../../board-configs/sm8250-hdk.toml"),
    ),
    (
        "sm8250-mtp",
        false,
        include_str!("../../../board-configs/sm8250-mtp.toml"),
    ),
];

/// Names of the boards.
pub(super) fn board_names() -> impl Iterator<Item = &'static str> {
    FILES
        .iter()
        .filter(|(_, is_abstract, _)| !is_abstract)
        .map(|(name, ..)| *name)
}

/// Names of all files, those that are only there to be inherited too.
pub(super) fn all_names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, ..)| *name)
}

/// Text of a file.
pub(super) fn text(name: &str) -> Option<&'static str> {
    FILES
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(.., text)| *text)
}

/// What a file is called in messages.
pub(super) fn file(name: &str) -> String {
    format!("board-configs/{name}.toml")
}
