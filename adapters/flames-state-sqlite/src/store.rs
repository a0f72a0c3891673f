//! The store: hands changes to the writer and reads by itself.

use crate::error::{ADAPTER, Subject};
use crate::lock::ProcessLock;
use crate::read::{History, Readers};
use crate::writer::{Job, Work, Writer};
use crate::{SqliteConfig, checkpoint, open};
use async_trait::async_trait;
use flames_state::backend::follow;
use flames_state::{
    ErrorKind, Key, Lease, LeaseTtl, Page, Record, Result, Revision, StateStore, Watch, Write,
    validate_commit, validate_page_limit,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Jobs that may wait for the writer before callers wait to hand theirs over.
const QUEUE: usize = 1024;

/// Records in one SQLite file.
#[derive(Debug)]
pub struct SqliteStateStore {
    jobs: mpsc::Sender<Job>,
    readers: Readers,
    newest: watch::Receiver<Revision>,
    /// Ends with the writer.
    writer: oneshot::Receiver<()>,
    checkpointer: JoinHandle<()>,
}

impl SqliteStateStore {
    /// Opens the file, or makes it, and brings its schema up to date.
    ///
    /// # Errors
    /// `Conflict` when another process has it open; `PermissionDenied` when the folder cannot be written;
    /// `Unsupported` when a newer Flames has written it; `Corrupt` when it is not such a database.
    pub async fn open(config: SqliteConfig) -> Result<Self> {
        let lock = ProcessLock::acquire(&config.path)?;
        open::migrate(&config).await?;
        let (connection, revision) = open::writer(&config)?;
        let readers = Readers::open(&config)?;
        let (jobs, received) = mpsc::channel(QUEUE);
        let (sender, newest) = watch::channel(revision);
        let (written, log) = watch::channel(0);
        let writer =
            Writer { connection, jobs: received, newest: sender, written, history: config.history, lock };
        let checkpointer = tokio::spawn(checkpoint::follow(open::checkpointer(&config)?, log));
        let writer = start(writer)?;
        Ok(Self { jobs, readers, newest, writer, checkpointer })
    }

    /// Waits for the changes under way and frees the file for the next process. Dropping the store does the
    /// same, but nobody can tell when.
    pub async fn close(self) {
        drop(self.jobs);
        self.readers.close();
        // An error is the end too.
        let _ = self.writer.await;
        let _ = self.checkpointer.await;
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

/// A thread of its own, which no runtime waits for: what is not acknowledged may be lost.
fn start(writer: Writer) -> Result<oneshot::Receiver<()>> {
    let (over, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("state-writer".to_owned()).spawn(move || {
        writer.run();
        let _ = over.send(());
    });
    let failed =
        |error| Subject::new("open", "thread", "state-writer").error(ErrorKind::Unavailable).source(error);
    thread.map_err(failed)?;
    Ok(ended)
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
        self.readers.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        validate_page_limit(limit).map_err(|error| error.adapter(ADAPTER))?;
        self.readers.list(prefix, after, limit).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        validate_commit(&writes).map_err(|error| error.adapter(ADAPTER))?;
        let first = writes.first().map_or("", |write| write.key().as_str());
        let subject = Subject::new("commit", "record", first);
        self.execute(Work::Commit(writes), subject).await.map(Revision)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let source = History { readers: self.readers.clone(), newest: self.newest.clone() };
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
