//! What the tests of flashing share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "part of several test programs, each of which uses some; a test fails by panicking"
)]

pub mod sim_board;
pub mod sim_medium;

use std::path::{Path, PathBuf};

use edgectl::flash::{
    medium::Medium,
    progress::Progress,
    source::Source,
    stop::Stop,
    write::{self, WriteError, Written},
};

pub const MIB: usize = 1 << 20;

/// Bytes that look like no others, and repeat for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // Xorshift (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes a file, and says where.
pub fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Writes the image at `path` to `medium`.
pub fn flash(path: &Path, medium: &dyn Medium) -> Result<Written, WriteError> {
    let source = Source::open(path).unwrap();
    write::write(source, medium, &Progress::hidden(), &Stop::default())
}
