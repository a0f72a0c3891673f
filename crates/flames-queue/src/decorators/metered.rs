//! Counts and times every call.

use crate::{
    DeadLetterPage, Delay, Depth, Enqueued, JobId, Lease, LeaseRequest, LeasedJob, Nacked, NewJob, Page,
    QueueName, Reason, Result, Visibility, WorkQueue,
};
use async_trait::async_trait;
use flames_provider::decorate::{Call, CallMetrics};
use std::sync::Arc;

/// A queue whose calls are counted and timed. A lease that waits counts with its wait.
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn WorkQueue>,
    metrics: CallMetrics,
}

impl Metered {
    /// Records the calls of `inner` in `metrics`, under the interface `queue`.
    pub fn new(inner: Arc<dyn WorkQueue>, metrics: CallMetrics) -> Self {
        Self { inner, metrics }
    }

    fn call(&self, operation: &'static str) -> Call {
        Call { interface: "queue", adapter: self.inner.adapter(), operation }
    }
}

#[async_trait]
impl WorkQueue for Metered {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        self.metrics.observe(self.call("enqueue"), self.inner.enqueue(queue, job)).await
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        self.metrics.observe(self.call("lease"), self.inner.lease(queue, request)).await
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        self.metrics.observe(self.call("extend"), self.inner.extend(lease, visibility)).await
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        self.metrics.observe(self.call("ack"), self.inner.ack(lease)).await
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        self.metrics.observe(self.call("nack"), self.inner.nack(lease, reason, backoff)).await
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        self.metrics.observe(self.call("dead_letters"), self.inner.dead_letters(queue, page)).await
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        self.metrics.observe(self.call("requeue_dead"), self.inner.requeue_dead(queue, id)).await
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        self.metrics.observe(self.call("purge_dead"), self.inner.purge_dead(queue, id)).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        self.metrics.observe(self.call("depth"), self.inner.depth(queue)).await
    }
}
