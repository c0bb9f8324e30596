//! The commands of `docs/flashing.md`, run as they stand there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    in_another_terminal: bool,
    commands: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(after) = line.strip_prefix("```sh") else {
            continue;
        };
        let commands: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(Block {
            in_another_terminal: after == " in another terminal",
            commands: commands.join("\n"),
        });
    }
    blocks
}

/// Ends with the test.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[test]
fn every_command_of_the_page_does_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flashing.md");
    let page = fs::read_to_string(page).unwrap();
    // Somebody else may have the port of the page.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let page = page.replace("5554", &port.to_string());
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_edgectl")).parent().unwrap();
    let path = env::join_paths(
        [programs]
            .into_iter()
            .map(Path::to_owned)
            .chain(env::split_paths(&env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap();
    let mut terminals = Vec::new();
    let blocks = blocks(&page);
    assert!(blocks.len() >= 7, "{blocks:?}");
    for block in blocks {
        let script = if block.in_another_terminal {
            format!("exec {}", block.commands)
        } else {
            block.commands.clone()
        };
        let mut shell = Command::new("bash");
        shell
            .args(["-eu", "-o", "pipefail", "-c", &script])
            .current_dir(&folder)
            .env("PATH", &path)
            .stdin(Stdio::null());
        if block.in_another_terminal {
            let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
            let stdout = child.stdout.take().unwrap();
            terminals.push(Terminal(child));
            let mut ready = String::new();
            BufReader::new(stdout).read_line(&mut ready).unwrap();
            assert!(!ready.is_empty(), "{script} ends");
        } else {
            let output = shell.output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{script}\n{words}");
        }
    }
}
