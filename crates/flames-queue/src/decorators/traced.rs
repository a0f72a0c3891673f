//! One span per call, and an event for every failure.

use crate::ErrorKind;
use crate::{
    DeadLetterPage, Delay, Depth, Enqueued, JobId, Lease, LeaseRequest, LeasedJob, Nacked, NewJob, Page,
    QueueName, Reason, Result, Visibility, WorkQueue,
};
use async_trait::async_trait;
use std::future::Future;
use std::sync::Arc;
use tracing::{Instrument, Span, debug, debug_span, warn};

/// A queue whose calls are spans named `queue` with the fields `adapter`, `operation` and `id`.
#[derive(Debug)]
pub struct Traced {
    inner: Arc<dyn WorkQueue>,
}

impl Traced {
    /// Traces the calls of `inner`.
    pub fn new(inner: Arc<dyn WorkQueue>) -> Self {
        Self { inner }
    }

    fn span(&self, operation: &'static str, id: &str) -> Span {
        debug_span!("queue", adapter = self.inner.adapter(), operation, id)
    }
}

/// A lost lease is everyday life; everything else that fails is worth a warning.
async fn traced<T>(span: Span, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    async {
        let result = call.await;
        match &result {
            Err(error) if error.kind() == ErrorKind::Conflict => debug!(%error, "call refused"),
            Err(error) => warn!(%error, "call failed"),
            Ok(_) => {}
        }
        result
    }
    .instrument(span)
    .await
}

#[async_trait]
impl WorkQueue for Traced {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        traced(self.span("enqueue", queue.as_str()), self.inner.enqueue(queue, job)).await
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        traced(self.span("lease", queue.as_str()), self.inner.lease(queue, request)).await
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        traced(self.span("extend", lease.job.as_str()), self.inner.extend(lease, visibility)).await
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        traced(self.span("ack", lease.job.as_str()), self.inner.ack(lease)).await
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        traced(self.span("nack", lease.job.as_str()), self.inner.nack(lease, reason, backoff)).await
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        traced(self.span("dead_letters", queue.as_str()), self.inner.dead_letters(queue, page)).await
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        traced(self.span("requeue_dead", id.as_str()), self.inner.requeue_dead(queue, id)).await
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        traced(self.span("purge_dead", id.as_str()), self.inner.purge_dead(queue, id)).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        traced(self.span("depth", queue.as_str()), self.inner.depth(queue)).await
    }
}
