//! Versions of models that have killed the agent: they are not loaded again by themselves.
//!
//! A signal that kills the agent while a thread loads or runs a version leaves a note (`edge_hal::crash_note`). At the
//! next start that version is put on a list in the data folder, until an admin asks for it or its graph is another one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use edge_hal::crash_note::Note;
use edge_protocol::Id;
use tracing::{error, info, warn};

use super::{ModelEntry, repository::Mark};
use crate::durable;

/// File of the list in the data folder.
const LIST: &str = "quarantine";
/// File of the note in it.
const NOTE: &str = "crash-note";
/// Versions on the list; the rest of a longer list is passed over.
const VERSIONS_MAX: usize = 256;
/// The signal of `abort`, which the agent calls itself when it cannot end otherwise.
const ABORT: i32 = 6;

/// Versions that are not loaded, by graph and with the signal.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// None for nowhere.
    list: Option<PathBuf>,
    versions: BTreeMap<(Id, u64), (String, i32)>,
}

/// What a thread that loads or runs a version leaves in the note.
pub(super) fn activity(entry: &ModelEntry) -> String {
    format!("{} {} {}", entry.name, entry.version, entry.mark)
}

impl Quarantine {
    /// Reads the list and the note in the data folder, and leaves a note there when the agent is killed.
    #[must_use]
    pub fn open(data: &Path) -> Self {
        let list = data.join(LIST);
        let versions = match std::fs::read_to_string(&list) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                warn!(%error, "cannot read which models have killed the agent");
                BTreeMap::new()
            }
        };
        let mut this = Self {
            list: Some(list),
            versions,
        };
        match Note::take(&data.join(NOTE)) {
            Ok(Some(note)) => this.add(&note),
            Ok(None) => {}
            Err(error) => warn!(%error, "a model that kills the agent will not be known"),
        }
        this
    }

    /// Puts those on the list that a note names.
    fn add(&mut self, note: &Note) {
        let culprits = culprits(note);
        for (name, version, mark) in &culprits {
            error!(model = %name, version, signal = note.signal, "this model has killed the agent: it is in quarantine");
            let found = (mark.clone(), note.signal);
            self.versions.insert((name.clone(), *version), found);
        }
        if !culprits.is_empty() {
            self.save();
        }
    }

    /// Why a version must not be loaded.
    pub(super) fn why_not(&self, entry: &ModelEntry) -> Option<String> {
        let (mark, signal) = self.versions.get(&(entry.name.clone(), entry.version))?;
        (*mark == entry.mark.to_string()).then(|| {
            format!("it is in quarantine, since it has killed the agent (signal {signal}); ask for it with load")
        })
    }

    /// An admin asks for a model: its versions come off the list.
    pub(super) fn release(&mut self, name: &Id) {
        let before = self.versions.len();
        self.versions.retain(|(model, _), _| model != name);
        if self.versions.len() < before {
            info!(model = %name, "the model comes out of quarantine");
            self.save();
        }
    }

    /// Writes the list, all of it or nothing.
    fn save(&self) {
        let Some(list) = &self.list else { return };
        let mut text = String::new();
        for ((name, version), (mark, signal)) in &self.versions {
            // Writing to a text cannot fail.
            writeln!(text, "{name} {version} {mark} {signal}").ok();
        }
        if let Err(error) = durable::replace(list, text.as_bytes()) {
            warn!(%error, "cannot keep which models have killed the agent");
        }
    }
}

/// Who has killed the agent: what the thread was at that the signal came to. Where it was at nothing, as a thread of the
/// runtime's own is, any of the others may be; not so at `abort`, which has other reasons.
fn culprits(note: &Note) -> Vec<(Id, u64, String)> {
    let suspects = if note.here.is_empty() && note.signal != ABORT {
        &note.elsewhere
    } else {
        &note.here
    };
    suspects
        .iter()
        .filter_map(|line| version(line))
        .map(|(name, version, mark, _)| (name, version, mark))
        .collect()
}

/// A version as [`activity`] writes it, and what follows.
fn version(line: &str) -> Option<(Id, u64, String, &str)> {
    let mut words = line.splitn(4, ' ');
    let name = Id::new(words.next()?).ok()?;
    let version = words.next()?.parse().ok()?;
    let mark = words.next()?.to_owned();
    Some((name, version, mark, words.next().unwrap_or_default()))
}

fn parse(text: &str) -> BTreeMap<(Id, u64), (String, i32)> {
    let entry = |line| {
        let (name, version, mark, signal) = version(line)?;
        Some(((name, version), (mark, signal.parse().ok()?)))
    };
    text.lines().filter_map(entry).take(VERSIONS_MAX).collect()
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let since_1970 = self
            .modified
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let modified_ms = since_1970.map_or(0, |time| time.as_millis());
        write!(f, "{:x}-{:x}-{:x}", self.inode, self.bytes, modified_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inference::repository::scan;

    fn note(signal: i32, here: &[&str], elsewhere: &[&str]) -> Note {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Note {
            signal,
            here: lines(here),
            elsewhere: lines(elsewhere),
        }
    }

    #[test]
    fn the_thread_that_got_the_signal_says_who_it_was() {
        let names = |note: &Note| -> Vec<String> {
            culprits(note)
                .iter()
                .map(|(name, version, _)| format!("{name}/{version}"))
                .collect()
        };
        assert_eq!(
            names(&note(8, &["divide 1 a-b-c"], &["digits 2 d-e-f"])),
            ["divide/1"]
        );
        // A thread of the runtime's own: all that ran are suspects.
        assert_eq!(
            names(&note(11, &[], &["divide 1 a", "digits 2 b"])),
            ["divide/1", "digits/2"]
        );
        assert_eq!(
            names(&note(ABORT, &[], &["digits 2 b"])),
            [""; 0],
            "the agent gave up by itself"
        );
        assert_eq!(names(&note(ABORT, &["divide 1 a"], &[])), ["divide/1"]);
        assert_eq!(
            names(&note(11, &["", "x", "Not A Name 1 a", "digits x a"], &[])),
            [""; 0]
        );
    }

    #[test]
    fn a_version_stays_on_the_list_until_it_is_asked_for_or_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path().join("models");
        std::fs::create_dir_all(models.join("divide/1")).unwrap();
        std::fs::write(models.join("divide/1/model.onnx"), "bad").unwrap();
        let entry = || {
            let (_, folder) = scan(&models).unwrap().remove(0);
            folder.unwrap().newest().unwrap()
        };
        let list = dir.path().join(LIST);
        let open = || Quarantine {
            list: Some(list.clone()),
            versions: parse(&std::fs::read_to_string(&list).unwrap_or_default()),
        };
        open().add(&note(8, &[&activity(&entry())], &[]));
        let why = open().why_not(&entry()).unwrap();
        assert!(why.contains("signal 8"), "{why}");

        std::fs::write(models.join("divide/1/model.onnx"), "mended").unwrap();
        assert_eq!(open().why_not(&entry()), None, "the graph is another one");

        open().add(&note(8, &[&activity(&entry())], &[]));
        assert!(open().why_not(&entry()).is_some());
        open().release(&Id::new("divide").unwrap());
        assert_eq!(open().why_not(&entry()), None, "an admin has asked for it");
    }

    proptest! {
        #[test]
        fn any_list_is_read(text in "\\PC{0,200}") {
            parse(&text);
        }
    }
}
