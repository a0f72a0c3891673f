//! [`PostgresQueue`]: each call is one statement; a lease that waits, one per wake-up.

use crate::bells::Bells;
use crate::config::PostgresQueueConfig;
use crate::rows::{DeadRow, DepthRow, FailureRow, LeasedRow, duration, job_id, micros, row_id, time};
use crate::{error, statements};
use async_trait::async_trait;
use flames_queue::{
    DeadLetter, DeadLetterPage, Delay, Depth, Enqueued, Error, ErrorKind, JobId, Lease, LeaseRequest,
    LeasedJob, Nacked, NewJob, Novelty, Page, QueueName, Reason, Result, Visibility, WorkQueue,
};
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// A [`WorkQueue`] in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresQueue {
    pool: PgPool,
    bells: Bells,
    call_timeout: Duration,
    dedup_window: Duration,
}

/// A migration waits for the one that another node runs.
const MIGRATE_WITHIN: Duration = Duration::from_secs(60);
const SCHEMA: &str = "flames_queue";

impl PostgresQueue {
    /// Connects, and brings the schema up to date under an advisory lock.
    ///
    /// # Errors
    /// `Unavailable` when the database cannot be reached; `PermissionDenied` for wrong credentials;
    /// `InvalidInput` for a database that does not exist or has a newer schema.
    pub async fn open(config: PostgresQueueConfig) -> Result<Self> {
        let (pool, place) = (config.pool(), config.place());
        match tokio::time::timeout(MIGRATE_WITHIN, migrate(&pool, &place)).await {
            Ok(migrated) => migrated?,
            Err(_) => return Err(error::timed_out("open", &place)),
        }
        let bells = Bells::start(config.listening_pool());
        let dedup_window = config.dedup_window.get();
        Ok(Self { pool, bells, call_timeout: config.call_timeout, dedup_window })
    }

    /// Bounds a call, and says what it was about when it fails.
    async fn call<T>(
        &self,
        operation: &'static str,
        id: &str,
        call: impl Future<Output = sqlx::Result<T>> + Send,
    ) -> Result<T> {
        match tokio::time::timeout(self.call_timeout, call).await {
            Ok(result) => result.map_err(|error| error::from_sqlx(error, operation, id)),
            Err(_) => Err(error::timed_out(operation, id)),
        }
    }

    async fn add(&self, queue: &QueueName, job: NewJob) -> sqlx::Result<Enqueued> {
        let statement = if job.dedup_key.is_some() { statements::ENQUEUE_ONCE } else { statements::ENQUEUE };
        let mut add = sqlx::query_as(statement)
            .bind(queue.as_str())
            .bind(&job.payload.as_bytes()[..])
            .bind(job.max_attempts.get().cast_signed())
            .bind(micros(job.delay.get()));
        if let Some(key) = &job.dedup_key {
            add = add.bind(key.as_str()).bind(micros(self.dedup_window));
        }
        let added: Option<(i64, String)> = add.fetch_optional(&self.pool).await?;
        match (added, job.dedup_key) {
            (Some((id, _)), _) => Ok(Enqueued { id: job_id(id), novelty: Novelty::Fresh }),
            (None, Some(key)) => self.duplicate(queue, key.as_str()).await,
            (None, None) => Err(sqlx::Error::RowNotFound),
        }
    }

    async fn duplicate(&self, queue: &QueueName, key: &str) -> sqlx::Result<Enqueued> {
        let first = sqlx::query_scalar(statements::FIRST_OF_KEY).bind(queue.as_str()).bind(key);
        Ok(Enqueued { id: job_id(first.fetch_one(&self.pool).await?), novelty: Novelty::Duplicate })
    }

    async fn take(&self, queue: &QueueName, request: &LeaseRequest) -> sqlx::Result<Taken> {
        let rows: Vec<LeasedRow> = sqlx::query_as(statements::LEASE)
            .bind(queue.as_str())
            .bind(request.consumer.as_str())
            .bind(micros(request.visibility.get()))
            .bind(limit(request.max.get()))
            .fetch_all(&self.pool)
            .await?;
        if rows.is_empty() {
            let next = sqlx::query_scalar(statements::NEXT_DUE).bind(queue.as_str());
            return Ok(Taken::NothingUntil(next.fetch_one(&self.pool).await?));
        }
        rows.into_iter().map(|row| row.into_job(queue)).collect::<sqlx::Result<_>>().map(Taken::Jobs)
    }

    /// Runs a statement whose parameters begin with the lease, and which gives a row if that holds.
    async fn settle<T>(
        &self,
        operation: &'static str,
        lease: &Lease,
        bind: impl FnOnce(Settling<T>) -> Settling<T>,
    ) -> Result<T>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        let statement = match operation {
            "extend" => statements::EXTEND,
            "nack" => statements::NACK,
            _ => statements::ACK,
        };
        let (Some(job), Ok(attempt)) = (row_id(&lease.job), lease.token.as_str().parse::<i16>()) else {
            return Err(lost(operation, &lease.job));
        };
        let settling =
            sqlx::query_as(statement).bind(job).bind(lease.queue.as_str().to_owned()).bind(attempt);
        let settled =
            self.call(operation, lease.job.as_str(), bind(settling).fetch_optional(&self.pool)).await?;
        settled.ok_or_else(|| lost(operation, &lease.job))
    }

    async fn expire(&self, queue: &QueueName) -> sqlx::Result<()> {
        sqlx::query(statements::EXPIRE).bind(queue.as_str()).execute(&self.pool).await.map(|_| ())
    }

    async fn read_dead(&self, queue: &QueueName, page: &Page) -> sqlx::Result<Vec<DeadLetter>> {
        self.expire(queue).await?;
        let rows: Vec<DeadRow> = sqlx::query_as(statements::DEAD_LETTERS)
            .bind(queue.as_str())
            .bind(page.after.as_ref().and_then(row_id).unwrap_or(0))
            .bind(limit(page.limit.get() + 1))
            .fetch_all(&self.pool)
            .await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let failures = sqlx::query_as(statements::FAILURES).bind(ids).fetch_all(&self.pool).await?;
        let mut failures = FailureRow::by_job(failures)?;
        rows.into_iter().map(|row| row.into_letter(&mut failures)).collect()
    }

    /// Runs a statement about one dead job; `None` if it is not dead.
    async fn change_dead<T>(
        &self,
        statement: &'static str,
        queue: &QueueName,
        job: i64,
    ) -> sqlx::Result<Option<T>>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        self.expire(queue).await?;
        sqlx::query_as(statement).bind(job).bind(queue.as_str()).fetch_optional(&self.pool).await
    }

    async fn count(&self, queue: &QueueName) -> sqlx::Result<Depth> {
        self.expire(queue).await?;
        let row: DepthRow =
            sqlx::query_as(statements::DEPTH).bind(queue.as_str()).fetch_one(&self.pool).await?;
        Ok(row.into_depth())
    }
}

type Settling<T> = sqlx::query::QueryAs<'static, sqlx::Postgres, T, sqlx::postgres::PgArguments>;

/// What a look at the queue gave.
enum Taken {
    Jobs(Vec<LeasedJob>),
    /// Nothing before so many microseconds are over; nothing at all before a notification if `None`.
    NothingUntil(Option<i64>),
}

#[async_trait]
impl WorkQueue for PostgresQueue {
    fn adapter(&self) -> &'static str {
        error::ADAPTER
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        self.call("enqueue", queue.as_str(), self.add(queue, job)).await
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        let give_up = Instant::now() + request.wait.get();
        let bell = self.bells.of(queue);
        loop {
            let mut rings = std::pin::pin!(bell.notified());
            rings.as_mut().enable(); // before looking, so that no change in between is missed
            let next_due = match self.call("lease", queue.as_str(), self.take(queue, &request)).await? {
                Taken::Jobs(jobs) => return Ok(jobs),
                Taken::NothingUntil(_) if Instant::now() >= give_up => return Ok(Vec::new()),
                Taken::NothingUntil(micros) => micros.map(|micros| Instant::now() + duration(micros)),
            };
            let wake = next_due.map_or(give_up, |due| due.min(give_up));
            tokio::select! {
                () = rings => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        let bind = |extend: Settling<(i64, String)>| extend.bind(micros(visibility.get()));
        let (due, _) = self.settle("extend", lease, bind).await?;
        Ok(Lease { expires_at: time(due), ..lease.clone() })
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        self.settle("ack", lease, |ack: Settling<(i64,)>| ack).await.map(|_| ())
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        let reason = reason.as_str().to_owned();
        let bind = |nack: Settling<(bool, String)>| nack.bind(reason).bind(micros(backoff.get()));
        let (dead, _) = self.settle("nack", lease, bind).await?;
        Ok(if dead { Nacked::Dead } else { Nacked::WillRetry })
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        let letters = self.call("dead_letters", queue.as_str(), self.read_dead(queue, &page)).await?;
        Ok(DeadLetterPage::from_overfull(letters, page.limit))
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        let job = row_id(id).ok_or_else(|| no_dead("requeue_dead", id))?;
        let requeue = self.change_dead::<(i64, String)>(statements::REQUEUE_DEAD, queue, job);
        let requeued = self.call("requeue_dead", id.as_str(), requeue).await?;
        requeued.map(|(new, _)| job_id(new)).ok_or_else(|| no_dead("requeue_dead", id))
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        let job = row_id(id).ok_or_else(|| no_dead("purge_dead", id))?;
        let purge = self.change_dead::<(i64,)>(statements::PURGE_DEAD, queue, job);
        let purged = self.call("purge_dead", id.as_str(), purge).await?;
        purged.map(|_| ()).ok_or_else(|| no_dead("purge_dead", id))
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        self.call("depth", queue.as_str(), self.count(queue)).await
    }
}

/// Keeps its own list of versions, so that other schemas may live in the same database.
async fn migrate(pool: &PgPool, place: &str) -> Result<()> {
    let mut migrator: Migrator = sqlx::migrate!();
    migrator.create_schema(SCHEMA);
    migrator.dangerous_set_table_name(format!("{SCHEMA}.schema_version"));
    migrator.run(pool).await.map_err(|error| error::from_migration(error, place))
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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
