//! The interface to work queues.
//!
//! A queue holds jobs until a consumer has done them. A job is delivered **at least once**, never to two
//! consumers at a time, and in no promised order.
//!
//! ```text
//! enqueue ──> delayed ── time ──> ready ── lease ──> leased ── ack ──> gone
//!                ^                  ^                  │ │
//!                └── nack(backoff) ─┼──────────────────┘ │ attempts used up
//!                                   └── lease expired ───┤
//!                                   ^                    v
//!                                   └──── requeue ───── dead ── purge ──> gone
//! ```
//!
//! A lease is a promise with an end. Whoever holds one may [`WorkQueue::ack`], [`WorkQueue::nack`] or
//! [`WorkQueue::extend`] it; once it has expired all three answer `Conflict`, also when nobody else has taken
//! the job yet. Times come from one clock per backend (the database's, where there is one).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backoff;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod decorators;
mod job;
mod limits;
pub mod memory;
mod page;
pub mod worker;

pub use job::{
    DedupKey, Enqueued, Failure, FailureKind, JobId, Lease, LeaseToken, LeasedJob, Nacked, NewJob, Novelty,
    Payload, Reason,
};
pub use limits::{Batch, ConsumerName, DedupWindow, Delay, MaxAttempts, QueueName, Visibility, Wait};
pub use page::{DeadLetter, DeadLetterPage, Depth, Page};

pub use flames_provider::{Error, ErrorKind, Result, Retry};

use async_trait::async_trait;
use std::fmt::Debug;

/// Holds jobs until somebody has done them.
///
/// Every call answers `Unavailable` or `Timeout` within a bounded time while the backend is down, and works
/// again without a restart once it is back. `Timeout` means that the call may have taken effect.
#[async_trait]
pub trait WorkQueue: Debug + Send + Sync + 'static {
    /// Short name for errors and metrics, for example `sqlite`.
    fn adapter(&self) -> &'static str;

    /// Adds a job. When it returns, the job survives the death of this process (memory queues excepted).
    ///
    /// A job whose dedup key was used in this queue within the dedup window (a setting of the backend) is not
    /// added: the answer names the first one, even if that one is done already.
    ///
    /// # Errors
    /// The backend's only: sizes and ranges are checked by the types.
    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued>;

    /// Takes up to `max` ready jobs. Answers as soon as there is one; with none, waits for one until `wait`
    /// is over and then answers an empty list. A waiting call is woken by an enqueue, by the end of a delay and
    /// by the expiry of a lease, not by polling.
    ///
    /// Dropping the future is safe: what it may have taken comes back when its lease expires.
    ///
    /// # Errors
    /// The backend's only.
    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>>;

    /// Makes the lease end `visibility` from now, earlier or later than before. Go on with the returned lease:
    /// the old one may be spent.
    ///
    /// # Errors
    /// `Conflict` when the lease has expired or was settled. Nothing is changed then.
    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease>;

    /// The job is done: removes it.
    ///
    /// # Errors
    /// `Conflict` when the lease has expired or was settled. Nothing is changed then.
    async fn ack(&self, lease: &Lease) -> Result<()>;

    /// The attempt failed: the job is ready again after `backoff`, or dead if this was its last attempt.
    ///
    /// # Errors
    /// `Conflict` when the lease has expired or was settled. Nothing is changed then.
    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked>;

    /// The jobs that used up their attempts, in the order of their ids.
    ///
    /// # Errors
    /// The backend's only.
    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage>;

    /// Makes a dead job ready again, with all its attempts before it and a new id.
    ///
    /// # Errors
    /// `NotFound` if no such job is dead.
    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId>;

    /// Forgets a dead job.
    ///
    /// # Errors
    /// `NotFound` if no such job is dead.
    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()>;

    /// How much there is to do. A queue nobody has used yet is empty.
    ///
    /// # Errors
    /// The backend's only.
    async fn depth(&self, queue: &QueueName) -> Result<Depth>;
}

/// What a consumer asks for.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// Who asks: recorded with each attempt, for people.
    pub consumer: ConsumerName,
    /// The most jobs to take.
    pub max: Batch,
    /// How long the leases last.
    pub visibility: Visibility,
    /// How long to wait while there is no job.
    pub wait: Wait,
}
