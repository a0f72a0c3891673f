//! Reads, each one statement and so one snapshot.

use crate::bell::Ring;
use crate::connect::Database;
use crate::error::{ADAPTER, Failure, Subject};
use crate::row::{self, signed};
use async_trait::async_trait;
use flames_state::backend::{
    EventBatch, EventSource, MAX_PAGE_BYTES, PageBuilder, group_events, history_is_gone, key_range,
    not_reached,
};
use flames_state::{Key, Page, Record, Result, Revision};
use sqlx::PgConnection;

/// Commits that one read of a watch looks at; each has at most 64 values of at most 1 MiB.
const BATCH: i64 = 32;

const GET: &str = "SELECT key, value, revision FROM records WHERE key = $1";
/// The server leaves out what the page has no room for, instead of sending it for nothing.
const LIST: &str = "SELECT key, value, revision FROM ( \
         SELECT key, value, revision, \
             sum(octet_length(value)) OVER (ORDER BY key) - octet_length(value) AS bytes_before \
         FROM records WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3 \
     ) AS page WHERE bytes_before < $4 ORDER BY key";
/// One row at least: the bounds must come from the same snapshot as the events.
const EVENTS: &str = "SELECT meta.oldest, meta.revision, events.revision, events.key, events.value \
     FROM meta LEFT JOIN events ON events.revision > $1 AND events.revision <= $1 + $2 \
         AND events.key >= $3 AND events.key < $4 \
     ORDER BY events.revision, events.seq";

pub(crate) async fn get(connection: &mut PgConnection, key: &Key) -> Result<Option<Record>, Failure> {
    let row = sqlx::query(GET).bind(key.as_bytes()).fetch_optional(connection).await?;
    Ok(row.map(|row| row::record(&row)).transpose()?)
}

pub(crate) async fn list(
    connection: &mut PgConnection,
    prefix: &str,
    after: Option<&Key>,
    limit: usize,
) -> Result<Page, Failure> {
    let range = key_range(prefix, after);
    let query = sqlx::query(LIST).bind(range.start).bind(range.end);
    let query = query.bind(signed(limit as u64)).bind(signed(MAX_PAGE_BYTES as u64));
    let mut page = PageBuilder::new(limit);
    for row in query.fetch_all(connection).await? {
        page.push(row::record(&row)?);
    }
    Ok(page.finish())
}

/// The events table, read again whenever the bell rings.
pub(crate) struct History {
    pub(crate) database: Database,
    pub(crate) ring: Ring,
}

#[async_trait]
impl EventSource for History {
    async fn read(&mut self, prefix: &str, after: Revision) -> Result<EventBatch> {
        self.ring.forget();
        let subject = Subject::new("watch", "prefix", prefix);
        let prefix = prefix.to_owned();
        let read = self.database.run(&subject, |connection| Box::pin(batch(connection, prefix, after)));
        let (oldest, batch) = read.await?;
        if after > batch.newest {
            return Err(not_reached(after, batch.newest).adapter(ADAPTER));
        }
        if after < oldest {
            return Err(history_is_gone(after, oldest).adapter(ADAPTER));
        }
        Ok(batch)
    }

    async fn changed(&mut self) -> Result<()> {
        self.ring.heard().await;
        Ok(())
    }
}

async fn batch(
    connection: &mut PgConnection,
    prefix: String,
    after: Revision,
) -> Result<(Revision, EventBatch), Failure> {
    let range = key_range(&prefix, None);
    let query = sqlx::query(EVENTS).bind(signed(after.0)).bind(BATCH).bind(range.start).bind(range.end);
    let rows = query.fetch_all(connection).await?;
    let bounds = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (oldest, newest) = (row::revision(bounds, 0)?, row::revision(bounds, 1)?);
    let changes: Vec<_> =
        rows.iter().filter_map(|row| row::change(row, 2).transpose()).collect::<sqlx::Result<_>>()?;
    let reached = newest.min(Revision(after.0.saturating_add(BATCH.unsigned_abs())));
    Ok((oldest, EventBatch { events: group_events(changes), reached, newest }))
}
