//! `edgectl flash` with what a board is flashed with: bundles and single images, right and wrong ones.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod flash_support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use flash_support::{
    MIB, file, noise,
    sim_board::{Sim, run},
};
use serde_json::Value;

/// `edgectl flash --image IMAGE --to TO` with `more`: its code, its JSON, and what it said.
fn flash(image: impl AsRef<Path>, to: &str, more: &[&str]) -> (i32, Value, String) {
    let image = image.as_ref().to_str().unwrap();
    let arguments = ["flash", "--image", image, "--to", to];
    let output = run(
        env!("CARGO_BIN_EXE_edgectl"),
        &[&arguments[..], more].concat(),
    );
    let words = String::from_utf8(output.stderr).unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), json, words)
}

/// A bundle with `boot_a` and `root_a`; says where.
fn bundle(folder: &Path) -> PathBuf {
    let bundle = folder.join("bundle");
    fs::create_dir(&bundle).unwrap();
    let mut manifest = "format = 1\nboard = \"qrb5165-rb5\"\nactive_slot = \"a\"\n".to_owned();
    for (name, bytes) in [("boot_a", noise(MIB, 1)), ("root_a", noise(3 * MIB, 2))] {
        let path = file(&bundle, &format!("{name}.bin"), &bytes);
        let sum = run("sha256sum", &[path.to_str().unwrap()]).stdout;
        let sum = String::from_utf8(sum).unwrap();
        let sum = sum.split(' ').next().unwrap();
        manifest.push_str(&format!(
            "[[partition]]\nname = \"{name}\"\nfile = \"{name}.bin\"\nsha256 = \"{sum}\"\n"
        ));
    }
    file(&bundle, "flash.toml", manifest.as_bytes());
    bundle
}

#[test]
fn a_bundle_is_flashed_from_a_folder_and_from_a_tar() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let tar = folder.path().join("bundle.tar.zst");
    let packed = run(
        "tar",
        &[
            "--zstd",
            "-cf",
            tar.to_str().unwrap(),
            "-C",
            bundle.to_str().unwrap(),
            ".",
        ],
    );
    assert!(packed.status.success());
    for image in [bundle, tar] {
        let sim = Sim::start(&[]);
        let to = format!("fastboot:{}", sim.target());
        let (code, plan, _) = flash(&image, &to, &["--dry-run", "--json"]);
        assert_eq!(code, 0);
        assert_eq!(plan["outcome"], "planned");
        assert_eq!(plan["partitions"][1]["name"], "root_a");
        assert!(sim.sim.commands().is_empty());
        let (code, report, words) = flash(&image, &to, &["--yes", "--json"]);
        assert_eq!(code, 0, "{words}");
        assert_eq!(report["outcome"], "done");
        assert_eq!(report["acknowledged"]["partitions"][1]["pieces"], 2);
        assert!(words.contains("(board) writing boot_a"), "{words}");
        assert!(sim.content("boot_a")[..MIB] == noise(MIB, 1));
        assert!(sim.content("root_a")[..3 * MIB] == noise(3 * MIB, 2));
        assert!(sim.sim.commands().contains(&"set_active:a".to_owned()));
    }
}

#[test]
fn a_single_image_needs_its_partition() {
    let folder = tempfile::tempdir().unwrap();
    let image = file(folder.path(), "boot.img", &noise(MIB, 1));
    let packed = run("xz", &["-k", "-0", image.to_str().unwrap()]);
    assert!(packed.status.success());
    let packed = folder.path().join("boot.img.xz");
    let sim = Sim::start(&[]);
    let to = format!("fastboot:{}", sim.target());
    for image in [image, packed] {
        let (code, _, words) = flash(&image, &to, &["--yes"]);
        assert_eq!(code, 2);
        assert!(words.contains("--partition NAME"), "{words}");
        let (code, _, words) = flash(&image, &to, &["--yes", "--partition", "boot_a"]);
        assert_eq!(code, 0, "{words}");
        assert!(sim.content("boot_a")[..MIB] == noise(MIB, 1));
    }
}

#[test]
fn bundles_that_are_not_right_are_refused_before_a_board_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let manifest = fs::read_to_string(bundle.join("flash.toml")).unwrap();
    let cases = [
        (
            manifest.replace("format = 1", "format = 2"),
            "format 2 is not known",
        ),
        (manifest.replace("qrb5165-rb5", "rb6"), "rb6"),
        (
            manifest.replace("name = \"root_a\"", "name = \"xbl_a\""),
            "board qrb5165-rb5 has no such; it has root_a, root_b",
        ),
        (
            manifest.replace("name = \"root_a\"", "name = \"boot_a\""),
            "is there twice",
        ),
        (
            manifest.replace("root_a.bin", "../root_a.bin"),
            "is no plain file name",
        ),
        (manifest.replace("root_a.bin", "absent.bin"), "cannot open"),
        (
            manifest.replace("root_a.bin", "boot_a.bin"),
            "is not what its checksum says",
        ),
        (
            manifest.replace("active_slot = \"a\"", "active_slot = \"c\""),
            "it can be `a` or `b`",
        ),
        (
            manifest.replace("sha256 = \"", "sha256 = \"x"),
            "64 hexadecimal digits",
        ),
        (
            "format = 1\nboard = \"qrb5165-rb5\"\npartition = []\n".to_owned(),
            "it has 0 partitions",
        ),
    ];
    let to = "fastboot:tcp:127.0.0.1:1";
    for (manifest, expected) in cases {
        fs::write(bundle.join("flash.toml"), manifest).unwrap();
        let (code, _, words) = flash(&bundle, to, &["--yes"]);
        assert_eq!(code, 2, "{words}");
        assert!(words.contains(expected), "{words}");
    }
    fs::remove_file(bundle.join("flash.toml")).unwrap();
    let (code, _, words) = flash(&bundle, to, &["--yes"]);
    assert_eq!(code, 2);
    assert!(words.contains("it has no flash.toml"), "{words}");
}

#[test]
fn a_tar_cannot_write_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let outside = file(folder.path(), "outside", b"x");
    fs::create_dir(folder.path().join("inner")).unwrap();
    let tar = folder.path().join("a.tar");
    let inner = folder.path().join("inner");
    let tar_path = tar.to_str().unwrap();
    for entry in ["../outside", outside.to_str().unwrap()] {
        let packed = run(
            "tar",
            &["-P", "-cf", tar_path, "-C", inner.to_str().unwrap(), entry],
        );
        assert!(packed.status.success());
        let (code, _, words) = flash(tar_path, "fastboot:tcp:127.0.0.1:1", &["--yes"]);
        assert_eq!(code, 2);
        assert!(words.contains("which no bundle has"), "{words}");
    }
}

#[test]
fn boards_that_are_not_there_are_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let image = bundle;
    for to in [
        "fastboot:tcp:127.0.0.1:1",
        "fastboot",
        "fastboot:no-such-serial",
    ] {
        let (code, report, words) = flash(&image, to, &["--yes", "--json"]);
        assert_eq!(code, 3, "{words}");
        assert_eq!(report["outcome"], "failed");
    }
}

#[test]
fn image_and_target_must_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let disk = folder.path().join("disk");
    let (code, _, words) = flash(&bundle, disk.to_str().unwrap(), &[]);
    assert_eq!(code, 2);
    assert!(words.contains("goes to a board"), "{words}");
    let to = "fastboot:tcp:127.0.0.1:1";
    let (code, _, words) = flash(&bundle, to, &["--partition", "x"]);
    assert_eq!(code, 2);
    assert!(words.contains("leave --partition out"), "{words}");
}
