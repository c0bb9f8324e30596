//! Gives the linker the board's memory map, and the firmware its first images.

use std::{env, fs, path::PathBuf};

const IMAGES: &str = "../../../cross/models/digits-heldout.csv";
/// As many as fit beside the program.
const COUNT: usize = 10;

fn main() {
    let folder = |name| PathBuf::from(env::var_os(name).expect("Cargo sets it"));
    println!("cargo:rustc-link-search={}", folder("CARGO_MANIFEST_DIR").display());
    println!("cargo:rustc-link-arg=-Tlink.x");
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed={IMAGES}");
    let images = fs::read_to_string(IMAGES).expect("the model's held-out images");
    let first: String = images
        .lines()
        .skip(1)
        .take(COUNT)
        .flat_map(|line| [line, "\n"])
        .collect();
    fs::write(folder("OUT_DIR").join("images.csv"), first).expect("a file in OUT_DIR");
}
