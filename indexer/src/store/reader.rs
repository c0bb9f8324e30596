//! The thread that answers questions, on a connection that cannot write.

use std::path::Path;

use edge_protocol::Id;
use edge_protocol::sparkplug::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::{Ask, integer, sample, unsigned};

/// Messages that one question looks at; beyond, the answer has the newest.
const ROWS_MAX: usize = 200_000;

/// Which points of a history.
#[derive(Debug, Clone)]
pub struct HistoryQuery {
    /// Of this box.
    pub box_id: Id,
    /// Of this metric.
    pub metric: String,
    /// Not before, in milliseconds since 1970.
    pub from_ms: u64,
    /// Not after.
    pub to_ms: u64,
    /// The newest so many.
    pub limit: usize,
}

/// A point of a history.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct HistoryPoint {
    /// When the value held, in milliseconds since 1970 by the indexer's clock.
    pub at_ms: u64,
    /// When the box took it by its own clock.
    pub box_ms: Option<u64>,
    /// The value.
    #[schema(value_type = Object)]
    pub value: Value,
}

pub(super) fn open(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.pragma_update(None, "cache_size", -2_048)?; // KiB
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Answers until nobody can ask any more.
pub(super) fn run(connection: &Connection, mut asks: mpsc::Receiver<Ask>) {
    while let Some(Ask { query, reply }) = asks.blocking_recv() {
        if reply.is_closed() {
            continue; // who asked has gone
        }
        if reply.send(history(connection, &query)).is_err() {
            tracing::debug!("a history was read for nobody");
        }
    }
}

fn history(connection: &Connection, query: &HistoryQuery) -> rusqlite::Result<Vec<HistoryPoint>> {
    let key = |sql, name: &str| {
        connection
            .prepare_cached(sql)?
            .query_row(params![name], |row| row.get::<_, i64>(0))
            .optional()
    };
    let (Some(box_key), Some(metric_key)) = (
        key("SELECT key FROM boxes WHERE id = ?", query.box_id.as_str())?,
        key("SELECT key FROM metric_names WHERE name = ?", &query.metric)?,
    ) else {
        return Ok(Vec::new());
    };
    let mut statement = connection.prepare_cached(
        "SELECT at_ms, box_ms, metrics FROM history WHERE box = ? AND at_ms BETWEEN ? AND ? \
         ORDER BY at_ms DESC, key DESC",
    )?;
    let mut rows = statement.query(params![
        box_key,
        integer(query.from_ms),
        integer(query.to_ms)
    ])?;
    let mut points = Vec::new();
    let mut looked_at = 0;
    while points.len() < query.limit
        && looked_at < ROWS_MAX
        && let Some(row) = rows.next()?
    {
        looked_at += 1;
        if let Some(value) = sample::find(row.get_ref(2)?.as_blob()?, unsigned(metric_key)) {
            points.push(HistoryPoint {
                at_ms: unsigned(row.get(0)?),
                box_ms: row.get::<_, Option<i64>>(1)?.map(unsigned),
                value,
            });
        }
    }
    points.reverse();
    Ok(points)
}
