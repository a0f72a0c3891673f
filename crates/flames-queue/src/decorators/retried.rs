//! Makes failed calls again where that is harmless.
//!
//! Repeated are the calls whose repetition changes nothing: an enqueue **with** a dedup key, reading the dead
//! letters and the depth. Not repeated: an enqueue without a key (it would add a second job), a lease (the jobs
//! of a lost answer come back by themselves), ack, nack and extend (the answer to a repeated one would be
//! `Conflict`), requeue and purge (it would be `NotFound`).

use crate::{
    DeadLetterPage, Delay, Depth, Enqueued, JobId, Lease, LeaseRequest, LeasedJob, Nacked, NewJob, Page,
    QueueName, Reason, Result, Visibility, WorkQueue,
};
use async_trait::async_trait;
use flames_provider::decorate::RetryPolicy;
use std::sync::Arc;

/// A queue that is asked again when a fault may have passed, a bounded number of times.
#[derive(Debug)]
pub struct Retried {
    inner: Arc<dyn WorkQueue>,
    policy: RetryPolicy,
}

impl Retried {
    /// Repeats calls of `inner` as `policy` says.
    pub fn new(inner: Arc<dyn WorkQueue>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

#[async_trait]
impl WorkQueue for Retried {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        if job.dedup_key.is_none() {
            return self.inner.enqueue(queue, job).await;
        }
        self.policy.run(|| self.inner.enqueue(queue, job.clone())).await
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        self.inner.lease(queue, request).await
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        self.inner.extend(lease, visibility).await
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        self.inner.ack(lease).await
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        self.inner.nack(lease, reason, backoff).await
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        self.policy.run(|| self.inner.dead_letters(queue, page.clone())).await
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        self.inner.requeue_dead(queue, id).await
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        self.inner.purge_dead(queue, id).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        self.policy.run(|| self.inner.depth(queue)).await
    }
}
