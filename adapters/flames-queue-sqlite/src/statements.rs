//! The SQL of each call, to be run inside the writer's transaction. Times are microseconds since 1970.

use crate::queue::{DeadJob, Held};
use flames_queue::{
    ConsumerName, DeadLetter, Delay, Depth, Enqueued, Failure, JobId, Lease, LeaseRequest, LeaseToken,
    LeasedJob, MaxAttempts, Nacked, NewJob, Novelty, Page, Payload, QueueName, Reason,
};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

type Result<T> = sqlx::Result<T>;
type Db<'a> = &'a mut SqliteConnection;

pub(crate) async fn enqueue(
    db: Db<'_>,
    queue: QueueName,
    job: NewJob,
    now: i64,
    window: Duration,
) -> Result<Enqueued> {
    let Some(key) = job.dedup_key else {
        let id = insert(db, &queue, &job.payload, job.max_attempts, job.delay, now).await?;
        return Ok(Enqueued { id: job_id(id), novelty: Novelty::Fresh });
    };
    sqlx::query("DELETE FROM dedup WHERE until <= $1").bind(now).execute(&mut *db).await?;
    let first: Option<i64> = sqlx::query_scalar("SELECT job_id FROM dedup WHERE queue = $1 AND key = $2")
        .bind(queue.as_str())
        .bind(key.as_str())
        .fetch_optional(&mut *db)
        .await?;
    if let Some(first) = first {
        return Ok(Enqueued { id: job_id(first), novelty: Novelty::Duplicate });
    }
    let id = insert(db, &queue, &job.payload, job.max_attempts, job.delay, now).await?;
    sqlx::query("INSERT INTO dedup (queue, key, job_id, until) VALUES ($1, $2, $3, $4)")
        .bind(queue.as_str())
        .bind(key.as_str())
        .bind(id)
        .bind(now + micros(window))
        .execute(db)
        .await?;
    Ok(Enqueued { id: job_id(id), novelty: Novelty::Fresh })
}

/// What a look at the queue gave.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) jobs: Vec<LeasedJob>,
    /// When to look again if there was nothing; `None` if only another call can bring work.
    pub(crate) next_due: Option<i64>,
}

pub(crate) async fn lease(db: Db<'_>, queue: QueueName, request: LeaseRequest, now: i64) -> Result<Taken> {
    expire(db, &queue, now).await?;
    let expires_at = now + micros(request.visibility.get());
    let rows = sqlx::query(
        "UPDATE job SET state = 'leased', attempt = attempt + 1, consumer = $1, due = $2
         WHERE id IN (SELECT id FROM job WHERE queue = $3 AND state = 'waiting' AND due <= $4 ORDER BY due LIMIT $5)
         RETURNING id, payload, attempt, enqueued_at",
    )
    .bind(request.consumer.as_str())
    .bind(expires_at)
    .bind(queue.as_str())
    .bind(now)
    .bind(limit(request.max.get()))
    .fetch_all(&mut *db)
    .await?;
    let jobs: Vec<_> = rows.iter().map(|row| leased_job(row, &queue, expires_at)).collect::<Result<_>>()?;
    let next_due = if jobs.is_empty() { next_due(db, &queue).await? } else { None };
    Ok(Taken { jobs, next_due })
}

pub(crate) async fn extend(db: Db<'_>, held: Held, now: i64, visibility: Duration) -> Result<Option<i64>> {
    let expires_at = now + micros(visibility);
    let updated = sqlx::query(
        "UPDATE job SET due = $1 WHERE id = $2 AND queue = $3 AND attempt = $4 AND state = 'leased' AND due > $5",
    )
    .bind(expires_at)
    .bind(held.job)
    .bind(held.queue.as_str())
    .bind(held.attempt)
    .bind(now)
    .execute(db)
    .await?;
    Ok((updated.rows_affected() == 1).then_some(expires_at))
}

pub(crate) async fn ack(db: Db<'_>, held: Held, now: i64) -> Result<Option<()>> {
    let deleted = sqlx::query(
        "DELETE FROM job WHERE id = $1 AND queue = $2 AND attempt = $3 AND state = 'leased' AND due > $4",
    )
    .bind(held.job)
    .bind(held.queue.as_str())
    .bind(held.attempt)
    .bind(now)
    .execute(db)
    .await?;
    Ok((deleted.rows_affected() == 1).then_some(()))
}

pub(crate) async fn nack(
    db: Db<'_>,
    held: Held,
    reason: Reason,
    now: i64,
    backoff: Duration,
) -> Result<Option<Nacked>> {
    let failed = sqlx::query(
        "INSERT INTO failure (job_id, attempt, consumer, kind, reason)
         SELECT id, attempt, consumer, 'nacked', $1 FROM job
         WHERE id = $2 AND queue = $3 AND attempt = $4 AND state = 'leased' AND due > $5",
    )
    .bind(reason.as_str())
    .bind(held.job)
    .bind(held.queue.as_str())
    .bind(held.attempt)
    .bind(now)
    .execute(&mut *db)
    .await?;
    if failed.rows_affected() == 0 {
        return Ok(None);
    }
    let dead: bool = sqlx::query_scalar(
        "UPDATE job SET state = iif(attempt >= max_attempts, 'dead', 'waiting'), due = $1
         WHERE id = $2 RETURNING state = 'dead'",
    )
    .bind(now + micros(backoff))
    .bind(held.job)
    .fetch_one(db)
    .await?;
    Ok(Some(if dead { Nacked::Dead } else { Nacked::WillRetry }))
}

pub(crate) async fn dead_letters(
    db: Db<'_>,
    queue: QueueName,
    page: Page,
    now: i64,
) -> Result<Vec<DeadLetter>> {
    expire(db, &queue, now).await?;
    let after = page.after.as_ref().and_then(JobId::as_number).and_then(|id| i64::try_from(id).ok());
    let rows = sqlx::query(
        "SELECT id, payload, enqueued_at, max_attempts FROM job
         WHERE queue = $1 AND state = 'dead' AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(queue.as_str())
    .bind(after.unwrap_or(0))
    .bind(limit(page.limit.get() + 1))
    .fetch_all(&mut *db)
    .await?;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
    let mut failures = failures(db, &queue, first.try_get("id")?, last.try_get("id")?).await?;
    rows.iter().map(|row| dead_letter(row, &mut failures)).collect()
}

pub(crate) async fn requeue_dead(db: Db<'_>, dead: DeadJob, now: i64) -> Result<Option<JobId>> {
    expire(db, &dead.queue, now).await?;
    let row = sqlx::query(
        "DELETE FROM job WHERE id = $1 AND queue = $2 AND state = 'dead' RETURNING payload, max_attempts",
    )
    .bind(dead.job)
    .bind(dead.queue.as_str())
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let id = insert(db, &dead.queue, &payload(&row)?, max_attempts(&row)?, Delay::NONE, now).await?;
    Ok(Some(job_id(id)))
}

pub(crate) async fn purge_dead(db: Db<'_>, dead: DeadJob, now: i64) -> Result<Option<()>> {
    expire(db, &dead.queue, now).await?;
    let deleted = sqlx::query("DELETE FROM job WHERE id = $1 AND queue = $2 AND state = 'dead'")
        .bind(dead.job)
        .bind(dead.queue.as_str())
        .execute(db)
        .await?;
    Ok((deleted.rows_affected() == 1).then_some(()))
}

pub(crate) async fn depth(db: Db<'_>, queue: QueueName, now: i64) -> Result<Depth> {
    expire(db, &queue, now).await?;
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE state = 'waiting' AND due <= $1) AS ready,
                count(*) FILTER (WHERE state = 'waiting' AND due > $1) AS delayed,
                count(*) FILTER (WHERE state = 'leased') AS leased,
                count(*) FILTER (WHERE state = 'dead') AS dead,
                min(due) FILTER (WHERE state = 'waiting' AND due <= $1) AS oldest
         FROM job WHERE queue = $2",
    )
    .bind(now)
    .bind(queue.as_str())
    .fetch_one(db)
    .await?;
    let count = |name: &str| row.try_get::<i64, _>(name).map(i64::cast_unsigned);
    let oldest: Option<i64> = row.try_get("oldest")?;
    Ok(Depth {
        ready: count("ready")?,
        delayed: count("delayed")?,
        leased: count("leased")?,
        dead: count("dead")?,
        oldest_age: oldest.map(|ready_at| duration(now - ready_at)),
    })
}

/// Ends the leases that are over: their jobs wait again from that moment on, or are dead.
async fn expire(db: Db<'_>, queue: &QueueName, now: i64) -> Result<()> {
    let expired = sqlx::query(
        "INSERT INTO failure (job_id, attempt, consumer, kind, reason)
         SELECT id, attempt, consumer, 'expired', '' FROM job WHERE queue = $1 AND state = 'leased' AND due <= $2",
    )
    .bind(queue.as_str())
    .bind(now)
    .execute(&mut *db)
    .await?;
    if expired.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE job SET state = iif(attempt >= max_attempts, 'dead', 'waiting')
         WHERE queue = $1 AND state = 'leased' AND due <= $2",
    )
    .bind(queue.as_str())
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

async fn next_due(db: Db<'_>, queue: &QueueName) -> Result<Option<i64>> {
    sqlx::query_scalar("SELECT min(due) FROM job WHERE queue = $1 AND state IN ('waiting', 'leased')")
        .bind(queue.as_str())
        .fetch_one(db)
        .await
}

async fn insert(
    db: Db<'_>,
    queue: &QueueName,
    payload: &Payload,
    max_attempts: MaxAttempts,
    delay: Delay,
    now: i64,
) -> Result<i64> {
    sqlx::query_scalar(
        "INSERT INTO job (queue, payload, enqueued_at, max_attempts, due) VALUES ($1, $2, $3, $4, $5) RETURNING id",
    )
    .bind(queue.as_str())
    .bind(&payload.as_bytes()[..])
    .bind(now)
    .bind(i64::from(max_attempts.get()))
    .bind(now + micros(delay.get()))
    .fetch_one(db)
    .await
}

/// The failures of the dead jobs from `first` to `last`, by job.
async fn failures(
    db: Db<'_>,
    queue: &QueueName,
    first: i64,
    last: i64,
) -> Result<HashMap<i64, Vec<Failure>>> {
    let rows: Vec<FailureRow> = sqlx::query_as(
        "SELECT job_id, failure.attempt, failure.consumer, kind, reason
         FROM failure JOIN job ON job.id = job_id
         WHERE job_id BETWEEN $1 AND $2 AND queue = $3 AND state = 'dead' ORDER BY job_id, failure.attempt",
    )
    .bind(first)
    .bind(last)
    .bind(queue.as_str())
    .fetch_all(db)
    .await?;
    let mut by_job = HashMap::<i64, Vec<Failure>>::new();
    for row in rows {
        by_job.entry(row.job_id).or_default().push(row.into_failure()?);
    }
    Ok(by_job)
}

#[derive(FromRow)]
struct FailureRow {
    job_id: i64,
    attempt: i64,
    consumer: String,
    kind: String,
    reason: String,
}

impl FailureRow {
    fn into_failure(self) -> Result<Failure> {
        let attempt = u16::try_from(self.attempt).map_err(decode)?;
        let consumer = ConsumerName::new(self.consumer).map_err(decode)?;
        Ok(match self.kind.as_str() {
            "expired" => Failure::expired(attempt, consumer),
            _ => Failure::nacked(attempt, consumer, Reason::new(self.reason)),
        })
    }
}

fn leased_job(row: &SqliteRow, queue: &QueueName, expires_at: i64) -> Result<LeasedJob> {
    let attempt: i64 = row.try_get("attempt")?;
    let lease = Lease {
        queue: queue.clone(),
        job: job_id(row.try_get("id")?),
        token: LeaseToken::new(attempt.to_string()),
        expires_at: time(expires_at),
    };
    let attempt = u16::try_from(attempt).map_err(decode)?;
    Ok(LeasedJob { payload: payload(row)?, attempt, enqueued_at: time(row.try_get("enqueued_at")?), lease })
}

fn dead_letter(row: &SqliteRow, failures: &mut HashMap<i64, Vec<Failure>>) -> Result<DeadLetter> {
    let id = row.try_get("id")?;
    Ok(DeadLetter {
        id: job_id(id),
        payload: payload(row)?,
        enqueued_at: time(row.try_get("enqueued_at")?),
        max_attempts: max_attempts(row)?,
        failures: failures.remove(&id).unwrap_or_default(),
    })
}

fn payload(row: &SqliteRow) -> Result<Payload> {
    Payload::new(row.try_get::<Vec<u8>, _>("payload")?).map_err(decode)
}

fn max_attempts(row: &SqliteRow) -> Result<MaxAttempts> {
    let count = u16::try_from(row.try_get::<i64, _>("max_attempts")?).map_err(decode)?;
    MaxAttempts::new(count).map_err(decode)
}

fn job_id(id: i64) -> JobId {
    JobId::from_number(id.cast_unsigned())
}

/// A stored value that this program could not have written.
fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
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
