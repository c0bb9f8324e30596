//! The region's memory over restarts: SQLite, written by one thread in batches and read by another.
//!
//! The region never waits for the disk: what does not fit into the bounded queue is dropped and counted, and a
//! full disk is reported, survived and recovered from.

mod reader;
mod sample;
mod schema;
mod status;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use edge_protocol::Id;
use tokio::sync::{mpsc, oneshot, watch};

pub use reader::{HistoryPoint, HistoryQuery};
pub use status::StoreView;

use crate::region::{BoxRecord, Event, Sample};

/// Writes that wait for the disk at most.
const QUEUE: usize = 16_384;
/// Questions that wait for the disk at most.
const QUESTIONS: usize = 64;
/// Smallest limit of a store, in MiB: below it SQLite's own pages leave no room for history.
pub const LIMIT_MIN_MB: u64 = 1;

/// Where the store is and how much it keeps.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Folder of the data; made when absent.
    pub folder: PathBuf,
    /// Bytes that the database may have.
    pub limit_mb: u64,
    /// Age at which history is deleted.
    pub history_hours: u64,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot make the data folder {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another indexer uses the folder.
    #[error(
        "another edge-indexer uses the data folder {}; stop it or give this one another --data",
        folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// SQLite refuses the file.
    #[error("cannot open the store {}; if it is damaged, move it away and start again", file.display())]
    Sqlite {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A store of a later version.
    #[error(
        "the store {} has schema version {found}, this edge-indexer knows {known}; use a newer one",
        file.display()
    )]
    TooNew {
        /// The file.
        file: PathBuf,
        /// Version in the file.
        found: i64,
        /// Version of this program.
        known: i64,
    },
    /// No thread can be started.
    #[error("cannot start the store's thread")]
    Thread(#[source] std::io::Error),
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Too many questions wait.
    #[error("the store is busy; ask again later")]
    Busy,
    /// SQLite failed.
    #[error("the store cannot be read")]
    Sqlite(#[from] rusqlite::Error),
}

/// A write.
#[derive(Debug)]
enum Write {
    Box(Box<BoxRecord>),
    Sample(Sample),
    Event(Event),
    /// Nothing to write, but time to look at age and room.
    Upkeep,
}

/// A question and where the answer goes.
struct Ask {
    query: HistoryQuery,
    reply: oneshot::Sender<Result<Vec<HistoryPoint>, rusqlite::Error>>,
}

/// What was in the store when it was opened.
#[derive(Debug, Default)]
pub struct Restored {
    /// The boxes.
    pub boxes: Vec<BoxRecord>,
    /// The last events, oldest first.
    pub events: Vec<Event>,
}

/// The open store. Belongs to the one who writes; readers have a [`StoreReader`].
#[derive(Debug)]
pub struct Store {
    writes: mpsc::Sender<Write>,
    status: watch::Receiver<StoreView>,
    counters: Arc<status::Counters>,
    reader: StoreReader,
    writer: JoinHandle<()>,
    // Held until the last write: the lock ends with the file.
    lock: std::fs::File,
}

/// Asks the store.
#[derive(Debug, Clone)]
pub struct StoreReader {
    asks: mpsc::Sender<Ask>,
}

impl Store {
    /// Opens the store, makes or migrates its tables, and reads what it has.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(settings: &StoreSettings) -> Result<(Self, Restored), OpenError> {
        let folder = settings.folder.clone();
        let lock = lock(&folder)?;
        let file = folder.join("region.sqlite3");
        let sqlite = |source| OpenError::Sqlite {
            file: file.clone(),
            source,
        };
        let mut connection = rusqlite::Connection::open(&file).map_err(sqlite)?;
        schema::prepare(&mut connection, settings.limit_mb).map_err(|error| match error {
            schema::SchemaError::Sqlite(source) => sqlite(source),
            schema::SchemaError::TooNew { found } => OpenError::TooNew {
                file: file.clone(),
                found,
                known: schema::VERSION,
            },
        })?;
        let restored = schema::restore(&connection).map_err(sqlite)?;
        let reading = reader::open(&file).map_err(sqlite)?;

        let counters = Arc::new(status::Counters::default());
        let (writes, queued) = mpsc::channel(QUEUE);
        let (status_tx, status) = watch::channel(StoreView::default());
        let writer = writer::Writer::new(connection, settings, Arc::clone(&counters), status_tx)
            .map_err(sqlite)?;
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(queued))
            .map_err(OpenError::Thread)?;
        let (asks, asked) = mpsc::channel(QUESTIONS);
        std::thread::Builder::new()
            .name("store-reader".to_owned())
            .spawn(move || reader::run(&reading, asked))
            .map_err(OpenError::Thread)?;
        let store = Self {
            writes,
            status,
            counters,
            reader: StoreReader { asks },
            writer,
            lock,
        };
        Ok((store, restored))
    }

    /// For those who only read.
    #[must_use]
    pub fn reader(&self) -> StoreReader {
        self.reader.clone()
    }

    /// How the store is.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<StoreView> {
        self.status.clone()
    }

    /// Writes that the queue still takes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.writes.capacity()
    }

    /// Keeps a sample, or drops and counts it when the disk does not keep up.
    pub fn sample(&self, sample: Sample) {
        if self.writes.try_send(Write::Sample(sample)).is_err() {
            self.counters.drop_samples(1);
        }
    }

    /// Keeps an event, or drops and counts it.
    pub fn event(&self, event: Event) {
        if self.writes.try_send(Write::Event(event)).is_err() {
            self.counters.drop_other(1);
        }
    }

    /// Keeps a box's record, or drops and counts it; see [`Self::room`].
    pub fn record(&self, record: BoxRecord) {
        let write = Write::Box(Box::new(record));
        if self.writes.try_send(write).is_err() {
            self.counters.drop_other(1);
        }
    }

    /// Lets the store look after itself when nothing is written; call it every few seconds.
    pub fn upkeep(&self) {
        if self.writes.capacity() == QUEUE && self.writes.try_send(Write::Upkeep).is_err() {
            tracing::debug!("the store is busy and looks after itself anyway");
        }
    }

    /// Keeps these records too, waits until everything is on disk, and closes. Blocks: call it off the runtime.
    pub fn close(self, records: Vec<BoxRecord>) {
        let Self {
            writes,
            writer,
            lock,
            ..
        } = self;
        for record in records {
            if writes.blocking_send(Write::Box(Box::new(record))).is_err() {
                break;
            }
        }
        drop(writes);
        if writer.join().is_err() {
            tracing::error!("the store's writer panicked; its last batch may be lost");
        }
        drop(lock);
    }
}

impl StoreReader {
    /// Points of one metric of one box, oldest first.
    ///
    /// # Errors
    /// [`ReadError`] when too many wait or SQLite fails.
    pub async fn history(&self, query: HistoryQuery) -> Result<Vec<HistoryPoint>, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.asks
            .try_send(Ask { query, reply })
            .map_err(|_| ReadError::Busy)?;
        Ok(answer.await.map_err(|_| ReadError::Busy)??)
    }
}

/// One indexer per folder.
fn lock(folder: &Path) -> Result<std::fs::File, OpenError> {
    let io = |source| OpenError::Folder {
        folder: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("lock"))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse {
            folder: folder.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

/// A number for SQLite, which has no unsigned ones; times and counts beyond its range become its largest.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number from SQLite; what this program wrote is never negative.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A name from SQLite.
fn id(text: &str) -> Option<Id> {
    Id::new(text).ok()
}
