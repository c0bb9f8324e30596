//! Every decoder of foreign bytes under `edgectl flash`: the first byte chooses which, so that one corpus serves all.
//!
//! Run with `cargo xtask fuzz flash`.
#![no_main]

use std::io::{self, Read as _};

use edgectl::flash::{
    bundle::Manifest,
    checksum,
    fastboot::client::{read_answer, read_number},
    source::{xz_image_bytes, zstd_image_bytes},
    sparse::Unsparse,
    target::Target,
};
use libfuzzer_sys::fuzz_target;

/// A few bytes can stand for terabytes of zeros.
const IMAGE_MAX_BYTES: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(data);
    match choice % 8 {
        0 => drop(read_answer(data)),
        1 => {
            if let Ok(image) = Unsparse::new(data) {
                let promised = image.image_bytes();
                let read = io::copy(&mut image.take(IMAGE_MAX_BYTES), &mut io::sink());
                assert!(read.unwrap_or(0) <= promised);
            }
        }
        2 => {
            if let Ok(manifest) = Manifest::parse(&text) {
                assert!(manifest.partitions.iter().all(|part| !part.file.contains('/')));
            }
        }
        3 => drop(checksum::find(&text, "a.img")),
        4 => drop(xz_image_bytes(data, 12)),
        5 => drop(zstd_image_bytes(data)),
        6 => drop(read_number(&text)),
        _ => {
            if let Ok(target) = text.parse::<Target>() {
                assert_eq!(target.to_string().parse(), Ok(target));
            }
        }
    }
});
