//! A work queue in memory: for tests, and for a laptop where jobs may end with the process.
//!
//! Time is tokio's, so that a test with a paused clock has no waits.

mod state;

use crate::{
    DeadLetterPage, DedupWindow, Delay, Depth, Enqueued, Error, ErrorKind, JobId, Lease, LeaseRequest,
    LeasedJob, Nacked, NewJob, Page, QueueName, Reason, Result, Visibility, WorkQueue,
};
use async_trait::async_trait;
use state::{QueueState, Refused};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A [`WorkQueue`] that lives and dies with the process.
#[derive(Debug)]
pub struct MemoryQueue {
    clock: Clock,
    dedup_window: DedupWindow,
    queues: Mutex<HashMap<QueueName, Arc<Queue>>>,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new(DedupWindow::default())
    }
}

impl MemoryQueue {
    /// An empty one that remembers dedup keys for this long.
    pub fn new(dedup_window: DedupWindow) -> Self {
        Self { clock: Clock::start(), dedup_window, queues: Mutex::default() }
    }

    fn queue(&self, name: &QueueName) -> Arc<Queue> {
        Arc::clone(lock(&self.queues).entry(name.clone()).or_default())
    }

    /// Changes one queue's state and wakes whoever waits for it.
    fn change<T>(&self, name: &QueueName, change: impl FnOnce(&mut QueueState, Duration) -> T) -> T {
        let queue = self.queue(name);
        let result = change(&mut lock(&queue.state), self.clock.now());
        queue.changed.notify_waiters();
        result
    }

    fn settle<T>(
        &self,
        lease: &Lease,
        operation: &'static str,
        settle: impl FnOnce(&mut QueueState, Duration, u64, u64) -> Result<T, Refused>,
    ) -> Result<T> {
        let (Some(job), Ok(token)) = (lease.job.as_number(), lease.token.as_str().parse()) else {
            return Err(lost(&lease.job, operation));
        };
        let settled = self.change(&lease.queue, |state, now| settle(state, now, job, token));
        settled.map_err(|Refused| lost(&lease.job, operation))
    }
}

#[async_trait]
impl WorkQueue for MemoryQueue {
    fn adapter(&self) -> &'static str {
        "memory"
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        Ok(self.change(queue, |state, now| state.enqueue(now, job, self.dedup_window.get())))
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        let shared = self.queue(queue);
        let give_up = Instant::now() + request.wait.get();
        loop {
            let changed = shared.changed.notified();
            let (taken, next_due) = {
                let mut state = lock(&shared.state);
                let taken = state.lease(self.clock.now(), &request);
                (taken, state.next_due())
            };
            if !taken.is_empty() || Instant::now() >= give_up {
                return Ok(taken.into_iter().map(|job| job.into_leased(queue, self.clock)).collect());
            }
            let wake = next_due.map_or(give_up, |due| self.clock.instant(due).min(give_up));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        let expires = self.settle(lease, "extend", |state, now, job, token| {
            state.extend(now, job, token, visibility.get())
        })?;
        Ok(Lease { expires_at: self.clock.wall(expires), ..lease.clone() })
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        self.settle(lease, "ack", QueueState::ack)
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        self.settle(lease, "nack", |state, now, job, token| {
            state.nack(now, job, token, reason.clone(), backoff.get())
        })
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        let letters = self.change(queue, |state, now| state.dead_letters(now, &page, self.clock));
        Ok(DeadLetterPage::from_overfull(letters, page.limit))
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        let requeued =
            id.as_number().and_then(|job| self.change(queue, |state, now| state.requeue_dead(now, job)));
        requeued.ok_or_else(|| no_dead(id, "requeue_dead"))
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        let purged =
            id.as_number().and_then(|job| self.change(queue, |state, now| state.purge_dead(now, job)));
        purged.ok_or_else(|| no_dead(id, "purge_dead"))
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        Ok(self.change(queue, QueueState::depth))
    }
}

/// One queue, and the bell that rings when it changes.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Notify,
}

/// Tokio's clock, as time since the start and as wall time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    start_wall: SystemTime,
}

impl Clock {
    fn start() -> Self {
        Self { start: Instant::now(), start_wall: SystemTime::now() }
    }

    fn now(self) -> Duration {
        self.start.elapsed()
    }

    fn instant(self, time: Duration) -> Instant {
        self.start + time
    }

    fn wall(self, time: Duration) -> SystemTime {
        self.start_wall + time
    }
}

fn lost(job: &JobId, operation: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, "lease", job.as_str())
        .operation(operation)
        .adapter("memory")
        .detail("the lease has expired or was settled")
}

fn no_dead(job: &JobId, operation: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, "dead letter", job.as_str()).operation(operation).adapter("memory")
}

/// No code panics with a lock held, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
