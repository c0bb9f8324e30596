//! Watches the model repository: says that something in it has changed, and what was renamed into place.
//!
//! The kernel tells of changes on this machine only (inotify). Where the repository lies on another one, a new version
//! is asked for by the operation that loads a model.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    thread,
};

use edge_protocol::Id;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tracing::{debug, warn};

use super::repository::version_number;

/// What was renamed into place, and so is complete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arrival {
    /// A version.
    Version(Id, u64),
    /// A model with all its versions.
    Model(Id),
}

/// A folder that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Repository,
    Model(Id),
    Version,
}

struct Watcher {
    inotify: Inotify,
    dir: PathBuf,
    places: BTreeMap<WatchDescriptor, Place>,
}

/// Calls `changed` at each change of the repository at `dir`, until it returns false.
///
/// # Errors
/// When the kernel does not watch, or a thread cannot be started.
pub(super) fn start(
    dir: &Path,
    mut changed: impl FnMut(BTreeSet<Arrival>) -> bool + Send + 'static,
) -> io::Result<()> {
    let mut watcher = Watcher {
        inotify: Inotify::init(InitFlags::IN_CLOEXEC)?,
        dir: dir.to_owned(),
        places: BTreeMap::new(),
    };
    // Before the first look at the repository, so that nothing comes unseen between the two.
    watcher.watch_all()?;
    thread::Builder::new()
        .name("model-watch".into())
        .spawn(move || {
            while let Some(arrivals) = watcher.next() {
                if !changed(arrivals) {
                    return;
                }
            }
        })
        .map(|_| ())
}

impl Watcher {
    /// Waits for changes; none when watching has come to an end.
    fn next(&mut self) -> Option<BTreeSet<Arrival>> {
        let events = match self.inotify.read_events() {
            Ok(events) => events,
            Err(nix::errno::Errno::EINTR) => return Some(BTreeSet::new()),
            Err(error) => {
                warn!(%error, "the model repository is not watched any more");
                return None;
            }
        };
        let mut arrivals = BTreeSet::new();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                warn!(
                    "too much happens in the model repository to see what was renamed into place"
                );
            }
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.places.remove(&event.wd);
            } else if event.mask.contains(AddWatchFlags::IN_MOVED_TO)
                && let Some(place) = self.places.get(&event.wd)
                && let Some(name) = event.name.as_deref()
            {
                arrivals.extend(arrival(place, name));
            }
        }
        if let Err(error) = self.watch_all() {
            debug!(%error, "a part of the model repository is not watched");
        }
        Some(arrivals)
    }

    /// Watches the repository, its models and their versions; those watched already stay so.
    fn watch_all(&mut self) -> io::Result<()> {
        let dir = self.dir.clone();
        self.watch(&dir, Place::Repository)?;
        for (name, path) in folders(&dir)? {
            let Ok(model) = Id::new(&name) else { continue };
            // What goes away meanwhile is none of our business.
            if self.watch(&path, Place::Model(model)).is_err() {
                continue;
            }
            for (name, path) in folders(&path).unwrap_or_default() {
                if version_number(&name).is_some() {
                    self.watch(&path, Place::Version).ok();
                }
            }
        }
        Ok(())
    }

    fn watch(&mut self, path: &Path, place: Place) -> io::Result<()> {
        let flags = AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE;
        let watch = self.inotify.add_watch(path, flags)?;
        self.places.insert(watch, place);
        Ok(())
    }
}

/// What has arrived when `name` was renamed into `place`.
fn arrival(place: &Place, name: &OsStr) -> Option<Arrival> {
    let name = name.to_str()?;
    match place {
        Place::Repository => Some(Arrival::Model(Id::new(name).ok()?)),
        Place::Model(model) => Some(Arrival::Version(model.clone(), version_number(name)?)),
        Place::Version => None,
    }
}

fn folders(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = std::fs::read_dir(dir)?.filter_map(Result::ok);
    let folder = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let name = path.file_name()?.to_str()?.to_owned();
        path.is_dir().then_some((name, path))
    };
    Ok(entries.filter_map(folder).collect())
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, time::Duration};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_renamed_into_place_arrives_and_what_is_copied_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path().join("models");
        fs::create_dir_all(models.join("digits/1")).unwrap();
        fs::create_dir_all(dir.path().join("2")).unwrap();
        fs::create_dir_all(dir.path().join("faces/1")).unwrap();
        let (sender, changes) = mpsc::channel();
        start(&models, move |arrivals| sender.send(arrivals).is_ok()).unwrap();
        let mut arrivals = BTreeSet::new();
        let mut wait_for = |wanted: Arrival| {
            while !arrivals.contains(&wanted) {
                arrivals.extend(changes.recv_timeout(PATIENCE).expect("a change"));
            }
            arrivals.len()
        };
        let digits = || Id::new("digits").unwrap();
        // Copied: folder first, then the file in it.
        fs::create_dir(models.join("digits/3")).unwrap();
        fs::write(models.join("digits/3/model.onnx"), "").unwrap();
        fs::rename(dir.path().join("2"), models.join("digits/2")).unwrap();
        assert_eq!(wait_for(Arrival::Version(digits(), 2)), 1);
        fs::rename(dir.path().join("faces"), models.join("faces")).unwrap();
        assert_eq!(wait_for(Arrival::Model(Id::new("faces").unwrap())), 2);
        // What has arrived is watched as well.
        fs::rename(models.join("digits/3"), models.join("faces/3")).unwrap();
        assert_eq!(wait_for(Arrival::Version(Id::new("faces").unwrap(), 3)), 3);
    }

    #[test]
    fn a_repository_that_is_not_there_is_an_error() {
        assert!(start(Path::new("/nowhere/models"), |_| true).is_err());
    }
}
