//! The provisioning partition: power that ends at each write, file systems of others, and damage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_wrap,
    reason = "a test fails by panicking, and media are small"
)]

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    process::Command,
};

use edge_protocol::provisioning::area::{AreaError, Content, Files, read, write};
use proptest::prelude::*;

const AREA_BYTES: usize = 16 << 20;

/// A medium that loses power in its n-th operation. Of the sectors that were written and not flushed, a seeded subset
/// is left.
struct Medium {
    disk: Vec<u8>,
    sector: usize,
    position: usize,
    pending: Vec<(usize, Vec<u8>)>,
    left: u64,
    operations: u64,
    random: u64,
}

impl Medium {
    fn new(disk: Vec<u8>, sector: usize, left: u64, seed: u64) -> Self {
        Self {
            disk,
            sector,
            position: 0,
            pending: Vec::new(),
            left,
            operations: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }

    fn spend(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.left > 0 {
            self.left -= 1;
            return Ok(());
        }
        for (at, old) in std::mem::take(&mut self.pending).into_iter().rev() {
            for (index, old) in old.chunks(self.sector).enumerate() {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                if self.random & 1 == 0 {
                    let at = at + index * self.sector;
                    self.disk[at..at + old.len()].copy_from_slice(old);
                }
            }
        }
        Err(io::Error::other("no power"))
    }
}

impl Read for Medium {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.disk.len() - self.position);
        buffer[..count].copy_from_slice(&self.disk[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

impl Write for Medium {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(
            self.position.is_multiple_of(self.sector) && bytes.len().is_multiple_of(self.sector)
        );
        let end = self.position + bytes.len();
        self.pending
            .push((self.position, self.disk[self.position..end].to_vec()));
        self.disk[self.position..end].copy_from_slice(bytes);
        self.position = end;
        self.spend()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.spend()?;
        self.pending.clear();
        Ok(())
    }
}

impl Seek for Medium {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => i64::try_from(position).unwrap(),
            SeekFrom::End(offset) => self.disk.len() as i64 + offset,
            SeekFrom::Current(offset) => self.position as i64 + offset,
        };
        self.position = usize::try_from(position).unwrap();
        Ok(self.position as u64)
    }
}

fn files(word: &str, bytes: usize) -> Files {
    Files {
        provisioning: format!("# {word}\n")
            .repeat(bytes / (word.len() + 3))
            .into_bytes(),
        update_root: Some(format!("{{\"{word}\":1}}").into_bytes()),
    }
}

fn put(disk: &mut Vec<u8>, sector: u32, files: &Files) -> bool {
    write(Cursor::new(disk), sector, files).unwrap()
}

fn content(disk: &[u8], sector: u32) -> Result<Content, AreaError> {
    read(Cursor::new(disk.to_vec()), sector)
}

fn holds(disk: &[u8], sector: u32, files: &Files) {
    let found = content(disk, sector).unwrap();
    assert_eq!(found.provisioning.as_ref(), Some(&files.provisioning));
    assert_eq!(found.update_root, files.update_root);
    assert!(!found.unfinished);
}

/// Debian's fsck.fat on it; `true` when it finds nothing to mend.
fn is_sound(disk: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(disk).unwrap();
    let fsck = Command::new("fsck.fat").arg("-n").arg(file.path()).output();
    let output = fsck.expect("fsck.fat is installed (package dosfstools)");
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() || panic!("{text}")
}

#[test]
fn an_empty_partition_gets_a_file_system_and_another_files_stay() {
    for sector in [512, 4096] {
        let mut disk = vec![0; AREA_BYTES];
        assert!(matches!(content(&disk, sector), Err(AreaError::NoFat)));
        let first = files("first", 900);
        assert!(put(&mut disk, sector, &first));
        holds(&disk, sector, &first);
        assert!(is_sound(&disk));
        let mut second = files("second", 60_000);
        assert!(!put(&mut disk, sector, &second));
        holds(&disk, sector, &second);
        second.update_root = None;
        assert!(!put(&mut disk, sector, &second));
        holds(&disk, sector, &second);
        assert!(is_sound(&disk));
    }
}

#[test]
fn the_same_files_make_the_same_bytes() {
    let make = || {
        let mut disk = vec![0xa5; AREA_BYTES];
        put(&mut disk, 512, &files("first", 900));
        disk
    };
    assert!(make() == make());
}

#[test]
fn a_file_system_of_debian_is_written_and_what_else_lies_there_stays() {
    for kind in ["12", "16", "32"] {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("area.img");
        std::fs::write(
            &image,
            vec![0; if kind == "32" { 64 << 20 } else { AREA_BYTES }],
        )
        .unwrap();
        let made = Command::new("mkfs.fat")
            .args(["-F", kind, "-n", "EDGE"])
            .arg(&image)
            .output();
        assert!(
            made.expect("mkfs.fat is installed (package dosfstools)")
                .status
                .success()
        );
        let mut disk = std::fs::read(&image).unwrap();
        {
            let fs =
                fatfs::FileSystem::new(Cursor::new(&mut disk), fatfs::FsOptions::new()).unwrap();
            let top = fs.root_dir();
            top.create_file("README.TXT")
                .unwrap()
                .write_all(b"hello")
                .unwrap();
            top.create_file("PROVISIONING.TOML")
                .unwrap()
                .write_all(b"by hand")
                .unwrap();
        }
        let new = files("new", 3_000);
        assert!(!put(&mut disk, 512, &new));
        holds(&disk, 512, &new);
        assert!(is_sound(&disk));
        let fs = fatfs::FileSystem::new(Cursor::new(&mut disk), fatfs::FsOptions::new()).unwrap();
        let mut text = String::new();
        fs.root_dir()
            .open_file("readme.txt")
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello");
    }
}

#[test]
fn a_power_cut_leaves_the_old_files_the_new_ones_or_none() {
    for sector in [512, 4096] {
        let (old, new) = (files("old", 2_500), files("new", 5_000));
        let mut before = vec![0; AREA_BYTES];
        put(&mut before, sector, &old);
        let mut whole = Medium::new(before.clone(), sector as usize, u64::MAX, 0);
        write(&mut whole, sector, &new).unwrap();
        let (mut olds, mut news) = (0, 0);
        for cut in 0..whole.operations {
            for seed in 1..=3 {
                let mut medium = Medium::new(before.clone(), sector as usize, cut, seed);
                write(&mut medium, sector, &new).unwrap_err();
                let found = content(&medium.disk, sector).unwrap();
                // Both names are in one sector here, so both files change at once and are never away.
                let pair = Files {
                    provisioning: found.provisioning.unwrap(),
                    update_root: found.update_root,
                };
                olds += u32::from(pair == old);
                news += u32::from(pair == new);
                assert!(pair == old || pair == new, "cut {cut}, seed {seed}");
                // Another cut while that is tidied up, and at last a whole run.
                let mut again = Medium::new(medium.disk, sector as usize, cut / 2, seed);
                let _cut = write(&mut again, sector, &new);
                let mut disk = again.disk;
                put(&mut disk, sector, &new);
                holds(&disk, sector, &new);
            }
        }
        assert!(olds > 0 && news > 0, "{olds} {news}");
    }
}

#[test]
fn a_power_cut_in_a_full_folder_or_while_formatting_leaves_no_mixture() {
    let (old, new) = (files("old", 2_500), files("new", 5_000));
    let mut crowded = vec![0; AREA_BYTES];
    put(
        &mut crowded,
        512,
        &Files {
            provisioning: Vec::new(),
            update_root: None,
        },
    );
    {
        let fs =
            fatfs::FileSystem::new(Cursor::new(&mut crowded), fatfs::FsOptions::new()).unwrap();
        for number in 0..11 {
            fs.root_dir().create_file(&format!("{number}.txt")).unwrap();
        }
    }
    put(&mut crowded, 512, &old);
    for (before, may_be_old) in [(crowded, true), (vec![0xe5; AREA_BYTES], false)] {
        let mut whole = Medium::new(before.clone(), 512, u64::MAX, 0);
        write(&mut whole, 512, &new).unwrap();
        for cut in 0..whole.operations {
            let mut medium = Medium::new(before.clone(), 512, cut, cut + 1);
            write(&mut medium, 512, &new).unwrap_err();
            match content(&medium.disk, 512) {
                Ok(found) => {
                    let is =
                        |files: &Files| found.provisioning.as_ref() == Some(&files.provisioning);
                    let fits =
                        is(&new) || (may_be_old && (is(&old) || found.provisioning.is_none()));
                    assert!(fits, "cut {cut}");
                }
                Err(AreaError::NoFat) => assert!(!may_be_old),
                Err(error) => panic!("cut {cut}: {error}"),
            }
            // Another cut while that is tidied up: still no mixture.
            let mut again = Medium::new(medium.disk, 512, cut / 3, cut + 7);
            let _cut = write(&mut again, 512, &new);
            if let Ok(found) = content(&again.disk, 512)
                && let Some(bytes) = found.provisioning
            {
                assert!(
                    bytes == new.provisioning || (may_be_old && bytes == old.provisioning),
                    "cut {cut}"
                );
            }
            let mut disk = again.disk;
            put(&mut disk, 512, &new);
            holds(&disk, 512, &new);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_the_old_files_stay() {
    let mut disk = vec![0; 64 << 10];
    let old = files("old", 1_000);
    put(&mut disk, 512, &old);
    let error = write(Cursor::new(&mut disk), 512, &files("new", 60_000)).unwrap_err();
    assert!(
        matches!(
            error,
            AreaError::Io {
                operation: "write",
                ..
            }
        ),
        "{error}"
    );
    holds(&disk, 512, &old);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_damaged_file_system_is_read_or_refused(
        damage in prop::collection::vec((0_usize..40_000, any::<u8>()), 1..12),
        head in prop::collection::vec((11_usize..64, any::<u8>()), 0..4),
    ) {
        let mut disk = vec![0; 2 << 20];
        put(&mut disk, 512, &files("old", 2_500));
        for (at, byte) in damage.into_iter().chain(head) {
            disk[at] = byte;
        }
        let _any = content(&disk, 512);
        let _any = write(Cursor::new(&mut disk), 512, &files("new", 700));
    }
}
