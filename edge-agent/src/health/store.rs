//! The data folder: written to now and then to see that it can be, and home of the ladder's history.
//!
//! All of it happens on one thread of its own, since a card that dies does not return errors: it does not return.
//! A probe writes 64 bytes, with folder and file forced to the card, and reads them back: two blocks of 4 KiB and the
//! file system's journal, every 15 minutes. That is some 2 MB of wear a day, of cards that bear terabytes.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{ladder::History, progress::Part, vitals::Pulse, vitals::Vitals};
use crate::durable;

/// Time between two probes.
const PROBE_EVERY: Duration = Duration::from_secs(900);

const PROBE_FILE: &str = "health-probe";
const HISTORY_FILE: &str = "health-history";
/// More than any history, and little enough to read whatever is there.
const HISTORY_MAX_BYTES: u64 = 4096;

/// The history as it is kept: with the boot in which it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// The history.
    pub history: History,
}

enum Task {
    Keep(Kept, Sender<bool>),
}

/// The data folder's thread. Dropped, it lets the thread end.
pub struct Store {
    tasks: Sender<Task>,
    fault: Arc<Mutex<Option<String>>>,
}

impl Store {
    /// Starts the thread for `folder`, which probes at once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(folder: PathBuf, vitals: &Vitals) -> io::Result<Self> {
        // One at a time: whoever keeps something waits for it.
        let (tasks, queue) = bounded(1);
        let fault: Arc<Mutex<Option<String>>> = Arc::default();
        let (pulse, shown) = (vitals.watch(Part::Store), fault.clone());
        thread::Builder::new()
            .name("store".into())
            .spawn(move || work(&folder, &queue, &pulse, &shown))?;
        Ok(Self { tasks, fault })
    }

    /// Why the last probe failed, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }

    /// Keeps a history, waiting for it at most this long. `false` when it is not known to be on the card.
    #[must_use]
    pub fn keep(&self, kept: Kept, wait: Duration) -> bool {
        let (sender, kept_or_not) = bounded(1);
        let deadline = Instant::now() + wait;
        let asked = self.tasks.send_deadline(Task::Keep(kept, sender), deadline);
        asked.is_ok() && kept_or_not.recv_deadline(deadline).unwrap_or(false)
    }
}

fn work(folder: &Path, tasks: &Receiver<Task>, pulse: &Pulse, fault: &Mutex<Option<String>>) {
    let mut round: u64 = 0;
    let mut next = Instant::now();
    loop {
        match tasks.recv_deadline(next) {
            Ok(Task::Keep(kept, reply)) => {
                pulse.beat();
                let written = keep(folder, &kept);
                pulse.rest();
                if let Err(error) = &written {
                    warn!(folder = %folder.display(), %error, "cannot keep what was done about stuck parts");
                }
                // Whoever asked may have gone on without waiting.
                let _told = reply.send(written.is_ok());
            }
            Err(RecvTimeoutError::Timeout) => {
                round += 1;
                pulse.beat();
                let probed = probe(folder, round).err().map(|error| error.to_string());
                pulse.rest();
                let mut fault = fault.lock();
                match (&*fault, &probed) {
                    (None, Some(error)) => warn!(
                        folder = %folder.display(), error,
                        "the data folder takes no writes; the box goes on without: free some space or replace its storage"
                    ),
                    (Some(_), None) => info!("the data folder takes writes again"),
                    _ => {}
                }
                *fault = probed;
                next = Instant::now() + PROBE_EVERY;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Writes something new and reads it back.
fn probe(folder: &Path, round: u64) -> io::Result<()> {
    let text = format!("{round:063}\n");
    let path = folder.join(PROBE_FILE);
    durable::replace(&path, text.as_bytes())?;
    if fs::read(&path)? == text.as_bytes() {
        Ok(())
    } else {
        let what = format!("{} does not hold what was written", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

fn keep(folder: &Path, kept: &Kept) -> io::Result<()> {
    let text = serde_json::to_vec(kept)?;
    durable::replace(&folder.join(HISTORY_FILE), &text)
}

/// The history that the folder holds; none when there is none that can be read.
#[must_use]
pub fn read(folder: &Path) -> Option<Kept> {
    let file = File::open(folder.join(HISTORY_FILE)).ok()?;
    let mut text = Vec::new();
    file.take(HISTORY_MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < PATIENCE, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_history_survives_and_nonsense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::start(folder.path().to_owned(), &Vitals::default()).unwrap();
        let kept = Kept {
            boot: "b".into(),
            history: History {
                agent_ends: 2,
                resets: 1,
                is_reset_wanted: true,
            },
        };
        assert_eq!(read(folder.path()), None);
        assert!(store.keep(kept.clone(), PATIENCE));
        assert_eq!(read(folder.path()), Some(kept));
        for nonsense in ["", "{", r#"{"boot":1}"#, &"x".repeat(10_000)] {
            fs::write(folder.path().join(HISTORY_FILE), nonsense).unwrap();
            assert_eq!(read(folder.path()), None);
        }
    }

    #[test]
    fn a_folder_that_takes_no_writes_is_a_fault_and_not_stuck() {
        let folder = tempfile::tempdir().unwrap();
        // A file cannot replace a folder: stands for a full or read-only file system, whatever user runs the test.
        fs::create_dir_all(folder.path().join(PROBE_FILE).join("in-the-way")).unwrap();
        fs::create_dir_all(folder.path().join(HISTORY_FILE).join("in-the-way")).unwrap();
        let vitals = Vitals::default();
        let store = Store::start(folder.path().to_owned(), &vitals).unwrap();
        wait_until("the fault shows", || store.fault().is_some());
        assert!(!store.keep(Kept::default(), PATIENCE));
        wait_until("it rests", || !vitals.marks()[0].1.is_busy());
    }

    #[test]
    fn a_write_that_does_not_return_stays_busy() {
        let folder = tempfile::tempdir().unwrap();
        // Opening a pipe that nobody reads waits for ever, as a write to a dead card does.
        let pipe = folder.path().join(format!("{PROBE_FILE}.new"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let vitals = Vitals::default();
        let store = Store::start(folder.path().to_owned(), &vitals).unwrap();
        wait_until("it is busy", || vitals.marks()[0].1.is_busy());
        assert!(!store.keep(Kept::default(), Duration::from_millis(50)));
        assert!(vitals.marks()[0].1.is_busy());
        // Lets the thread go on.
        fs::read(&pipe).ok();
        wait_until("it rests", || !vitals.marks()[0].1.is_busy());
    }
}
