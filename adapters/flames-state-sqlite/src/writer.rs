//! The writer: the one thread that changes the database.
//!
//! A thread and not a task: a transaction is some thousand instructions per job, and handing each statement to another
//! thread would cost more than all of them.

use crate::error::{ADAPTER, Subject};
use crate::lock::ProcessLock;
use crate::sql;
use flames_state::{Error, ErrorKind, Key, LeaseTtl, Result, Revision, Write};
use rusqlite::{Connection, TransactionBehavior};
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

impl Work {
    /// What it adds to the log, about: a value is in its record and in its event, and each change touches some pages.
    fn log_bytes(&self) -> u64 {
        const PAGES: u64 = 8 << 10;
        let Self::Commit(writes) = self else { return PAGES };
        let value = |write: &Write| match write {
            Write::Put { value, .. } => value.len() as u64,
            Write::Delete { .. } | Write::Check { .. } => 0,
        };
        writes.iter().map(|write| PAGES + 2 * value(write)).sum()
    }
}

/// Ends when the last sender of jobs is gone, after the jobs that were sent.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) jobs: mpsc::Receiver<Job>,
    pub(crate) newest: watch::Sender<Revision>,
    /// Bytes that went to the log so far, about.
    pub(crate) written: watch::Sender<u64>,
    pub(crate) history: u64,
    pub(crate) lock: ProcessLock,
}

/// Outer: the transaction failed. Inner: this job was refused, and wrote nothing.
type Outcome<T> = sql::Result<Result<T>>;

impl Writer {
    pub(crate) fn run(mut self) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while self.jobs.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
            self.execute(&mut group);
        }
        // Nobody is left to be told; what was acknowledged is on the disk.
        let _ = self.connection.close();
        drop(self.lock);
    }

    /// Replies only after the commit, which waits for the disk.
    fn execute(&mut self, group: &mut Vec<Job>) {
        match self.transact(group) {
            Ok((newest, results)) => {
                self.newest.send_replace(newest);
                let bytes: u64 = group.iter().map(|job| job.work.log_bytes()).sum();
                self.written.send_modify(|written| *written += bytes);
                for (job, result) in group.drain(..).zip(results) {
                    let _ = job.reply.send(result);
                }
            }
            Err(error) => fail_all(group, &Arc::new(error)),
        }
    }

    fn transact(&mut self, group: &[Job]) -> sql::Result<(Revision, Vec<Result<u64>>)> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql::Bounds { oldest, newest: before } = sql::bounds(&transaction)?;
        let mut newest = before;
        let mut results = Vec::with_capacity(group.len());
        for job in group {
            results.push(execute(&transaction, &job.work, &mut newest)?);
        }
        if newest != before {
            sql::set_revision(&transaction, newest)?;
        }
        let keep_after = newest.0.saturating_sub(self.history);
        if keep_after >= oldest.0 + PRUNE_EVERY {
            sql::prune(&transaction, Revision(keep_after))?;
        }
        transaction.commit()?;
        Ok((newest, results))
    }
}

fn fail_all(group: &mut Vec<Job>, error: &Arc<rusqlite::Error>) {
    for job in group.drain(..) {
        let _ = job.reply.send(Err(job.subject.failed(error.clone())));
    }
}

fn execute(connection: &Connection, work: &Work, newest: &mut Revision) -> Outcome<u64> {
    match work {
        Work::Commit(writes) => commit(connection, writes, newest),
        Work::Acquire { name, holder, ttl } => acquire(connection, name, holder, *ttl),
        Work::Renew { name, token, ttl } => renew(connection, name, *token, *ttl),
        Work::Release { name, token } => sql::drop_lease(connection, name, *token).map(|()| Ok(0)),
    }
}

fn commit(connection: &Connection, writes: &[Write], newest: &mut Revision) -> Outcome<u64> {
    for write in writes {
        let current = sql::record_revision(connection, write.key())?;
        if let Err(error) = write.precondition().check(write.key(), current) {
            return Ok(Err(error.adapter(ADAPTER)));
        }
    }
    *newest = newest.next();
    for (seq, write) in writes.iter().enumerate() {
        apply(connection, write, (*newest, seq))?;
    }
    Ok(Ok(newest.0))
}

fn apply(connection: &Connection, write: &Write, at: (Revision, usize)) -> sql::Result<()> {
    match write {
        Write::Put { key, value, .. } => {
            sql::put(connection, key, value, at.0)?;
            sql::add_event(connection, at, key, Some(value))
        }
        Write::Delete { key, .. } if sql::delete(connection, key)? => {
            sql::add_event(connection, at, key, None)
        }
        Write::Delete { .. } | Write::Check { .. } => Ok(()),
    }
}

fn acquire(connection: &Connection, name: &Key, holder: &Key, ttl: LeaseTtl) -> Outcome<u64> {
    let now = now_micros();
    match sql::lease_holder(connection, name, now)? {
        Some(other) => Ok(Err(conflict("acquire_lease", name, format!("held by `{other}`")))),
        None => sql::take_lease(connection, name, holder, now + ttl.as_micros()).map(Ok),
    }
}

fn renew(connection: &Connection, name: &Key, token: u64, ttl: LeaseTtl) -> Outcome<u64> {
    let now = now_micros();
    let extended = sql::extend_lease(connection, (name, token), now, now + ttl.as_micros())?;
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
