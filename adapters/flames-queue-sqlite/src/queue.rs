//! [`SqliteQueue`]: each call is one request to the writer; a lease that waits, one per wake-up.

use crate::config::SqliteQueueConfig;
use crate::error;
use crate::statements::{self, Taken};
use crate::writer::Writer;
use async_trait::async_trait;
use flames_queue::{
    DeadLetterPage, Delay, Depth, Enqueued, Error, ErrorKind, JobId, Lease, LeaseRequest, LeasedJob, Nacked,
    NewJob, Page, QueueName, Reason, Result, Visibility, WorkQueue,
};
use rusqlite::Connection;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A [`WorkQueue`] in a SQLite file.
#[derive(Debug)]
pub struct SqliteQueue {
    writer: Writer,
    dedup_window: Duration,
    bells: Mutex<HashMap<QueueName, Arc<Notify>>>,
}

impl SqliteQueue {
    /// Opens the file, makes it if it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// `InvalidInput` for a path that cannot be opened and for a file of a newer schema; `Corrupt` for a file
    /// that is no database; `Unavailable` when another process holds it.
    pub async fn open(config: SqliteQueueConfig) -> Result<Self> {
        config.migrate().await?;
        let writer = Writer::start(config.connect()?)?;
        Ok(Self { writer, dedup_window: config.dedup_window.get(), bells: Mutex::default() })
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        id: &str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        match self.writer.run(work).await {
            Some(result) => result.map_err(|error| error::of_statement(error, operation, id)),
            None => Err(error::closed(operation, id)),
        }
    }

    /// Settles the lease with a statement that says whether the lease held.
    async fn settle<T: Send + 'static>(
        &self,
        operation: &'static str,
        lease: &Lease,
        work: impl FnOnce(&Connection, &Held) -> rusqlite::Result<Option<T>> + Send + 'static,
    ) -> Result<T> {
        let Some(held) = Held::parse(lease) else { return Err(lost(operation, &lease.job)) };
        let settled = self.run(operation, lease.job.as_str(), move |db| work(db, &held)).await?;
        settled.ok_or_else(|| lost(operation, &lease.job))
    }

    fn bell(&self, queue: &QueueName) -> Arc<Notify> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(bells.entry(queue.clone()).or_default())
    }

    async fn take(&self, queue: &QueueName, request: &LeaseRequest) -> Result<Taken> {
        let (name, request) = (queue.clone(), request.clone());
        self.run("lease", queue.as_str(), move |db| statements::lease(db, &name, &request, now())).await
    }
}

#[async_trait]
impl WorkQueue for SqliteQueue {
    fn adapter(&self) -> &'static str {
        error::ADAPTER
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        let (name, window) = (queue.clone(), self.dedup_window);
        let add = self
            .run("enqueue", queue.as_str(), move |db| statements::enqueue(db, &name, &job, now(), window));
        let enqueued = add.await?;
        self.bell(queue).notify_waiters();
        Ok(enqueued)
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        let give_up = Instant::now() + request.wait.get();
        let bell = self.bell(queue);
        loop {
            let mut rings = std::pin::pin!(bell.notified());
            rings.as_mut().enable(); // before looking, so that no change in between is missed
            let taken = self.take(queue, &request).await?;
            if !taken.jobs.is_empty() || Instant::now() >= give_up {
                return Ok(taken.jobs);
            }
            let wake = taken.next_due.map_or(give_up, |due| instant_of(due).min(give_up));
            tokio::select! {
                () = rings => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        let extend = self
            .settle("extend", lease, move |db, held| statements::extend(db, held, now(), visibility.get()));
        let expires_at = statements::time(extend.await?);
        self.bell(&lease.queue).notify_waiters();
        Ok(Lease { expires_at, ..lease.clone() })
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        self.settle("ack", lease, |db, held| statements::ack(db, held, now())).await
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        let reason = reason.clone();
        let nack = self
            .settle("nack", lease, move |db, held| statements::nack(db, held, &reason, now(), backoff.get()));
        let nacked = nack.await?;
        self.bell(&lease.queue).notify_waiters();
        Ok(nacked)
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        let (name, limit) = (queue.clone(), page.limit);
        let read = self
            .run("dead_letters", queue.as_str(), move |db| statements::dead_letters(db, &name, &page, now()));
        Ok(DeadLetterPage::from_overfull(read.await?, limit))
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        let dead = DeadJob::parse(queue, id).ok_or_else(|| no_dead("requeue_dead", id))?;
        let requeue =
            self.run("requeue_dead", id.as_str(), move |db| statements::requeue_dead(db, &dead, now()));
        let requeued = requeue.await?;
        self.bell(queue).notify_waiters();
        requeued.ok_or_else(|| no_dead("requeue_dead", id))
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        let dead = DeadJob::parse(queue, id).ok_or_else(|| no_dead("purge_dead", id))?;
        let purge = self.run("purge_dead", id.as_str(), move |db| statements::purge_dead(db, &dead, now()));
        purge.await?.ok_or_else(|| no_dead("purge_dead", id))
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        let name = queue.clone();
        self.run("depth", queue.as_str(), move |db| statements::depth(db, &name, now())).await
    }
}

/// A lease as the table knows it: the attempt is its token, since each lease begins one.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) queue: QueueName,
    pub(crate) job: i64,
    pub(crate) attempt: i64,
}

impl Held {
    fn parse(lease: &Lease) -> Option<Self> {
        let job = i64::try_from(lease.job.as_number()?).ok()?;
        Some(Self { queue: lease.queue.clone(), job, attempt: lease.token.as_str().parse().ok()? })
    }
}

/// A dead job as the table knows it.
#[derive(Debug, Clone)]
pub(crate) struct DeadJob {
    pub(crate) queue: QueueName,
    pub(crate) job: i64,
}

impl DeadJob {
    fn parse(queue: &QueueName, id: &JobId) -> Option<Self> {
        Some(Self { queue: queue.clone(), job: i64::try_from(id.as_number()?).ok()? })
    }
}

/// Read when the writer gets to the request, not when the caller made it: a lease must not be old when it begins.
fn now() -> i64 {
    statements::micros(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn instant_of(due: i64) -> Instant {
    let from_now = u64::try_from(due.saturating_sub(now())).unwrap_or(0);
    Instant::now() + Duration::from_micros(from_now)
}

fn lost(operation: &'static str, job: &JobId) -> Error {
    Error::new(ErrorKind::Conflict, "lease", job.as_str())
        .operation(operation)
        .adapter(error::ADAPTER)
        .detail("the lease has expired or was settled")
}

fn no_dead(operation: &'static str, job: &JobId) -> Error {
    Error::new(ErrorKind::NotFound, "dead letter", job.as_str()).operation(operation).adapter(error::ADAPTER)
}
