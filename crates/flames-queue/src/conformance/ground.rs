//! What the promises are written with.

use super::{Fixture, unique_prefix};
use crate::{
    Batch, ConsumerName, Delay, Depth, ErrorKind, LeaseRequest, LeasedJob, MaxAttempts, NewJob, Page,
    Payload, QueueName, Result, Visibility, Wait, WorkQueue,
};
use std::sync::Arc;
use std::time::Duration;

/// Over before a test gets boring, and long enough for a busy machine to act within it.
pub(super) const SHORT: Duration = Duration::from_millis(400);
/// Never over within a test.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// Longer than any wake-up takes; a waiting call that needs it has slept through the event.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// What clocks of a backend and of this process may differ in a short span, plus their rounding.
pub(super) const SKEW: Duration = Duration::from_millis(15);

/// One fresh queue of the fixture's backend.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) queue: Arc<dyn WorkQueue>,
    pub(super) name: QueueName,
}

impl Ground {
    pub(super) fn of(fixture: &Fixture) -> Self {
        let name = QueueName::new(unique_prefix("q")).expect("a legal name");
        Self { queue: Arc::clone(&fixture.queue), name }
    }

    pub(super) async fn put(&self, text: &str) -> crate::JobId {
        self.put_job(job(text)).await
    }

    pub(super) async fn put_job(&self, job: NewJob) -> crate::JobId {
        self.queue.enqueue(&self.name, job).await.expect("enqueue").id
    }

    /// What can be taken now, without waiting.
    pub(super) async fn take(&self, max: u16, visibility: Duration) -> Vec<LeasedJob> {
        self.queue.lease(&self.name, request("taker", max, visibility, Duration::ZERO)).await.expect("lease")
    }

    /// One job, waiting for it if need be.
    pub(super) async fn take_one(&self, visibility: Duration) -> LeasedJob {
        self.wait_for_one("taker", visibility, PATIENCE)
            .await
            .expect("a job within the patience of the suite")
    }

    pub(super) async fn wait_for_one(
        &self,
        consumer: &str,
        visibility: Duration,
        wait: Duration,
    ) -> Option<LeasedJob> {
        self.queue.lease(&self.name, request(consumer, 1, visibility, wait)).await.expect("lease").pop()
    }

    /// Fails if there is anything to take now.
    pub(super) async fn assert_nothing_ready(&self, why: &str) {
        let taken = self.take(10, LONG).await;
        assert!(taken.is_empty(), "{why}: got {} job(s)", taken.len());
    }

    pub(super) async fn depth(&self) -> Depth {
        self.queue.depth(&self.name).await.expect("depth")
    }

    pub(super) async fn dead(&self) -> Vec<crate::DeadLetter> {
        self.queue.dead_letters(&self.name, Page::first(batch(100))).await.expect("dead letters").letters
    }
}

pub(super) fn job(text: &str) -> NewJob {
    NewJob::new(payload(text))
}

pub(super) fn payload(text: &str) -> Payload {
    Payload::new(text.to_owned()).expect("a small payload")
}

pub(super) fn text(job: &LeasedJob) -> &str {
    std::str::from_utf8(job.payload.as_bytes()).expect("text")
}

pub(super) fn attempts(count: u16) -> MaxAttempts {
    MaxAttempts::new(count).expect("a legal number of attempts")
}

pub(super) fn batch(count: u16) -> Batch {
    Batch::new(count).expect("a legal batch")
}

pub(super) fn delay(duration: Duration) -> Delay {
    Delay::new(duration).expect("a legal delay")
}

pub(super) fn visibility(duration: Duration) -> Visibility {
    Visibility::new(duration).expect("a legal visibility")
}

pub(super) fn request(consumer: &str, max: u16, lasting: Duration, wait: Duration) -> LeaseRequest {
    LeaseRequest {
        consumer: ConsumerName::new(consumer).expect("a legal consumer"),
        max: batch(max),
        visibility: visibility(lasting),
        wait: Wait::new(wait).expect("a legal wait"),
    }
}

#[track_caller]
pub(super) fn assert_conflict<T>(result: Result<T>, what: &str) {
    match result {
        Ok(_) => panic!("{what} was accepted"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{what}: {error}"),
    }
}

/// The suite waits for time to pass only where time is what the promise is about.
pub(super) async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}
