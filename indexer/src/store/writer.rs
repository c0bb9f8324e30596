//! The thread that writes: batches in one transaction each, room made by deleting the oldest history, and a plain
//! answer to a full disk: drop samples and count them, keep boxes and events, try again.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use edge_protocol::Id;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use tokio::sync::{mpsc, watch};

use super::status::Counters;
use super::{StoreSettings, StoreView, Write, integer, sample, unsigned};
use crate::region::{BoxRecord, Event, Sample};

/// Writes in one transaction.
const BATCH: usize = 4_096;
/// Writes in one transaction while the store is nearly full.
const PART: usize = 64;
/// Least time between two looks at age and room.
const UPKEEP: Duration = Duration::from_secs(1);
/// Time between two tries of a batch that the disk refused.
const RETRY: Duration = Duration::from_millis(500);
/// How long writes gather before they are written together.
const GATHER: Duration = Duration::from_millis(100);
/// Events kept.
const EVENTS_MAX: i64 = 100_000;
/// Metric names in the store; values of further names are refused.
const NAMES_MAX: i64 = 65_536;
/// Metric names whose keys are kept in memory.
const NAMES_CACHED: usize = 16_384;
/// Rows deleted in one transaction, so that the queue does not overflow meanwhile.
const DELETE_ROWS: i64 = 10_000;
/// Transactions that make room in one upkeep.
const DELETIONS: usize = 16;
/// Tries of a last batch when the store closes on a failing disk.
const LAST_TRIES: u32 = 3;

pub(super) struct Writer {
    connection: Connection,
    counters: Arc<Counters>,
    status: watch::Sender<StoreView>,
    view: StoreView,
    history_ms: u64,
    box_keys: HashMap<Id, i64>,
    name_keys: HashMap<Arc<str>, i64>,
    page_bytes: u64,
    next_upkeep: Instant,
}

/// What a transaction did with its samples.
#[derive(Debug, Default)]
struct Done {
    written: u64,
    dropped: usize,
    values_refused: u64,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        settings: &StoreSettings,
        counters: Arc<Counters>,
        status: watch::Sender<StoreView>,
    ) -> rusqlite::Result<Self> {
        connection.set_prepared_statement_cache_capacity(32);
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let page_bytes = unsigned(pragma("page_size")?);
        let limit_bytes = unsigned(pragma("max_page_count")?).saturating_mul(page_bytes);
        let mut writer = Self {
            connection,
            counters,
            status,
            view: StoreView {
                limit_bytes,
                ..StoreView::default()
            },
            history_ms: settings.history_hours.saturating_mul(3_600_000),
            box_keys: HashMap::new(),
            name_keys: HashMap::new(),
            page_bytes,
            next_upkeep: Instant::now(),
        };
        writer.measure()?;
        writer.report();
        Ok(writer)
    }

    /// Writes until all senders have gone and the queue is empty.
    pub(super) fn run(mut self, mut queued: mpsc::Receiver<Write>) {
        let mut batch = Vec::new();
        let mut tries_left = LAST_TRIES;
        loop {
            if !batch.is_empty() {
                thread::sleep(RETRY); // the disk refused this batch a moment ago
                if queued.is_closed() {
                    if tries_left == 0 {
                        break;
                    }
                    tries_left -= 1;
                }
            } else if queued.blocking_recv_many(&mut batch, BATCH) == 0 {
                break;
            }
            self.write(&mut batch);
            self.upkeep();
            self.report();
            if batch.is_empty() && queued.is_empty() && !queued.is_closed() {
                thread::sleep(GATHER); // few writes come: a transaction for each would wear the disk
            }
        }
        let lost = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        if lost > 0 {
            tracing::error!(lost, "the store closes with writes that the disk refused");
        }
        if let Err(error) = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        {
            tracing::debug!(%error, "the write-ahead log stays for the next start");
        }
    }

    /// Writes a batch. What may be tried again stays in it.
    fn write(&mut self, batch: &mut Vec<Write>) {
        if batch.is_empty() {
            return;
        }
        let result = match self.transaction(batch) {
            Err(error) if is_full(&error) => self.write_by_parts(batch),
            result => result.map(|()| batch.clear()),
        };
        match result {
            Ok(()) => self.recover(),
            Err(error) => {
                let all = batch.len();
                batch.retain(|write| !matches!(write, Write::Sample(_)));
                self.counters.drop_samples(all - batch.len());
                if !is_trouble_of_the_disk(&error) {
                    self.counters.drop_other(batch.len());
                    batch.clear();
                }
                if self.view.failing.is_none() {
                    tracing::error!(%error, "the store cannot write; samples are dropped until it can");
                }
                self.view.failing = Some(error.to_string());
            }
        }
    }

    /// Ends a failure once something was written and there is room for more: a nearly full store takes a small
    /// write now and then, which helps nobody.
    fn recover(&mut self) {
        if self.view.failing.is_none() {
            return;
        }
        match self.measure() {
            Ok(()) if self.view.used_bytes <= self.view.limit_bytes / 20 * 19 => {
                self.view.failing = None;
                tracing::info!("the store writes again");
            }
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "the store cannot be measured"),
        }
    }

    /// The batch is too large for what is free: writes a part at a time, and makes room for each. Leaves what was
    /// not written.
    fn write_by_parts(&mut self, batch: &mut Vec<Write>) -> rusqlite::Result<()> {
        while !batch.is_empty() {
            let part = batch.get(..PART).unwrap_or(batch);
            let length = part.len();
            match self.transaction(part) {
                Ok(()) => drop(batch.drain(..length)),
                Err(error) if is_full(&error) && self.make_room()? > 0 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all or nothing.
    fn transaction(&mut self, batch: &[Write]) -> rusqlite::Result<()> {
        let done = self.try_transaction(batch);
        match &done {
            Ok(done) => {
                self.view.samples_written += done.written;
                self.view.values_refused += done.values_refused;
                self.counters.drop_samples(done.dropped);
            }
            Err(_) => {
                // Keys of rows that were rolled back must not be used.
                self.box_keys.clear();
                self.name_keys.clear();
            }
        }
        done.map(|_| ())
    }

    fn try_transaction(&mut self, batch: &[Write]) -> rusqlite::Result<Done> {
        let transaction = self.connection.transaction()?;
        let mut done = Done::default();
        for write in batch {
            match write {
                Write::Box(record) => write_box(&transaction, record, &mut self.box_keys)?,
                Write::Event(event) => write_event(&transaction, event)?,
                Write::Upkeep => {}
                Write::Sample(sample) => {
                    if write_sample(
                        &transaction,
                        sample,
                        &mut self.box_keys,
                        &mut self.name_keys,
                        &mut done.values_refused,
                    )? {
                        done.written += 1;
                    } else {
                        done.dropped += 1;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(done)
    }

    /// Deletes what is too old or too much.
    fn upkeep(&mut self) {
        let now = Instant::now();
        if now < self.next_upkeep {
            return;
        }
        self.next_upkeep = now + UPKEEP;
        let done = self.delete_old().and_then(|()| {
            self.measure()?;
            for _ in 0..DELETIONS {
                if self.view.used_bytes <= self.view.limit_bytes / 10 * 9 || self.make_room()? == 0
                {
                    break;
                }
                self.measure()?;
            }
            Ok(())
        });
        if let Err(error) = done {
            tracing::warn!(%error, "old history cannot be deleted now");
        }
    }

    fn delete_old(&mut self) -> rusqlite::Result<()> {
        let before_ms = crate::live::now_ms().saturating_sub(self.history_ms);
        let rows = self
            .connection
            .prepare_cached(
                "DELETE FROM history WHERE key IN \
                 (SELECT key FROM (SELECT key, arrived_ms FROM history ORDER BY key LIMIT ?1) \
                  WHERE arrived_ms < ?2)",
            )?
            .execute(params![DELETE_ROWS, integer(before_ms)])?;
        self.view.samples_expired += u64::try_from(rows).unwrap_or(0);
        self.connection
            .prepare_cached("DELETE FROM events WHERE key <= (SELECT max(key) FROM events) - ?")?
            .execute(params![EVENTS_MAX])?;
        Ok(())
    }

    /// Deletes the oldest tenth of the history, at most [`DELETE_ROWS`], or where there is none the older half of the events.
    fn make_room(&mut self) -> rusqlite::Result<usize> {
        let rows = self.connection.execute(
            "DELETE FROM history WHERE key <= \
             (SELECT min(key) + min((max(key) - min(key)) / 10, ?) FROM history)",
            params![DELETE_ROWS],
        )?;
        self.view.samples_expired += u64::try_from(rows).unwrap_or(0);
        if rows > 0 {
            return Ok(rows);
        }
        self.connection.execute(
            "DELETE FROM events WHERE key < (SELECT min(key) + (max(key) - min(key)) / 2 FROM events)",
            [],
        )
    }

    fn measure(&mut self) -> rusqlite::Result<()> {
        let pragma = |name| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        let used = pragma("page_count")? - pragma("freelist_count")?;
        self.view.used_bytes = unsigned(used) * self.page_bytes;
        self.view.oldest_ms = self
            .connection
            .prepare_cached("SELECT arrived_ms FROM history ORDER BY key LIMIT 1")?
            .query_row([], |row| row.get::<_, i64>(0))
            .optional()?
            .map(unsigned);
        Ok(())
    }

    fn report(&mut self) {
        self.counters.fill(&mut self.view);
        self.status.send_if_modified(|shown| {
            let changed = *shown != self.view;
            if changed {
                shown.clone_from(&self.view);
            }
            changed
        });
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether the same write may succeed later.
fn is_trouble_of_the_disk(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport
        )
    )
}

fn write_box(
    transaction: &Transaction<'_>,
    record: &BoxRecord,
    keys: &mut HashMap<Id, i64>,
) -> rusqlite::Result<()> {
    let metrics = serde_json::to_string(&record.metrics)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let key = transaction
        .prepare_cached(
            "INSERT INTO boxes (id, first_seen_ms, last_seen_ms, born_ms, clock_skew_ms, messages, requests, \
             requests_failed, metrics) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
             ON CONFLICT (id) DO UPDATE SET first_seen_ms = ?2, last_seen_ms = ?3, born_ms = ?4, \
             clock_skew_ms = ?5, messages = ?6, requests = ?7, requests_failed = ?8, metrics = ?9 \
             RETURNING key",
        )?
        .query_row(
            params![
                record.box_id.as_str(),
                integer(record.first_seen_ms),
                integer(record.last_seen_ms),
                record.born_ms.map(integer),
                record.clock_skew_ms,
                integer(record.messages),
                integer(record.requests),
                integer(record.requests_failed),
                metrics,
            ],
            |row| row.get(0),
        )?;
    keys.insert(record.box_id.clone(), key);
    Ok(())
}

fn write_event(transaction: &Transaction<'_>, event: &Event) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO events (at_ms, kind, box, detail) VALUES (?, ?, ?, ?)")?
        .execute(params![
            integer(event.at_ms),
            event.kind.name(),
            event.box_id.as_ref().map(Id::as_str),
            event.detail,
        ])?;
    Ok(())
}

/// The key of a metric's name, or none when the name is new and the store has [`NAMES_MAX`].
fn name_key(
    transaction: &Transaction<'_>,
    name: &Arc<str>,
    cached: &mut HashMap<Arc<str>, i64>,
) -> rusqlite::Result<Option<i64>> {
    if let Some(key) = cached.get(name) {
        return Ok(Some(*key));
    }
    let known = transaction
        .prepare_cached("SELECT key FROM metric_names WHERE name = ?")?
        .query_row(params![name.as_ref()], |row| row.get(0))
        .optional()?;
    let key = match known {
        Some(key) => Some(key),
        // Names are never deleted, so the greatest key is their count.
        None => transaction
            .prepare_cached(
                "INSERT INTO metric_names (name) SELECT ?1 \
                 WHERE coalesce((SELECT max(key) FROM metric_names), 0) < ?2 RETURNING key",
            )?
            .query_row(params![name.as_ref(), NAMES_MAX], |row| row.get(0))
            .optional()?,
    };
    if let Some(key) = key {
        if cached.len() >= NAMES_CACHED {
            cached.clear();
        }
        cached.insert(Arc::clone(name), key);
    }
    Ok(key)
}

/// False when nothing of the sample was kept.
fn write_sample(
    transaction: &Transaction<'_>,
    sample: &Sample,
    box_keys: &mut HashMap<Id, i64>,
    name_keys: &mut HashMap<Arc<str>, i64>,
    values_refused: &mut u64,
) -> rusqlite::Result<bool> {
    let box_key = match box_keys.get(&sample.box_id) {
        Some(key) => *key,
        None => {
            // The box's record follows; until then the row holds its place.
            let key = transaction
                .prepare_cached(
                    "INSERT INTO boxes (id, first_seen_ms, last_seen_ms, messages, requests, requests_failed, \
                     metrics) VALUES (?1, ?2, ?2, 0, 0, 0, '{}') \
                     ON CONFLICT (id) DO UPDATE SET id = id RETURNING key",
                )?
                .query_row(
                    params![sample.box_id.as_str(), integer(sample.arrived_ms)],
                    |row| row.get(0),
                )?;
            box_keys.insert(sample.box_id.clone(), key);
            key
        }
    };
    let mut blob = Vec::with_capacity(sample.values.len() * 8);
    for (name, value) in &sample.values {
        match name_key(transaction, name, name_keys)? {
            Some(key) => sample::push(&mut blob, unsigned(key), value),
            None => *values_refused += 1,
        }
    }
    if blob.is_empty() {
        return Ok(false);
    }
    transaction
        .prepare_cached(
            "INSERT INTO history (box, at_ms, box_ms, arrived_ms, metrics) VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![
            box_key,
            integer(sample.at_ms),
            sample.box_ms.map(integer),
            integer(sample.arrived_ms),
            blob,
        ])?;
    Ok(true)
}
