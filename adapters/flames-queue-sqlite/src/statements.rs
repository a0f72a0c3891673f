//! The SQL of each call, to be run inside the writer's transaction. Times are microseconds since 1970.

use crate::queue::{DeadJob, Held};
use flames_queue::{
    ConsumerName, DeadLetter, Delay, Depth, Enqueued, Failure, JobId, Lease, LeaseRequest, LeaseToken,
    LeasedJob, MaxAttempts, Nacked, NewJob, Novelty, Page, Payload, QueueName, Reason,
};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

type Result<T> = rusqlite::Result<T>;

pub(crate) fn enqueue(
    db: &Connection,
    queue: &QueueName,
    job: &NewJob,
    now: i64,
    window: Duration,
) -> Result<Enqueued> {
    let Some(key) = &job.dedup_key else {
        return Ok(Enqueued { id: job_id(insert(db, queue, &New::of(job), now)?), novelty: Novelty::Fresh });
    };
    execute(db, "DELETE FROM dedup WHERE until <= ?1", [now])?;
    let first: Option<i64> = db
        .prepare_cached("SELECT job_id FROM dedup WHERE queue = ?1 AND key = ?2")?
        .query_row([queue.as_str(), key.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(first) = first {
        return Ok(Enqueued { id: job_id(first), novelty: Novelty::Duplicate });
    }
    let id = insert(db, queue, &New::of(job), now)?;
    let remember = "INSERT INTO dedup (queue, key, job_id, until) VALUES (?1, ?2, ?3, ?4)";
    execute(db, remember, params![queue.as_str(), key.as_str(), id, now + micros(window)])?;
    Ok(Enqueued { id: job_id(id), novelty: Novelty::Fresh })
}

/// What a look at the queue gave.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) jobs: Vec<LeasedJob>,
    /// When to look again if there was nothing; `None` if only another call can bring work.
    pub(crate) next_due: Option<i64>,
}

pub(crate) fn lease(db: &Connection, queue: &QueueName, request: &LeaseRequest, now: i64) -> Result<Taken> {
    expire(db, queue, now)?;
    let expires_at = now + micros(request.visibility.get());
    let (consumer, max) = (request.consumer.as_str(), limit(request.max.get()));
    let mut take = db.prepare_cached(
        "UPDATE job SET state = 'leased', attempt = attempt + 1, consumer = ?1, due = ?2
         WHERE id IN (SELECT id FROM job WHERE queue = ?3 AND state = 'waiting' AND due <= ?4 ORDER BY due LIMIT ?5)
         RETURNING id, payload, attempt, enqueued_at",
    )?;
    let taken = take.query_map(params![consumer, expires_at, queue.as_str(), now, max], |row| {
        leased_job(row, queue, expires_at)
    })?;
    let jobs: Vec<_> = taken.collect::<Result<_>>()?;
    let next_due = if jobs.is_empty() { next_due(db, queue)? } else { None };
    Ok(Taken { jobs, next_due })
}

pub(crate) fn extend(db: &Connection, held: &Held, now: i64, visibility: Duration) -> Result<Option<i64>> {
    let expires_at = now + micros(visibility);
    let extend = "UPDATE job SET due = ?1
         WHERE id = ?2 AND queue = ?3 AND attempt = ?4 AND state = 'leased' AND due > ?5";
    let extended =
        execute(db, extend, params![expires_at, held.job, held.queue.as_str(), held.attempt, now])?;
    Ok((extended == 1).then_some(expires_at))
}

pub(crate) fn ack(db: &Connection, held: &Held, now: i64) -> Result<Option<()>> {
    let delete =
        "DELETE FROM job WHERE id = ?1 AND queue = ?2 AND attempt = ?3 AND state = 'leased' AND due > ?4";
    let deleted = execute(db, delete, params![held.job, held.queue.as_str(), held.attempt, now])?;
    Ok((deleted == 1).then_some(()))
}

pub(crate) fn nack(
    db: &Connection,
    held: &Held,
    reason: &Reason,
    now: i64,
    backoff: Duration,
) -> Result<Option<Nacked>> {
    let fail = "INSERT INTO failure (job_id, attempt, consumer, kind, reason)
         SELECT id, attempt, consumer, 'nacked', ?1 FROM job
         WHERE id = ?2 AND queue = ?3 AND attempt = ?4 AND state = 'leased' AND due > ?5";
    let failed =
        execute(db, fail, params![reason.as_str(), held.job, held.queue.as_str(), held.attempt, now])?;
    if failed == 0 {
        return Ok(None);
    }
    let release = "UPDATE job SET state = iif(attempt >= max_attempts, 'dead', 'waiting'), due = ?1
         WHERE id = ?2 RETURNING state = 'dead'";
    let dead: bool =
        db.prepare_cached(release)?.query_row([now + micros(backoff), held.job], |row| row.get(0))?;
    Ok(Some(if dead { Nacked::Dead } else { Nacked::WillRetry }))
}

pub(crate) fn dead_letters(
    db: &Connection,
    queue: &QueueName,
    page: &Page,
    now: i64,
) -> Result<Vec<DeadLetter>> {
    expire(db, queue, now)?;
    let after = page.after.as_ref().and_then(JobId::as_number).and_then(|id| i64::try_from(id).ok());
    let mut read = db.prepare_cached(
        "SELECT id, payload, enqueued_at, max_attempts FROM job
         WHERE queue = ?1 AND state = 'dead' AND id > ?2 ORDER BY id LIMIT ?3",
    )?;
    let place = params![queue.as_str(), after.unwrap_or(0), limit(page.limit.get() + 1)];
    let dead: Vec<Dead> = read.query_map(place, Dead::of)?.collect::<Result<_>>()?;
    let (Some(first), Some(last)) = (dead.first(), dead.last()) else { return Ok(Vec::new()) };
    let mut failures = failures(db, queue, first.id, last.id)?;
    Ok(dead.into_iter().map(|dead| dead.into_letter(&mut failures)).collect())
}

pub(crate) fn requeue_dead(db: &Connection, dead: &DeadJob, now: i64) -> Result<Option<JobId>> {
    expire(db, &dead.queue, now)?;
    let take =
        "DELETE FROM job WHERE id = ?1 AND queue = ?2 AND state = 'dead' RETURNING payload, max_attempts";
    let taken = db
        .prepare_cached(take)?
        .query_row(params![dead.job, dead.queue.as_str()], |row| {
            Ok((payload(row, 0)?, max_attempts(row, 1)?))
        })
        .optional()?;
    let Some((payload, max_attempts)) = taken else { return Ok(None) };
    let again = New { payload: &payload, max_attempts, delay: Delay::NONE };
    Ok(Some(job_id(insert(db, &dead.queue, &again, now)?)))
}

pub(crate) fn purge_dead(db: &Connection, dead: &DeadJob, now: i64) -> Result<Option<()>> {
    expire(db, &dead.queue, now)?;
    let delete = "DELETE FROM job WHERE id = ?1 AND queue = ?2 AND state = 'dead'";
    Ok((execute(db, delete, params![dead.job, dead.queue.as_str()])? == 1).then_some(()))
}

pub(crate) fn depth(db: &Connection, queue: &QueueName, now: i64) -> Result<Depth> {
    expire(db, queue, now)?;
    let mut count = db.prepare_cached(
        "SELECT count(*) FILTER (WHERE state = 'waiting' AND due <= ?1),
                count(*) FILTER (WHERE state = 'waiting' AND due > ?1),
                count(*) FILTER (WHERE state = 'leased'),
                count(*) FILTER (WHERE state = 'dead'),
                min(due) FILTER (WHERE state = 'waiting' AND due <= ?1)
         FROM job WHERE queue = ?2",
    )?;
    count.query_row(params![now, queue.as_str()], |row| {
        let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let oldest: Option<i64> = row.get(4)?;
        Ok(Depth {
            ready: count(0)?,
            delayed: count(1)?,
            leased: count(2)?,
            dead: count(3)?,
            oldest_age: oldest.map(|ready_at| duration(now - ready_at)),
        })
    })
}

/// Ends the leases that are over: their jobs wait again from that moment on, or are dead.
fn expire(db: &Connection, queue: &QueueName, now: i64) -> Result<()> {
    let note = "INSERT INTO failure (job_id, attempt, consumer, kind, reason)
         SELECT id, attempt, consumer, 'expired', '' FROM job WHERE queue = ?1 AND state = 'leased' AND due <= ?2";
    if execute(db, note, params![queue.as_str(), now])? == 0 {
        return Ok(());
    }
    let release = "UPDATE job SET state = iif(attempt >= max_attempts, 'dead', 'waiting')
         WHERE queue = ?1 AND state = 'leased' AND due <= ?2";
    execute(db, release, params![queue.as_str(), now]).map(drop)
}

/// The first entry of the index for each state: one look-up for both states would read all that wait.
const NEXT_DUE: &str = "SELECT min(due) FROM (
         SELECT min(due) AS due FROM job WHERE queue = ?1 AND state = 'waiting'
         UNION ALL SELECT min(due) FROM job WHERE queue = ?1 AND state = 'leased')";

fn next_due(db: &Connection, queue: &QueueName) -> Result<Option<i64>> {
    db.prepare_cached(NEXT_DUE)?.query_row([queue.as_str()], |row| row.get(0))
}

/// What is stored of a job that comes in.
struct New<'a> {
    payload: &'a Payload,
    max_attempts: MaxAttempts,
    delay: Delay,
}

impl<'a> New<'a> {
    fn of(job: &'a NewJob) -> Self {
        Self { payload: &job.payload, max_attempts: job.max_attempts, delay: job.delay }
    }
}

fn insert(db: &Connection, queue: &QueueName, new: &New<'_>, now: i64) -> Result<i64> {
    let insert =
        "INSERT INTO job (queue, payload, enqueued_at, max_attempts, due) VALUES (?1, ?2, ?3, ?4, ?5)";
    let (max_attempts, due) = (i64::from(new.max_attempts.get()), now + micros(new.delay.get()));
    execute(db, insert, params![queue.as_str(), &new.payload.as_bytes()[..], now, max_attempts, due])?;
    Ok(db.last_insert_rowid())
}

/// The failures of the dead jobs from `first` to `last`, by job.
fn failures(db: &Connection, queue: &QueueName, first: i64, last: i64) -> Result<HashMap<i64, Vec<Failure>>> {
    let mut read = db.prepare_cached(
        "SELECT job_id, failure.attempt, failure.consumer, kind, reason
         FROM failure JOIN job ON job.id = job_id
         WHERE job_id BETWEEN ?1 AND ?2 AND queue = ?3 AND state = 'dead' ORDER BY job_id, failure.attempt",
    )?;
    let mut rows = read.query(params![first, last, queue.as_str()])?;
    let mut by_job = HashMap::<i64, Vec<Failure>>::new();
    while let Some(row) = rows.next()? {
        by_job.entry(row.get(0)?).or_default().push(failure(row)?);
    }
    Ok(by_job)
}

fn failure(row: &Row<'_>) -> Result<Failure> {
    let attempt = u16::try_from(row.get::<_, i64>(1)?).map_err(|error| unreadable(1, error))?;
    let consumer = ConsumerName::new(row.get::<_, String>(2)?).map_err(|error| unreadable(2, error))?;
    Ok(match row.get::<_, String>(3)?.as_str() {
        "expired" => Failure::expired(attempt, consumer),
        _ => Failure::nacked(attempt, consumer, Reason::new(row.get::<_, String>(4)?)),
    })
}

fn leased_job(row: &Row<'_>, queue: &QueueName, expires_at: i64) -> Result<LeasedJob> {
    let attempt: i64 = row.get("attempt")?;
    let lease = Lease {
        queue: queue.clone(),
        job: job_id(row.get("id")?),
        token: LeaseToken::new(attempt.to_string()),
        expires_at: time(expires_at),
    };
    let attempt = u16::try_from(attempt).map_err(|error| unreadable(2, error))?;
    Ok(LeasedJob { payload: payload(row, 1)?, attempt, enqueued_at: time(row.get("enqueued_at")?), lease })
}

/// A dead job without its failures.
struct Dead {
    id: i64,
    payload: Payload,
    enqueued_at: i64,
    max_attempts: MaxAttempts,
}

impl Dead {
    fn of(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            payload: payload(row, 1)?,
            enqueued_at: row.get(2)?,
            max_attempts: max_attempts(row, 3)?,
        })
    }

    fn into_letter(self, failures: &mut HashMap<i64, Vec<Failure>>) -> DeadLetter {
        DeadLetter {
            id: job_id(self.id),
            payload: self.payload,
            enqueued_at: time(self.enqueued_at),
            max_attempts: self.max_attempts,
            failures: failures.remove(&self.id).unwrap_or_default(),
        }
    }
}

fn payload(row: &Row<'_>, column: usize) -> Result<Payload> {
    Payload::new(row.get::<_, Vec<u8>>(column)?).map_err(|error| unreadable(column, error))
}

fn max_attempts(row: &Row<'_>, column: usize) -> Result<MaxAttempts> {
    let count = u16::try_from(row.get::<_, i64>(column)?).map_err(|error| unreadable(column, error))?;
    MaxAttempts::new(count).map_err(|error| unreadable(column, error))
}

fn execute(db: &Connection, statement: &str, values: impl rusqlite::Params) -> Result<usize> {
    db.prepare_cached(statement)?.execute(values)
}

fn job_id(id: i64) -> JobId {
    JobId::from_number(id.cast_unsigned())
}

/// A stored value that this program could not have written.
fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Null, Box::new(error))
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + duration(micros)
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A delete of a sandbox adds a job for much later; the worker looks at the queue after each.
    #[test]
    fn a_look_at_the_queue_reads_none_of_the_jobs_that_wait() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("../migrations/0001_queue.sql")).unwrap();
        let plan: Vec<String> = db
            .prepare(&format!("EXPLAIN QUERY PLAN {NEXT_DUE}"))
            .unwrap()
            .query_map(["work"], |row| row.get("detail"))
            .unwrap()
            .collect::<Result<_>>()
            .unwrap();
        let looks = plan.iter().filter(|step| step.contains("job_due (queue=? AND state=?)")).count();
        assert_eq!(looks, 2, "{plan:#?}");
    }
}
