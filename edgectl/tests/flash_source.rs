//! Images in every form that they come in, made by the programs that make them, and damaged in every way.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod flash_support;

use std::{path::Path, process::Command};

use edgectl::flash::source::{Compression, Source, SourceError};
use flash_support::{MIB, file, flash, noise, sim_medium::SimMedium};

/// Runs a packer, which writes to standard output.
fn pack(program: &str, arguments: &[&str], input: &Path) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .arg(input)
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot start {program} ({error}); `cargo xtask setup` installs it")
        });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Half noise, half zeros.
fn image() -> Vec<u8> {
    let mut bytes = noise(2 * MIB, 1);
    bytes.extend(vec![0; 2 * MIB]);
    bytes.extend(noise(4_096, 2));
    bytes
}

fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    let mut source = Source::open(path)?;
    let mut all = Vec::new();
    let mut buffer = vec![0; MIB];
    loop {
        match source.fill(&mut buffer)? {
            0 => return Ok(all),
            read => all.extend(&buffer[..read]),
        }
    }
}

const PACKERS: [(&str, &[&str], Compression, bool); 6] = [
    ("zstd", &["-c", "-q"], Compression::Zstd, true),
    (
        "zstd",
        &["-c", "-q", "--ultra", "-22", "--no-check"],
        Compression::Zstd,
        true,
    ),
    ("xz", &["-c", "-1"], Compression::Xz, true),
    (
        "xz",
        &["-c", "--block-size=1MiB", "--check=sha256"],
        Compression::Xz,
        true,
    ),
    ("gzip", &["-c"], Compression::Gzip, false),
    ("cat", &[], Compression::None, true),
];

#[test]
fn every_form_is_recognised_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = image();
    let plain = file(folder.path(), "plain", &bytes);
    for (program, arguments, compression, knows_size) in PACKERS {
        // The name says nothing.
        let packed = file(folder.path(), "packed", &pack(program, arguments, &plain));
        let facts = Source::open(&packed).unwrap().facts().clone();
        assert_eq!(facts.compression, compression);
        let size = knows_size.then_some(bytes.len() as u64);
        assert_eq!(facts.image_bytes, size, "{program} {arguments:?}");
        assert!(read(&packed).unwrap() == bytes, "{program} {arguments:?}");
        let medium = SimMedium::device(noise(8 * MIB, 9));
        flash(&packed, &medium).unwrap();
        assert!(medium.kept()[..bytes.len()] == bytes);
    }
}

#[test]
fn streams_behind_one_another_are_one_image() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = image();
    let plain = file(folder.path(), "plain", &bytes);
    for (program, arguments) in [
        ("zstd", ["-c", "-q"]),
        ("xz", ["-c", "-1"]),
        ("gzip", ["-c", "-1"]),
    ] {
        let packed = pack(program, &arguments, &plain);
        let twice = file(folder.path(), "twice", &packed.repeat(2));
        assert!(read(&twice).unwrap() == bytes.repeat(2), "{program}");
    }
    // A skippable frame before and behind (RFC 8878, section 3.1.2).
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let packed = pack("zstd", &["-c", "-q"], &plain);
    let framed = [&skippable[..], &packed, &skippable].concat();
    assert!(read(&file(folder.path(), "framed", &framed)).unwrap() == bytes);
}

#[test]
fn a_file_that_ends_early_is_named_so() {
    let folder = tempfile::tempdir().unwrap();
    let plain = file(folder.path(), "plain", &image());
    for (program, arguments, compression, _) in PACKERS {
        if compression == Compression::None {
            continue;
        }
        let whole = pack(program, arguments, &plain);
        for kept in [whole.len() - 1, whole.len() / 2, 40] {
            let cut = file(folder.path(), "cut", &whole[..kept]);
            let words = read(&cut).unwrap_err().to_string();
            assert!(
                words.contains("is damaged or cut short"),
                "{program} {kept}: {words}"
            );
            let medium = SimMedium::device(noise(8 * MIB, 9));
            let Ok(source) = Source::open(&cut) else {
                continue;
            };
            drop(source);
            flash(&cut, &medium).unwrap_err();
        }
    }
}

#[test]
fn a_flipped_bit_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = image();
    let plain = file(folder.path(), "plain", &bytes);
    for (program, arguments) in [
        ("zstd", &["-c", "-q"][..]),
        ("xz", &["-c", "-1"]),
        ("gzip", &["-c"]),
    ] {
        let whole = pack(program, arguments, &plain);
        for at in (20..whole.len()).step_by(whole.len() / 23) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            let damaged = file(folder.path(), "damaged", &damaged);
            // A bit that no decoder looks at may flip, as long as the image comes out right.
            if let Ok(read) = read(&damaged) {
                assert!(read == bytes, "{program} {at}");
            }
        }
    }
}

#[test]
fn a_window_beyond_our_memory_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let plain = file(folder.path(), "plain", &vec![7; 65 * MIB]);
    for (program, arguments, advice) in [
        (
            "zstd",
            &["-c", "-q", "--long=27"][..],
            "`zstd -d --long=31`",
        ),
        ("xz", &["-c", "-9"], "`xz -dk`"),
    ] {
        let packed = file(folder.path(), "packed", &pack(program, arguments, &plain));
        let words = Source::open(&packed).unwrap_err().to_string();
        assert!(
            words.contains("more than 32 MiB of memory") && words.contains(advice),
            "{words}"
        );
    }
    let packed = pack("zstd", &["-c", "-q", "-19", "--long=25"], &plain);
    assert_eq!(
        read(&file(folder.path(), "packed", &packed)).unwrap().len(),
        65 * MIB
    );
}

#[test]
fn what_is_no_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let words = |path: &Path| Source::open(path).unwrap_err().to_string();
    assert!(words(&folder.path().join("absent")).starts_with("cannot open "));
    assert!(words(folder.path()).contains("is no file"));
    assert!(words(&file(folder.path(), "empty", b"")).contains("is empty"));
}

#[test]
fn checksum_files_are_of_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = image();
    let plain = file(folder.path(), "plain", &bytes);
    let packed = file(
        folder.path(),
        "packed.zst",
        &pack("zstd", &["-c", "-q"], &plain),
    );
    for path in [plain, packed] {
        let line = pack("sha256sum", &[], &path);
        let beside = format!("{}.sha256", path.file_name().unwrap().to_str().unwrap());
        file(folder.path(), &beside, &line);
        let medium = SimMedium::device(noise(8 * MIB, 9));
        flash(&path, &medium).unwrap();
        let mut other = line;
        other[0] = if other[0] == b'0' { b'1' } else { b'0' };
        file(folder.path(), &beside, &other);
        let words = flash(&path, &medium).unwrap_err().to_string();
        assert!(words.contains("is not what its checksum says"), "{words}");
    }
}

#[test]
fn android_sparse_images_are_expanded() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = image();
    let plain = file(folder.path(), "plain", &bytes);
    let sparse = folder.path().join("sparse");
    let made = Command::new("img2simg").args([&plain, &sparse]).status();
    let made = made.unwrap_or_else(|error| {
        panic!("cannot start img2simg ({error}); `cargo xtask setup` installs it")
    });
    assert!(made.success());
    let packed = file(
        folder.path(),
        "packed",
        &pack("zstd", &["-c", "-q"], &sparse),
    );
    for path in [sparse, packed] {
        let facts = Source::open(&path).unwrap().facts().clone();
        assert!(facts.sparse);
        assert_eq!(facts.image_bytes, Some(bytes.len() as u64));
        assert!(read(&path).unwrap() == bytes);
    }
}
