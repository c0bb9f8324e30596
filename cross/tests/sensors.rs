//! Sensors of other makes at a real box: a microcontroller's firmware, and what `docs/sensors.md` shows.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use cross::cache::Cache;
use cross::processes::{self, Process};
use cross::setup::asyncapi;
use cross::{firmware, suites};
use support::{OneBox, PATIENCE, programs};

/// Room that the example's linker script gives a firmware.
const FLASH_MAX_BYTES: u64 = 128 << 10;
const RAM_MAX_BYTES: u64 = 16 << 10;

/// Runs a program to its end, and returns what it wrote.
fn output(name: &str, program: &Path, arguments: &[String], folder: &Path) -> String {
    let mut process = Process::start(name, program, arguments, folder).expect("it starts");
    let status = process.wait(PATIENCE * 3).expect("it ends");
    let read = |end: &str| fs::read_to_string(folder.join(format!("{name}.{end}")));
    let (out, log) = (read("out").expect("output"), read("log").expect("a log"));
    assert!(status.success(), "{name}: {status}\n{out}{log}");
    out + &log
}

/// A Cortex-M4 whose serial line ends at the broker asks for ten digits, each in two encodings.
#[test]
fn a_microcontroller_is_answered() {
    let lab = OneBox::start();
    let target_folder = suites::workspace_target_folder().expect("a folder");
    let path = firmware::path(&target_folder);
    let size = firmware::size(&path).expect("a firmware");
    assert!(size.flash <= FLASH_MAX_BYTES && size.ram <= RAM_MAX_BYTES);
    let (program, arguments) = firmware::emulator(&path, lab.port);
    let folder = tempfile::tempdir().expect("a folder");
    let said = output("firmware", &program, &arguments, folder.path());
    assert!(said.contains("20 of 20 right"), "{said}");
    let stack = said
        .lines()
        .find_map(|line| line.strip_suffix(" bytes of stack"));
    let stack: u64 = stack.and_then(|bytes| bytes.parse().ok()).expect("bytes");
    assert!(size.ram + stack <= RAM_MAX_BYTES, "{stack}");
    println!(
        "{} bytes of flash, {} of RAM, {stack} of stack",
        size.flash, size.ram
    );
    lab.agent.stop().expect("the agent ends with 0");
}

/// Without a box, the firmware gives its request up and says so.
#[test]
fn a_microcontroller_gives_up_when_nobody_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let [port] = processes::free_ports().expect("a port");
    let _broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
    let target_folder = suites::workspace_target_folder().expect("a folder");
    let (program, arguments) = firmware::emulator(&firmware::path(&target_folder), port);
    let mut process =
        Process::start("firmware", &program, arguments, folder.path()).expect("it starts");
    let status = process.wait(PATIENCE * 3).expect("it ends");
    assert!(!status.success());
    assert!(
        process.log().contains("nobody answered"),
        "{}",
        process.log()
    );
}

/// The page's snippets, in order: language and text.
fn snippets() -> Vec<(String, String)> {
    let page = fs::read_to_string(cross::repository().join("docs/sensors.md")).expect("the page");
    let mut snippets = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```").filter(|it| !it.is_empty()) {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            snippets.push((language.to_owned(), text.join("\n") + "\n"));
        }
    }
    snippets
}

fn snippet(language: &str, part: &str) -> String {
    let mut found = snippets().into_iter();
    let found = found.find(|(its, text)| its == language && text.contains(part));
    found.expect("the page shows it").1
}

/// Python 3 with paho-mqtt, as set-up left it.
fn python() -> PathBuf {
    Cache::from_env().expect("a cache folder").python()
}

#[test]
fn the_page_in_python_works() {
    let lab = OneBox::start();
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["MQTTv5", "MQTTv311"] {
        let script = snippet("python", part).replace("1883", &lab.port.to_string());
        let file = folder.path().join("sensor.py");
        fs::write(&file, script).expect("a script");
        let images = cross::heldout_images().display().to_string();
        let arguments = [file.display().to_string(), images];
        let said = output("python", &python(), &arguments, folder.path());
        assert!(said.contains("the box sees a 1"), "{part}: {said}");
    }
}

#[test]
fn the_page_in_a_shell_works() {
    let lab = OneBox::start();
    let folder = tempfile::tempdir().expect("a folder");
    let script = snippet("sh", "mosquitto_rr").replace("1883", &lab.port.to_string());
    let checkout = cross::repository().display();
    let arguments = ["-euc".to_owned(), format!("cd '{checkout}'\n{script}")];
    let said = output("shell", Path::new("/bin/sh"), &arguments, folder.path());
    assert!(said.contains(r#""outputs":["#), "{said}");
}

#[test]
fn the_page_in_rust_works() {
    let page = snippet("rust", "async fn ask");
    let example = cross::repository().join("protocol/examples/sensor.rs");
    let example = fs::read_to_string(example).expect("the example");
    assert!(
        example.contains(page.trim()),
        "docs/sensors.md shows another program than the example is"
    );

    let lab = OneBox::start();
    let folder = tempfile::tempdir().expect("a folder");
    let broker = format!("127.0.0.1:{}", lab.port);
    let images = cross::heldout_images().display().to_string();
    let arguments = [
        broker,
        "lab".into(),
        "digits".into(),
        "probe-8".into(),
        images,
    ];
    let program = programs().join("examples/sensor");
    let said = output("rust", &program, &arguments, folder.path());
    let right = said.split_once(" of 360 right").expect("a count").0;
    let right: u32 = right.trim().parse().expect("a number");
    assert!(right >= 342, "{said}");
}

/// AsyncAPI's own parser takes the contract's page. (`protocol/tests/contract.rs` compares the page with the code.)
#[test]
fn the_contract_is_valid_asyncapi() {
    let cache = Cache::from_env().expect("a cache folder");
    let document = cross::repository().join("docs/asyncapi.yaml");
    let said = asyncapi::read(&cache, &document).output().expect("node");
    let complaints = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{complaints}");
    let read = String::from_utf8_lossy(&said.stdout);
    assert!(read.contains(r#""version":"3.0.0""#), "{read}");

    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken.yaml");
    let page = fs::read_to_string(&document).expect("the page");
    fs::write(&broken, page.replace("action: receive", "action: eat")).expect("a file");
    let said = asyncapi::read(&cache, &broken).output().expect("node");
    assert!(!said.status.success(), "what is wrong is refused");
}
