//! Tables, their version, and what is read from them at the start.

use rusqlite::{Connection, params};

use super::{Restored, id, unsigned};
use crate::region::{BoxRecord, Event, EventKind, MetricSet};

/// Version of the tables; `PRAGMA user_version`.
pub(super) const VERSION: i64 = 1;

/// The step to each version from the one before. A released step never changes.
const STEPS: [&str; 1] = ["
    -- Last known state of each box; metrics as JSON, so that any SQLite tool can read them.
    CREATE TABLE boxes (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        first_seen_ms INTEGER NOT NULL,
        last_seen_ms INTEGER NOT NULL,
        born_ms INTEGER,
        clock_skew_ms INTEGER,
        messages INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        requests_failed INTEGER NOT NULL,
        metrics TEXT NOT NULL
    ) STRICT;
    CREATE TABLE metric_names (
        key INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    -- One row a message, not a metric: a tenth of the rows. `metrics` is packed by store/sample.rs.
    -- Row ids grow with arrival, so the oldest rows are the lowest.
    CREATE TABLE history (
        key INTEGER PRIMARY KEY,
        box INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        box_ms INTEGER,
        arrived_ms INTEGER NOT NULL,
        metrics BLOB NOT NULL
    ) STRICT;
    CREATE INDEX history_of_box ON history (box, at_ms);
    CREATE TABLE events (
        key INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        box TEXT,
        detail TEXT NOT NULL
    ) STRICT;
"];

/// Events that are read at the start.
const EVENTS: i64 = 500;

#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    #[error("sqlite")]
    Sqlite(#[from] rusqlite::Error),
    #[error("too new")]
    TooNew { found: i64 },
}

/// Sets the connection up and brings the tables to [`VERSION`].
pub(super) fn prepare(connection: &mut Connection, limit_mb: u64) -> Result<(), SchemaError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power cut may cost the last transactions, never the file: WAL keeps it whole (sqlite.org/wal.html).
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", 4_i64 << 20)?;
    connection.pragma_update(None, "cache_size", -4_096)?; // KiB
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let steps = usize::try_from(found)
        .ok()
        .and_then(|done| STEPS.get(done..))
        .ok_or(SchemaError::TooNew { found })?;
    for (step, version) in steps.iter().zip(found + 1..) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    set_limit(connection, limit_mb)?;
    Ok(())
}

/// The hard bound: SQLite itself refuses to grow the file beyond it.
fn set_limit(connection: &Connection, limit_mb: u64) -> rusqlite::Result<()> {
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = (super::integer(limit_mb) << 20) / page_bytes.max(1);
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
}

pub(super) fn restore(connection: &Connection) -> rusqlite::Result<Restored> {
    let mut boxes = Vec::new();
    let mut statement = connection.prepare(
        "SELECT id, first_seen_ms, last_seen_ms, born_ms, clock_skew_ms, messages, requests, requests_failed, \
         metrics FROM boxes ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(box_id) = id(row.get_ref(0)?.as_str()?) else {
            continue;
        };
        let metrics = serde_json::from_str::<MetricSet>(row.get_ref(8)?.as_str()?);
        if let Err(error) = &metrics {
            tracing::warn!(%box_id, %error, "stored metrics of a box cannot be read and are forgotten");
        }
        boxes.push(BoxRecord {
            box_id,
            first_seen_ms: unsigned(row.get(1)?),
            last_seen_ms: unsigned(row.get(2)?),
            born_ms: row.get::<_, Option<i64>>(3)?.map(unsigned),
            clock_skew_ms: row.get(4)?,
            messages: unsigned(row.get(5)?),
            requests: unsigned(row.get(6)?),
            requests_failed: unsigned(row.get(7)?),
            metrics: metrics.unwrap_or_default(),
        });
    }
    let mut statement = connection.prepare(
        "SELECT at_ms, kind, box, detail FROM (SELECT * FROM events ORDER BY key DESC LIMIT ?) ORDER BY key",
    )?;
    let mut rows = statement.query(params![EVENTS])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(kind) = EventKind::from_name(row.get_ref(1)?.as_str()?) else {
            continue;
        };
        events.push(Event {
            at_ms: unsigned(row.get(0)?),
            kind,
            box_id: row.get_ref(2)?.as_str_or_null()?.and_then(id),
            detail: row.get(3)?,
        });
    }
    Ok(Restored { boxes, events })
}
