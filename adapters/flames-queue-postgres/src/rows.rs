//! Rows of the tables as values of the interface.

use flames_queue::{
    ConsumerName, DeadLetter, Depth, Failure, JobId, Lease, LeaseToken, LeasedJob, MaxAttempts, Payload,
    QueueName, Reason,
};
use sqlx::FromRow;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

type Result<T> = sqlx::Result<T>;

#[derive(FromRow)]
pub(crate) struct LeasedRow {
    id: i64,
    payload: Vec<u8>,
    attempt: i16,
    enqueued_at: i64,
    due: i64,
}

impl LeasedRow {
    pub(crate) fn into_job(self, queue: &QueueName) -> Result<LeasedJob> {
        let lease = Lease {
            queue: queue.clone(),
            job: job_id(self.id),
            token: LeaseToken::new(self.attempt.to_string()),
            expires_at: time(self.due),
        };
        let attempt = u16::try_from(self.attempt).map_err(decode)?;
        Ok(LeasedJob { payload: payload(self.payload)?, attempt, enqueued_at: time(self.enqueued_at), lease })
    }
}

#[derive(FromRow)]
pub(crate) struct DeadRow {
    pub(crate) id: i64,
    payload: Vec<u8>,
    enqueued_at: i64,
    max_attempts: i16,
}

impl DeadRow {
    pub(crate) fn into_letter(self, failures: &mut HashMap<i64, Vec<Failure>>) -> Result<DeadLetter> {
        Ok(DeadLetter {
            id: job_id(self.id),
            payload: payload(self.payload)?,
            enqueued_at: time(self.enqueued_at),
            max_attempts: MaxAttempts::new(u16::try_from(self.max_attempts).map_err(decode)?)
                .map_err(decode)?,
            failures: failures.remove(&self.id).unwrap_or_default(),
        })
    }
}

#[derive(FromRow)]
pub(crate) struct FailureRow {
    job_id: i64,
    attempt: i16,
    consumer: String,
    kind: String,
    reason: String,
}

impl FailureRow {
    pub(crate) fn by_job(rows: Vec<Self>) -> Result<HashMap<i64, Vec<Failure>>> {
        let mut by_job = HashMap::<i64, Vec<Failure>>::new();
        for row in rows {
            by_job.entry(row.job_id).or_default().push(row.into_failure()?);
        }
        Ok(by_job)
    }

    fn into_failure(self) -> Result<Failure> {
        let attempt = u16::try_from(self.attempt).map_err(decode)?;
        let consumer = ConsumerName::new(self.consumer).map_err(decode)?;
        Ok(match self.kind.as_str() {
            "expired" => Failure::expired(attempt, consumer),
            _ => Failure::nacked(attempt, consumer, Reason::new(self.reason)),
        })
    }
}

#[derive(FromRow)]
pub(crate) struct DepthRow {
    ready: i64,
    delayed: i64,
    leased: i64,
    dead: i64,
    oldest: Option<i64>,
}

impl DepthRow {
    pub(crate) fn into_depth(self) -> Depth {
        Depth {
            ready: self.ready.cast_unsigned(),
            delayed: self.delayed.cast_unsigned(),
            leased: self.leased.cast_unsigned(),
            dead: self.dead.cast_unsigned(),
            oldest_age: self.oldest.map(duration),
        }
    }
}

pub(crate) fn job_id(id: i64) -> JobId {
    JobId::from_number(id.cast_unsigned())
}

pub(crate) fn row_id(id: &JobId) -> Option<i64> {
    i64::try_from(id.as_number()?).ok()
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

pub(crate) fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + duration(micros)
}

fn payload(bytes: Vec<u8>) -> Result<Payload> {
    Payload::new(bytes).map_err(decode)
}

/// A stored value that this program could not have written.
fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
