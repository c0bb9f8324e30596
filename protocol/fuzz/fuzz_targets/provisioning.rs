//! What an owner's PC, or whoever held the card, leaves for a box: the provisioning file, the root of updates, and the
//! FAT partition around them. The first byte chooses which.
//!
//! Run with `cargo xtask fuzz provisioning`.
#![no_main]

use std::{io::Cursor, panic, sync::Once};

use edge_protocol::provisioning::{
    FILE_MAX_BYTES,
    area::{self, Files},
    check_update_root, parse,
};
use libfuzzer_sys::fuzz_target;

/// The partition of a fuzz case; small, so that many fit into a second.
const AREA_BYTES: usize = 256 << 10;

/// The FAT library's panics are caught and become errors; the fuzzer's hook would end the process before. A panic that
/// is not caught ends it all the same.
static QUIET: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    QUIET.call_once(|| panic::set_hook(Box::new(|_| {})));
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    match choice % 3 {
        0 => {
            if let Err(problems) = parse(data, &|zone| zone == "UTC") {
                assert!(problems.0.iter().all(|problem| !problem.to_string().contains('\n')));
            }
        }
        1 => drop(check_update_root(data)),
        _ => damaged_area(data),
    }
});

/// A file system of ours, with bytes of the case laid over it: each five are a place and what is put there.
fn damaged_area(data: &[u8]) {
    let files = Files {
        provisioning: b"version = 1\n".to_vec(),
        update_root: Some(b"{}".to_vec()),
    };
    let mut disk = vec![0; AREA_BYTES];
    area::write(Cursor::new(&mut disk), 512, &files).expect("an empty partition can be written");
    for patch in data.chunks_exact(5) {
        let place = u32::from_le_bytes([patch[0], patch[1], patch[2], 0]) as usize % AREA_BYTES;
        disk[place] = patch[3];
        // Structures lie at the start: half of the damage goes there.
        disk[place % 4096] = patch[4];
    }
    if let Ok(content) = area::read(Cursor::new(&mut disk), 512) {
        assert!(content.provisioning.is_none_or(|bytes| bytes.len() <= FILE_MAX_BYTES + 1));
    }
    let _written = area::write(Cursor::new(&mut disk), 512, &files);
}
