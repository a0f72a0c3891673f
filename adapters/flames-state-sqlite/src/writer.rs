//! The writer: the one task that changes the database.

use crate::error::{ADAPTER, Subject};
use crate::lock::ProcessLock;
use crate::sql;
use flames_state::{Error, ErrorKind, Key, LeaseTtl, Record, Result, Revision, Write};
use sqlx::{Connection, SqliteConnection};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};

/// Most jobs in one transaction: bounds how long the first waits for the last.
const MAX_GROUP: usize = 256;
/// Events are pruned once per so many commits.
const PRUNE_EVERY: u64 = 100;

/// A change that somebody waits for.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) subject: Subject,
    /// Gets the revision of a commit, the token of an acquired lease, or 0.
    pub(crate) reply: oneshot::Sender<Result<u64>>,
}

#[derive(Debug)]
pub(crate) enum Work {
    Commit(Vec<Write>),
    Acquire { name: Key, holder: Key, ttl: LeaseTtl },
    Renew { name: Key, token: u64, ttl: LeaseTtl },
    Release { name: Key, token: u64 },
}

/// Ends when the last sender of jobs is gone, after the jobs that were sent.
pub(crate) struct Writer {
    pub(crate) connection: SqliteConnection,
    pub(crate) jobs: mpsc::Receiver<Job>,
    pub(crate) newest: watch::Sender<Revision>,
    pub(crate) history: u64,
    pub(crate) lock: ProcessLock,
}

/// Outer: the transaction failed. Inner: this job was refused, and wrote nothing.
type Outcome<T> = sqlx::Result<Result<T>>;

impl Writer {
    pub(crate) async fn run(mut self) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while self.jobs.recv_many(&mut group, MAX_GROUP).await > 0 {
            self.execute(&mut group).await;
        }
        // Nobody is left to be told; what was acknowledged is on the disk.
        let _ = self.connection.close().await;
        drop(self.lock);
    }

    /// Replies only after the commit, which waits for the disk.
    async fn execute(&mut self, group: &mut Vec<Job>) {
        match self.transact(group).await {
            Ok((newest, results)) => {
                self.newest.send_replace(newest);
                for (job, result) in group.drain(..).zip(results) {
                    let _ = job.reply.send(result);
                }
            }
            Err(error) => fail_all(group, &Arc::new(error)),
        }
    }

    async fn transact(&mut self, group: &[Job]) -> sqlx::Result<(Revision, Vec<Result<u64>>)> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let sql::Bounds { oldest, newest: before } = sql::bounds(&mut transaction).await?;
        let mut newest = before;
        let mut results = Vec::with_capacity(group.len());
        for job in group {
            results.push(execute(&mut transaction, &job.work, &mut newest).await?);
        }
        if newest != before {
            sql::set_revision(&mut transaction, newest).await?;
        }
        let keep_after = newest.0.saturating_sub(self.history);
        if keep_after >= oldest.0 + PRUNE_EVERY {
            sql::prune(&mut transaction, Revision(keep_after)).await?;
        }
        transaction.commit().await?;
        Ok((newest, results))
    }
}

fn fail_all(group: &mut Vec<Job>, error: &Arc<sqlx::Error>) {
    for job in group.drain(..) {
        let _ = job.reply.send(Err(job.subject.failed(error.clone())));
    }
}

async fn execute(connection: &mut SqliteConnection, work: &Work, newest: &mut Revision) -> Outcome<u64> {
    match work {
        Work::Commit(writes) => commit(connection, writes, newest).await,
        Work::Acquire { name, holder, ttl } => acquire(connection, name, holder, *ttl).await,
        Work::Renew { name, token, ttl } => renew(connection, name, *token, *ttl).await,
        Work::Release { name, token } => sql::drop_lease(connection, name, *token).await.map(|()| Ok(0)),
    }
}

async fn commit(connection: &mut SqliteConnection, writes: &[Write], newest: &mut Revision) -> Outcome<u64> {
    for write in writes {
        let current = sql::record_revision(connection, write.key()).await?;
        if let Err(error) = write.precondition().check(write.key(), current) {
            return Ok(Err(error.adapter(ADAPTER)));
        }
    }
    *newest = newest.next();
    for (seq, write) in writes.iter().enumerate() {
        apply(connection, write, (*newest, seq)).await?;
    }
    Ok(Ok(newest.0))
}

async fn apply(connection: &mut SqliteConnection, write: &Write, at: (Revision, usize)) -> sqlx::Result<()> {
    match write {
        Write::Put { key, value, .. } => {
            let record = Record { key: key.clone(), value: value.clone(), revision: at.0 };
            sql::put(connection, &record).await?;
            sql::add_event(connection, at, key, Some(value)).await
        }
        Write::Delete { key, .. } if sql::delete(connection, key).await? => {
            sql::add_event(connection, at, key, None).await
        }
        Write::Delete { .. } | Write::Check { .. } => Ok(()),
    }
}

async fn acquire(connection: &mut SqliteConnection, name: &Key, holder: &Key, ttl: LeaseTtl) -> Outcome<u64> {
    let now = now_micros();
    match sql::lease_holder(connection, name, now).await? {
        Some(other) => Ok(Err(conflict("acquire_lease", name, format!("held by `{other}`")))),
        None => sql::take_lease(connection, name, holder, now + ttl.as_micros()).await.map(Ok),
    }
}

async fn renew(connection: &mut SqliteConnection, name: &Key, token: u64, ttl: LeaseTtl) -> Outcome<u64> {
    let now = now_micros();
    let extended = sql::extend_lease(connection, (name, token), now, now + ttl.as_micros()).await?;
    Ok(if extended { Ok(0) } else { Err(conflict("renew_lease", name, "it is over".to_owned())) })
}

fn conflict(operation: &'static str, name: &Key, detail: String) -> Error {
    Subject::new(operation, "lease", name.as_str()).error(ErrorKind::Conflict).detail(detail)
}

/// A lease must mean the same after a restart, so it ends by the wall clock.
fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
