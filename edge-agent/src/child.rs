//! Questions to a process of their own: what crashes or hangs there (drivers, libraries that are not what they should
//! be) costs an answer.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

/// How often a child is asked whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Most bytes of a child's output that are kept.
const OUTPUT_MAX_BYTES: u64 = 1 << 20;
/// Most characters of a child's last words.
const WORDS_MAX_CHARS: usize = 300;

/// Why a child gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("cannot start a process for it: {0}")]
    Start(#[source] io::Error),
    #[error("does not answer in {} s", .0.as_secs_f32())]
    Hangs(Duration),
    #[error("crashes ({signal}){words}")]
    Crashes { signal: String, words: String },
    #[error("ends with status {code}{words}")]
    Fails { code: i32, words: String },
    #[error("answers with something else than expected: {0}")]
    Answer(#[source] serde_json::Error),
}

/// Runs this program with `arguments`; its answer is the JSON on its standard output. It is killed after `limit`.
pub(crate) fn ask<T: DeserializeOwned>(
    arguments: impl IntoIterator<Item = OsString>,
    limit: Duration,
) -> Result<T, ChildError> {
    let program = std::env::current_exe().map_err(ChildError::Start)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ChildError::Start)?;
    let answer = child.stdout.take().map(collect);
    let words = child.stderr.take().map(collect);
    let status = wait(&mut child, limit)?;
    // A grandchild could hold the pipes open; there is none.
    let read = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default()
    };
    let (answer, words) = (read(answer), last_words(&read(words)));
    match (status.code(), status.signal()) {
        (Some(0), _) => serde_json::from_slice(&answer).map_err(ChildError::Answer),
        (_, Some(signal)) => Err(ChildError::Crashes {
            signal: Signal::try_from(signal)
                .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string()),
            words,
        }),
        (code, None) => Err(ChildError::Fails {
            code: code.unwrap_or(-1),
            words,
        }),
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, ChildError> {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if started.elapsed() < limit => thread::sleep(LOOK_AGAIN),
            Ok(None) => {
                // One that cannot even be killed is left to the kernel.
                let _killed = child.kill();
                return Err(ChildError::Hangs(limit));
            }
            Err(error) => return Err(ChildError::Start(error)),
        }
    }
}

/// Reads all there is, and keeps the first part: a child that talks too much must not stand still.
fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        let read = pipe.by_ref().take(OUTPUT_MAX_BYTES).read_to_end(&mut kept);
        // A pipe that breaks ends as one that ends.
        if read.is_ok() {
            let _rest = io::copy(&mut pipe, &mut io::sink());
        }
        kept
    })
}

/// The last line with words in it, behind a colon.
fn last_words(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(String::new, |line| {
        let words: String = line.trim().chars().take(WORDS_MAX_CHARS).collect();
        format!(": {words}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_short_and_not_empty() {
        assert_eq!(last_words(b""), "");
        assert_eq!(last_words(b"first\n last one \n\n"), ": last one");
        assert_eq!(last_words(&[b'x'; 5_000]).chars().count(), 302);
        assert_eq!(last_words(b"\xff\n"), ": \u{fffd}");
    }
}
