//! Reads, each on one snapshot.

use crate::error::{ADAPTER, Subject};
use crate::sql::{self, Enough};
use crate::{SqliteConfig, open};
use async_trait::async_trait;
use flames_state::backend::{
    EventBatch, EventSource, PageBuilder, group_events, history_is_gone, key_range, not_reached,
};
use flames_state::{ErrorKind, Key, Page, Record, Result, Revision};
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Enough for a small machine; more would only wait for the same disk.
const READERS: usize = 4;
/// A reader that waits longer for a connection gives up.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);
/// Commits that one read of a watch looks at; each has at most 64 values of at most 1 MiB.
const BATCH: u64 = 32;

/// Connections that read. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn open(config: &SqliteConfig) -> Result<Self> {
        let idle: Result<Vec<_>> = (0..READERS).map(|_| open::reader(config)).collect();
        Ok(Self { idle: Arc::new(Mutex::new(idle?)), turns: Arc::new(Semaphore::new(READERS)) })
    }

    /// Ends the connections; those in use end with what they are at.
    pub(crate) fn close(&self) {
        self.turns.close();
        self.idle().clear();
    }

    /// Reads one record without leaving the caller's thread: its pages were written or read a moment ago, and a hand-over
    /// to another thread takes ten times as long as the look-up.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let subject = Subject::new("get", "record", key.as_str());
        let _turn = self.turn(&subject).await?;
        let lost = || subject.error(ErrorKind::Unavailable).detail("a connection was lost");
        let connection = self.idle().pop().ok_or_else(lost)?;
        let found = sql::get(&connection, key);
        self.give_back(connection);
        found.map_err(|error| subject.failed(Arc::new(error)))
    }

    pub(crate) async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        let range = key_range(prefix, after);
        let read = move |connection: &mut Connection| {
            let mut page = PageBuilder::new(limit);
            sql::list(connection, &range, limit, |record| {
                page.push(record);
                if page.is_full() { Enough::Yes } else { Enough::No }
            })?;
            Ok(page.finish())
        };
        self.run(Subject::new("list", "prefix", prefix), read).await
    }

    /// Runs `work` on a thread that may wait for the disk.
    async fn run<T: Send + 'static>(
        &self,
        subject: Subject,
        work: impl FnOnce(&mut Connection) -> sql::Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turn(&subject).await?;
        let readers = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = readers.idle().pop()?;
            let done = work(&mut connection);
            readers.give_back(connection);
            drop(turn);
            Some(done)
        });
        match done.await {
            Ok(Some(done)) => done.map_err(|error| subject.failed(Arc::new(error))),
            Ok(None) | Err(_) => Err(subject.error(ErrorKind::Unavailable).detail("a connection was lost")),
        }
    }

    /// The right to one connection.
    async fn turn(&self, subject: &Subject) -> Result<OwnedSemaphorePermit> {
        let gone = |detail: &str| subject.error(ErrorKind::Unavailable).detail(detail);
        let turn = tokio::time::timeout(ACQUIRE_WITHIN, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| gone("no connection was free in time"))?;
        turn.map_err(|_| gone("the store was closed"))
    }

    fn give_back(&self, connection: Connection) {
        if !self.turns.is_closed() {
            self.idle().push(connection);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events table, read again whenever the writer has committed.
pub(crate) struct History {
    pub(crate) readers: Readers,
    pub(crate) newest: watch::Receiver<Revision>,
}

#[async_trait]
impl EventSource for History {
    async fn read(&mut self, prefix: &str, after: Revision) -> Result<EventBatch> {
        self.newest.mark_unchanged();
        let subject = Subject::new("watch", "prefix", prefix);
        let range = key_range(prefix, None);
        let read = move |connection: &mut Connection| batch(connection, &range, after);
        let (oldest, batch) = self.readers.run(subject, read).await?;
        if after > batch.newest {
            return Err(not_reached(after, batch.newest).adapter(ADAPTER));
        }
        if after < oldest {
            return Err(history_is_gone(after, oldest).adapter(ADAPTER));
        }
        Ok(batch)
    }

    async fn changed(&mut self) -> Result<()> {
        let closed = |_| {
            let subject = Subject::new("watch", "store", "");
            subject.error(ErrorKind::Unavailable).detail("the store was closed")
        };
        self.newest.changed().await.map_err(closed)
    }
}

/// One transaction, so that nothing is pruned between the look at the bounds and the read.
fn batch(
    connection: &mut Connection,
    range: &std::ops::Range<Vec<u8>>,
    after: Revision,
) -> sql::Result<(Revision, EventBatch)> {
    let transaction = connection.transaction()?;
    let sql::Bounds { oldest, newest } = sql::bounds(&transaction)?;
    let reached = newest.min(Revision(after.0.saturating_add(BATCH)));
    let changes = sql::events(&transaction, (after, reached), range)?;
    Ok((oldest, EventBatch { events: group_events(changes), reached, newest }))
}
