//! Breaks chosen calls, from a seed.

use crate::{
    DeadLetterPage, Delay, Depth, Enqueued, JobId, Lease, LeaseRequest, LeasedJob, Nacked, NewJob, Page,
    QueueName, Reason, Result, Visibility, WorkQueue,
};
use crate::{Error, ErrorKind};
use async_trait::async_trait;
use flames_provider::decorate::FaultPlan;
use std::sync::Arc;

/// A queue whose calls fail, come late or lose their answer as a [`FaultPlan`] says.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn WorkQueue>,
    plan: FaultPlan,
}

impl Faulty {
    /// Breaks calls of `inner` as `plan` says.
    pub fn new(inner: Arc<dyn WorkQueue>, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }

    fn error(&self, operation: &'static str, id: &str) -> Error {
        Error::new(ErrorKind::Internal, "job", id).operation(operation).adapter(self.inner.adapter())
    }
}

#[async_trait]
impl WorkQueue for Faulty {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        self.plan
            .run("enqueue", self.error("enqueue", queue.as_str()), || self.inner.enqueue(queue, job))
            .await
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        self.plan.run("lease", self.error("lease", queue.as_str()), || self.inner.lease(queue, request)).await
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        self.plan
            .run("extend", self.error("extend", lease.job.as_str()), || self.inner.extend(lease, visibility))
            .await
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        self.plan.run("ack", self.error("ack", lease.job.as_str()), || self.inner.ack(lease)).await
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        self.plan
            .run("nack", self.error("nack", lease.job.as_str()), || self.inner.nack(lease, reason, backoff))
            .await
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        self.plan
            .run("dead_letters", self.error("dead_letters", queue.as_str()), || {
                self.inner.dead_letters(queue, page)
            })
            .await
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        self.plan
            .run("requeue_dead", self.error("requeue_dead", id.as_str()), || {
                self.inner.requeue_dead(queue, id)
            })
            .await
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        self.plan
            .run("purge_dead", self.error("purge_dead", id.as_str()), || self.inner.purge_dead(queue, id))
            .await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        self.plan.run("depth", self.error("depth", queue.as_str()), || self.inner.depth(queue)).await
    }
}
