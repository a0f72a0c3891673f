//! The store: hands changes to the writer and reads by itself.

use crate::error::{ADAPTER, Subject};
use crate::lock::ProcessLock;
use crate::writer::{Job, Work, Writer};
use crate::{SqliteConfig, open, read};
use async_trait::async_trait;
use flames_state::backend::follow;
use flames_state::{
    ErrorKind, Key, Lease, LeaseTtl, Page, Record, Result, Revision, StateStore, Watch, Write,
    validate_commit, validate_page_limit,
};
use sqlx::SqlitePool;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Jobs that may wait for the writer before callers wait to hand theirs over.
const QUEUE: usize = 1024;

/// Records in one SQLite file.
#[derive(Debug)]
pub struct SqliteStateStore {
    jobs: mpsc::Sender<Job>,
    readers: SqlitePool,
    newest: watch::Receiver<Revision>,
    writer: JoinHandle<()>,
}

impl SqliteStateStore {
    /// Opens the file, or makes it, and brings its schema up to date.
    ///
    /// # Errors
    /// `Conflict` when another process has it open; `PermissionDenied` when the folder cannot be written;
    /// `Unsupported` when a newer Flames has written it; `Corrupt` when it is not such a database.
    pub async fn open(config: SqliteConfig) -> Result<Self> {
        let lock = ProcessLock::acquire(&config.path)?;
        let (connection, revision) = open::writer(&config).await?;
        let readers = open::readers(&config).await?;
        let (jobs, received) = mpsc::channel(QUEUE);
        let (sender, newest) = watch::channel(revision);
        let writer = Writer { connection, jobs: received, newest: sender, history: config.history, lock };
        Ok(Self { jobs, readers, newest, writer: tokio::spawn(writer.run()) })
    }

    /// Waits for the changes under way and frees the file for the next process. Dropping the store does the
    /// same, but nobody can tell when.
    pub async fn close(self) {
        drop(self.jobs);
        self.readers.close().await;
        // An error would be a panic of the writer, and it has ended all the same.
        let _ = self.writer.await;
    }

    async fn execute(&self, work: Work, subject: Subject) -> Result<u64> {
        let (reply, result) = oneshot::channel();
        let gone = subject.error(ErrorKind::Unavailable).detail("the writer has ended");
        match self.jobs.send(Job { work, subject, reply }).await {
            Ok(()) => result.await.unwrap_or(Err(gone)),
            Err(_) => Err(gone),
        }
    }
}

#[async_trait]
impl StateStore for SqliteStateStore {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(*self.newest.borrow())
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let failed = |error| Subject::new("get", "record", key.as_str()).failed(Arc::new(error));
        read::get(&self.readers, key).await.map_err(failed)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        validate_page_limit(limit).map_err(|error| error.adapter(ADAPTER))?;
        let failed = |error| Subject::new("list", "prefix", prefix).failed(Arc::new(error));
        read::list(&self.readers, prefix, after, limit).await.map_err(failed)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        validate_commit(&writes).map_err(|error| error.adapter(ADAPTER))?;
        let first = writes.first().map_or("", |write| write.key().as_str());
        let subject = Subject::new("commit", "record", first);
        self.execute(Work::Commit(writes), subject).await.map(Revision)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let source = read::History { readers: self.readers.clone(), newest: self.newest.clone() };
        follow(source, prefix, from).await
    }

    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        let valid_until = Instant::now() + ttl.get();
        let subject = Subject::new("acquire_lease", "lease", name.as_str());
        let work = Work::Acquire { name: name.clone(), holder: holder.clone(), ttl };
        let token = self.execute(work, subject).await?;
        Ok(Lease { name: name.clone(), holder: holder.clone(), token, valid_until })
    }

    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        let valid_until = Instant::now() + ttl.get();
        let subject = Subject::new("renew_lease", "lease", lease.name.as_str());
        self.execute(Work::Renew { name: lease.name.clone(), token: lease.token, ttl }, subject).await?;
        Ok(Lease { valid_until, ..lease.clone() })
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let subject = Subject::new("release_lease", "lease", lease.name.as_str());
        self.execute(Work::Release { name: lease.name.clone(), token: lease.token }, subject).await.map(drop)
    }
}
