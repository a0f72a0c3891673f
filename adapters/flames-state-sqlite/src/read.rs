//! Reads, each on one snapshot.

use crate::error::Subject;
use crate::sql;
use async_trait::async_trait;
use flames_state::backend::{
    EventBatch, EventSource, PageBuilder, group_events, history_is_gone, key_range, not_reached,
};
use flames_state::{Key, Page, Record, Result, Revision};
use futures::TryStreamExt;
use sqlx::SqlitePool;
use std::sync::Arc;
use tokio::sync::watch;

/// Commits that one read of a watch looks at; each has at most 64 values of at most 1 MiB.
const BATCH: u64 = 32;

pub(crate) async fn get(readers: &SqlitePool, key: &Key) -> sqlx::Result<Option<Record>> {
    let row = sqlx::query(sql::GET).bind(key.as_bytes()).fetch_optional(readers).await?;
    row.map(|row| sql::record(&row)).transpose()
}

pub(crate) async fn list(
    readers: &SqlitePool,
    prefix: &str,
    after: Option<&Key>,
    limit: usize,
) -> sqlx::Result<Page> {
    let range = key_range(prefix, after);
    let rows = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = sqlx::query(sql::LIST).bind(range.start).bind(range.end).bind(rows).fetch(readers);
    let mut page = PageBuilder::new(limit);
    while !page.is_full() {
        let Some(row) = rows.try_next().await? else { break };
        page.push(sql::record(&row)?);
    }
    Ok(page.finish())
}

/// The events table, read again whenever the writer has committed.
pub(crate) struct History {
    pub(crate) readers: SqlitePool,
    pub(crate) newest: watch::Receiver<Revision>,
}

#[async_trait]
impl EventSource for History {
    async fn read(&mut self, prefix: &str, after: Revision) -> Result<EventBatch> {
        self.newest.mark_unchanged();
        let failed = |error| Subject::new("watch", "prefix", prefix).failed(Arc::new(error));
        let (oldest, batch) = self.batch(prefix, after).await.map_err(failed)?;
        if after > batch.newest {
            return Err(not_reached(after, batch.newest).adapter(crate::error::ADAPTER));
        }
        if after < oldest {
            return Err(history_is_gone(after, oldest).adapter(crate::error::ADAPTER));
        }
        Ok(batch)
    }

    async fn changed(&mut self) -> Result<()> {
        let closed = |_| {
            let subject = Subject::new("watch", "store", "");
            subject.error(flames_state::ErrorKind::Unavailable).detail("the store was closed")
        };
        self.newest.changed().await.map_err(closed)
    }
}

impl History {
    /// One transaction, so that nothing is pruned between the look at the bounds and the read.
    async fn batch(&self, prefix: &str, after: Revision) -> sqlx::Result<(Revision, EventBatch)> {
        let mut transaction = self.readers.begin().await?;
        let sql::Bounds { oldest, newest } = sql::bounds(&mut transaction).await?;
        let reached = newest.min(Revision(after.0.saturating_add(BATCH)));
        let range = key_range(prefix, None);
        let query = sqlx::query(sql::EVENTS).bind(sql::signed(after.0)).bind(sql::signed(reached.0));
        let rows = query.bind(range.start).bind(range.end).fetch_all(&mut *transaction).await?;
        let changes: Vec<_> = rows.iter().map(sql::change).collect::<sqlx::Result<_>>()?;
        Ok((oldest, EventBatch { events: group_events(changes), reached, newest }))
    }
}
