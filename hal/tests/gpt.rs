//! Where a partition lies, on images with sectors of both sizes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "images have known sizes; the model of the boot loader is used in part"
)]

mod slots_abl_model;

use std::{
    fs::{self, File},
    path::Path,
};

use edge_hal::{
    gpt::{Partition, partition},
    slots::abl::gpt::GptError,
};
use slots_abl_model::{Part, image};
use tempfile::TempDir;

fn part(name: &str, first: u64, last: u64) -> Part {
    Part {
        kind: [3; 16],
        name: name.to_owned(),
        first,
        last,
        attributes: 0,
    }
}

fn find(path: &Path, name: &str) -> Result<Partition, GptError> {
    partition(&File::open(path).unwrap(), name)
}

fn disk(sector: usize, parts: &[Part]) -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, image(sector, 2048, parts)).unwrap();
    (folder, path)
}

#[test]
fn a_partition_is_found_by_its_name_with_sectors_of_both_sizes() {
    for sector in [512, 4096] {
        let parts = [part("boot", 64, 127), part("provisioning", 128, 255)];
        let (_folder, path) = disk(sector, &parts);
        let bytes = sector as u64;
        let expected = Partition {
            span: 128 * bytes..256 * bytes,
            sector_bytes: sector as u32,
        };
        assert_eq!(find(&path, "provisioning").unwrap(), expected);
        // A larger disk, to which the image was written.
        let mut larger = fs::read(&path).unwrap();
        larger.resize(larger.len() + (3 << 20), 0xff);
        fs::write(&path, &larger).unwrap();
        assert_eq!(find(&path, "provisioning").unwrap(), expected);
        larger.truncate(2048 * sector);
        fs::write(&path, larger).unwrap();
        // The backup counts where the primary copy is damaged.
        let mut damaged = fs::read(&path).unwrap();
        damaged[sector..2 * sector].fill(0);
        fs::write(&path, damaged).unwrap();
        assert_eq!(find(&path, "provisioning").unwrap(), expected);
        let error = find(&path, "data").unwrap_err();
        assert!(matches!(error, GptError::NoPartition(_)), "{error}");
    }
}

#[test]
fn what_has_no_table_is_refused() {
    let (_folder, path) = disk(512, &[part("twice", 64, 65), part("twice", 66, 67)]);
    let error = find(&path, "twice").unwrap_err();
    assert!(matches!(error, GptError::DuplicateName(_)), "{error}");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let error = find(&path, "boot").unwrap_err();
    assert!(matches!(error, GptError::BothDamaged { .. }), "{error}");
    for bytes in [0, 1, 511, 5_000] {
        fs::write(&path, vec![0; bytes]).unwrap();
        let error = find(&path, "boot").unwrap_err();
        assert!(matches!(error, GptError::DiskSize(_)), "{error}");
    }
}
