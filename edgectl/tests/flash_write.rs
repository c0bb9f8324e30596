//! Writing an image to a medium that fails in every way that a medium can.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod flash_support;

use edgectl::flash::{
    progress::Progress,
    source::{Source, SourceError},
    stop::Stop,
    write::{self, HEAD_BYTES, WriteError},
};
use flash_support::{
    MIB, file, flash, noise,
    sim_medium::{Fault, SimMedium},
};
use proptest::prelude::*;

#[test]
fn an_identical_image_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(5 * MIB + 12_345, 1);
    let image = file(folder.path(), "a.img", &bytes);
    let mut content = noise(8 * MIB, 2);
    let medium = SimMedium::device(content.clone());
    let first = flash(&image, &medium).unwrap();
    assert_eq!(first.image_bytes, bytes.len() as u64);
    assert_eq!(first.matched_bytes, 0);
    assert_eq!(first.verified_bytes, first.image_bytes);
    content[..bytes.len()].copy_from_slice(&bytes);
    assert!(
        medium.kept() == content,
        "the rest of the device is untouched"
    );

    let again = SimMedium::device(content);
    let second = flash(&image, &again).unwrap();
    assert_eq!(second.written_bytes, 0);
    assert_eq!(again.written(), 0);
    assert_eq!(second.matched_bytes, second.image_bytes);
    assert_eq!(second.sha256, first.sha256);
}

#[test]
fn only_what_differs_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(20 * MIB, 1);
    let image = file(folder.path(), "a.img", &bytes);
    let mut content = bytes.clone();
    content[7 * MIB + 700_000] ^= 1;
    let medium = SimMedium::device(content);
    let written = flash(&image, &medium).unwrap();
    // A grain, and the head once to wipe it and once to write it.
    assert_eq!(written.written_bytes, (64 << 10) + 2 * HEAD_BYTES as u64);
    assert!(medium.kept() == bytes);
}

#[test]
fn a_file_becomes_exactly_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = noise(3 * MIB, 1);
    bytes.extend(vec![0; 2 * MIB]);
    let image = file(folder.path(), "a.img", &bytes);
    for before in [vec![], noise(MIB, 3), noise(9 * MIB, 3)] {
        let medium = SimMedium::file(before);
        flash(&image, &medium).unwrap();
        assert!(medium.kept() == bytes);
    }
    let blank = SimMedium::file(vec![]);
    let written = flash(&image, &blank).unwrap();
    assert_eq!(written.written_bytes, 3 * MIB as u64, "zeros stay holes");
}

#[test]
fn every_cut_leaves_a_medium_that_does_not_start_and_the_next_run_ends_right() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(4 * MIB + 777, 1);
    let image = file(folder.path(), "a.img", &bytes);
    let old = noise(5 * MIB, 2);
    let steps = {
        let medium = SimMedium::device(old.clone());
        flash(&image, &medium).unwrap();
        medium.steps()
    };
    assert!(steps > 8, "{steps}");
    for at in 0..steps {
        for seed in [1, 2, 3] {
            let medium = SimMedium::device(old.clone()).failing(Fault::PowerCut { at, seed });
            let error = flash(&image, &medium).unwrap_err();
            assert!(matches!(error, WriteError::Medium { .. }), "{error}");
            let left = medium.kept();
            let body_is_new = left[HEAD_BYTES..bytes.len()] == bytes[HEAD_BYTES..];
            let body_is_old = left[HEAD_BYTES..] == old[HEAD_BYTES..];
            // A whole head goes only with a whole body of its own.
            assert!(
                left[..HEAD_BYTES] != old[..HEAD_BYTES] || body_is_old,
                "cut at {at}"
            );
            assert!(
                left[..HEAD_BYTES] != bytes[..HEAD_BYTES] || body_is_new,
                "cut at {at}"
            );
            let again = SimMedium::device(left);
            flash(&image, &again).unwrap();
            assert!(again.kept()[..bytes.len()] == bytes, "cut at {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cuts_one_after_the_other_never_spoil_the_end(
        cuts in prop::collection::vec((0usize..14, any::<u64>()), 0..5),
        length in (MIB..6 * MIB),
        grows in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let bytes = noise(length, 1);
        let image = file(folder.path(), "a.img", &bytes);
        let mut content = if grows { Vec::new() } else { noise(6 * MIB, 2) };
        let medium = |content| if grows { SimMedium::file(content) } else { SimMedium::device(content) };
        for (at, seed) in cuts {
            let cut = medium(content).failing(Fault::PowerCut { at, seed });
            let _cut_or_done = flash(&image, &cut);
            content = cut.kept();
        }
        let last = medium(content);
        flash(&image, &last).unwrap();
        prop_assert!(last.kept()[..length] == bytes);
    }
}

/// Flashes 4 MiB onto a device that fails; says what became of it, and whether its head is the image's.
fn with_fault(fault: Fault) -> (WriteError, bool) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(4 * MIB, 1);
    let image = file(folder.path(), "a.img", &bytes);
    let medium = SimMedium::device(noise(5 * MIB, 2)).failing(fault);
    let error = flash(&image, &medium).unwrap_err();
    let starts = medium.kept()[..HEAD_BYTES] == bytes[..HEAD_BYTES];
    (error, starts)
}

#[test]
fn a_medium_that_lies_is_found_out_before_it_starts() {
    for fault in [
        Fault::Fake {
            real_bytes: 3 * MIB as u64,
        },
        Fault::FlipsBit {
            at: 2 * MIB as u64 + 5,
        },
    ] {
        let (error, starts) = with_fault(fault);
        assert!(matches!(error, WriteError::ReadBack { .. }), "{error}");
        assert!(!starts, "{fault:?}");
    }
    let (error, _) = with_fault(Fault::FlipsBit { at: 5 });
    let words = error.to_string();
    assert!(
        words.contains("other bytes than were written, from byte 0 on"),
        "{words}"
    );
}

#[test]
fn each_failure_has_its_own_words() {
    let cases = [
        (
            Fault::Full { at: 2 * MIB as u64 },
            "no room left for sim after",
        ),
        (Fault::Vanishes { at: 3 }, "sim went away; plug it in again"),
        (
            Fault::BadSector { at: 3 * MIB as u64 },
            "cannot read sim at byte 3145728",
        ),
        (Fault::SyncFails, "cannot write sim"),
    ];
    for (fault, expected) in cases {
        let (error, starts) = with_fault(fault);
        let words = error.to_string();
        assert!(words.starts_with(expected), "{fault:?}: {words}");
        assert!(!starts);
    }
}

#[test]
fn an_image_that_does_not_fit_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = file(folder.path(), "a.img", &noise(2 * MIB, 1));
    let medium = SimMedium::device(noise(MIB, 2));
    let error = flash(&image, &medium).unwrap_err();
    assert!(matches!(
        error,
        WriteError::TooLarge {
            image: 2_097_152,
            capacity: 1_048_576,
            ..
        }
    ));
    assert_eq!(medium.steps(), 0);
}

#[test]
fn a_stop_before_the_first_write_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = file(folder.path(), "a.img", &noise(4 * MIB, 1));
    let medium = SimMedium::device(noise(4 * MIB, 2));
    let stop = Stop::default();
    stop.set();
    let source = Source::open(&image).unwrap();
    let error = write::write(source, &medium, &Progress::hidden(), &stop).unwrap_err();
    assert_eq!(error.to_string(), "stopped; nothing was written to sim");
    assert_eq!(medium.written(), 0);
}

#[test]
fn an_image_with_the_wrong_sum_never_starts() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(3 * MIB, 1);
    let image = file(folder.path(), "a.img", &bytes);
    let sum = "0".repeat(64);
    file(
        folder.path(),
        "a.img.sha256",
        format!("{sum}  a.img\n").as_bytes(),
    );
    let medium = SimMedium::device(noise(4 * MIB, 2));
    let error = flash(&image, &medium).unwrap_err();
    assert!(
        matches!(error, WriteError::Source(SourceError::Checksum(_))),
        "{error}"
    );
    assert!(medium.kept()[..HEAD_BYTES].iter().all(|byte| *byte == 0));
}
