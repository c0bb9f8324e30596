//! Which board a machine is: by name, or by its device tree.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use edge_hal::board::{Board, BoardError, choose, compatible_strings};

#[test]
fn what_is_no_board_lists_the_boards() {
    for name in ["rb6", "./rb6.toml"] {
        let message = Board::resolve(name).unwrap_err().to_string();
        assert!(
            message.contains(name) && message.contains("host-sim") && !message.contains("sm8250,"),
            "{message}"
        );
    }
}

#[test]
fn the_device_tree_tells_the_board() {
    let root = tempfile::tempdir().unwrap();
    let error = Board::detect(root.path()).unwrap_err();
    assert!(matches!(error, BoardError::NoDeviceTree { .. }));
    assert!(error.to_string().contains("--board NAME|FILE"), "{error}");

    let folder = root.path().join("proc/device-tree");
    fs::create_dir_all(&folder).unwrap();
    for (bytes, expected) in [
        (
            b"qcom,qrb5165-rb5\0qcom,sm8250\0".as_slice(),
            Some("qrb5165-rb5"),
        ),
        (b"linux,dummy-virt\0", Some("qemu-virt")),
        (
            b"aethir,edge\0qcom,sm8250-hdk\0qcom,sm8250\0",
            Some("aethir-edge"),
        ),
        (
            b"vendor,new\0qcom,sm8250-hdk\0qcom,sm8250\0",
            Some("sm8250-hdk"),
        ),
        (b"vendor,new\0qcom,sm8250\0", None),
        (b"\0\0\xff\xfe", None),
        (b"", None),
    ] {
        fs::write(folder.join("compatible"), bytes).unwrap();
        match (Board::detect(root.path()), expected) {
            (Ok(found), Some(name)) => {
                assert_eq!(found.board.name, name);
                assert!(found.board.compatible.contains(&found.compatible));
            }
            (Err(error @ BoardError::NotDetected { .. }), None) => {
                assert!(error.to_string().contains("--board NAME|FILE"), "{error}");
            }
            (found, _) => panic!("{expected:?}: {found:?}"),
        }
    }
}

#[test]
fn the_most_specific_name_wins() {
    let board = |name: &str, compatible: &[&str]| Board {
        name: name.to_owned(),
        compatible: compatible.iter().map(ToString::to_string).collect(),
        ..Board::builtin("host-sim").unwrap()
    };
    let boards = [
        board("general", &["v,chip"]),
        board("special", &["v,board"]),
    ];
    let machine = compatible_strings(b"v,board\0v,chip\0");
    let (found, name) = choose(&machine, &boards).unwrap();
    assert_eq!((found.name.as_str(), name), ("special", "v,board"));
    assert!(choose(&compatible_strings(b"v,other\0"), &boards).is_none());
}
