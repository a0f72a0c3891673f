//! The worker loop over the memory queue, on a paused clock.
#![allow(clippy::unwrap_used, missing_docs)]

use async_trait::async_trait;
use flames_provider::decorate::{Fault, FaultPlan, When};
use flames_queue::backoff::Backoff;
use flames_queue::decorators::Faulty;
use flames_queue::memory::MemoryQueue;
use flames_queue::worker::{Handler, Job, Worker, WorkerOptions};
use flames_queue::{
    Batch, ConsumerName, Depth, ErrorKind, FailureKind, MaxAttempts, NewJob, Page, Payload, QueueName,
    Reason, Visibility, WorkQueue,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Does what the payload says: `ok`, `fail`, or `wait` until the test lets it go on.
#[derive(Debug)]
struct Scripted {
    started: mpsc::UnboundedSender<u16>,
    go_on: Semaphore,
    most_at_once: AtomicUsize,
    at_once: AtomicUsize,
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(&self, job: Job<'_>) -> Result<(), Reason> {
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        let _ = self.started.send(job.attempt);
        if job.payload.as_bytes() == "wait".as_bytes() {
            self.go_on.acquire().await.unwrap().forget();
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        if job.payload.as_bytes() == "fail".as_bytes() { Err(Reason::new("as told")) } else { Ok(()) }
    }
}

struct House {
    queue: Arc<dyn WorkQueue>,
    name: QueueName,
    handler: Arc<Scripted>,
    started: mpsc::UnboundedReceiver<u16>,
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
}

impl House {
    fn with_worker() -> Self {
        let queue: Arc<dyn WorkQueue> = Arc::new(MemoryQueue::default());
        Self::with_worker_over(Arc::clone(&queue), queue)
    }

    /// The worker sees `decorated`, the test `queue`.
    fn with_worker_over(queue: Arc<dyn WorkQueue>, decorated: Arc<dyn WorkQueue>) -> Self {
        let (sender, started) = mpsc::unbounded_channel();
        let (go_on, zero) = (Semaphore::new(0), AtomicUsize::default);
        let handler = Arc::new(Scripted { started: sender, go_on, most_at_once: zero(), at_once: zero() });
        let name = QueueName::new("work").unwrap();
        let options = WorkerOptions {
            concurrency: Batch::new(2).unwrap(),
            visibility: Visibility::new(Duration::from_secs(3)).unwrap(),
            backoff: Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(8) },
            grace: Duration::from_secs(10),
            ..WorkerOptions::new(ConsumerName::new("worker").unwrap())
        };
        let shutdown = CancellationToken::new();
        let worker = Worker::new(decorated, name.clone(), Arc::clone(&handler) as _, options);
        let worker = tokio::spawn(worker.run(shutdown.clone()));
        Self { queue, name, handler, started, shutdown, worker }
    }

    async fn put(&self, what: &str) {
        let job =
            NewJob::new(Payload::new(what.to_owned()).unwrap()).max_attempts(MaxAttempts::new(3).unwrap());
        self.queue.enqueue(&self.name, job).await.unwrap();
    }

    async fn depth(&self) -> Depth {
        self.queue.depth(&self.name).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_done_job_is_acked() {
    let mut house = House::with_worker();
    house.put("ok").await;
    assert_eq!(house.started.recv().await, Some(1));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(house.depth().await, Depth::default());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_is_tried_with_growing_pauses_until_it_is_dead_with_its_reasons() {
    let mut house = House::with_worker();
    house.put("fail").await;
    let mut times = Vec::new();
    for attempt in 1..=3 {
        assert_eq!(house.started.recv().await, Some(attempt));
        times.push(Instant::now());
    }
    let pauses = [times[1] - times[0], times[2] - times[1]];
    assert!(
        pauses[0] >= Duration::from_millis(500) && pauses[0] <= Duration::from_millis(1010),
        "{pauses:?}"
    );
    assert!(pauses[1] >= Duration::from_secs(1) && pauses[1] <= Duration::from_millis(2010), "{pauses:?}");
    sleep(Duration::from_millis(1)).await;
    let dead = house.queue.dead_letters(&house.name, Page::first(Batch::ONE)).await.unwrap();
    let failures = &dead.letters[0].failures;
    assert!(
        failures
            .iter()
            .all(|failure| failure.reason.as_str() == "as told" && failure.kind == FailureKind::Nacked)
    );
    assert_eq!(failures.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_job_longer_than_its_lease_is_kept_and_done_once() {
    let mut house = House::with_worker();
    house.put("wait").await;
    house.started.recv().await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(house.depth().await.leased, 1);
    house.handler.go_on.add_permits(1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.depth().await, Depth::default());
    assert!(house.started.try_recv().is_err(), "it was started twice");
}

#[tokio::test(start_paused = true)]
async fn no_more_jobs_run_at_once_than_allowed() {
    let mut house = House::with_worker();
    for _ in 0..6 {
        house.put("wait").await;
    }
    house.started.recv().await;
    house.started.recv().await;
    sleep(Duration::from_secs(1)).await;
    assert!(house.started.try_recv().is_err(), "a third one runs");
    house.handler.go_on.add_permits(6);
    for _ in 0..4 {
        house.started.recv().await;
    }
    assert_eq!(house.handler.most_at_once.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn shutdown_takes_no_more_jobs_and_waits_for_the_running_one() {
    let mut house = House::with_worker();
    house.put("wait").await;
    house.started.recv().await;
    house.shutdown.cancel();
    sleep(Duration::from_secs(5)).await;
    assert!(!house.worker.is_finished(), "it did not wait for its handler");
    house.put("ok").await;
    house.handler.go_on.add_permits(1);
    house.worker.await.unwrap();
    assert_eq!(house.queue.depth(&house.name).await.unwrap().ready, 1, "the second job is left");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_outlives_the_grace_is_dropped_and_its_job_given_back() {
    let mut house = House::with_worker();
    house.put("wait").await;
    house.started.recv().await;
    let asked_at = Instant::now();
    house.shutdown.cancel();
    house.worker.await.unwrap();
    assert!(asked_at.elapsed() < Duration::from_secs(11), "{:?}", asked_at.elapsed());
    let depth = house.queue.depth(&house.name).await.unwrap();
    assert_eq!((depth.delayed + depth.ready, depth.leased), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_drops_the_handler_before_the_job_can_run_twice_at_once() {
    let queue: Arc<dyn WorkQueue> = Arc::new(MemoryQueue::default());
    let unreachable = FaultPlan::seeded(1).rule("extend", When::Always, Fault::Error(ErrorKind::Unavailable));
    let mut house = House::with_worker_over(Arc::clone(&queue), Arc::new(Faulty::new(queue, unreachable)));
    house.put("wait").await;
    assert_eq!(house.started.recv().await, Some(1));
    assert_eq!(house.started.recv().await, Some(2), "the job came back when the lease was over");
    assert!(house.handler.go_on.available_permits() == 0);
    house.handler.go_on.add_permits(1);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(house.depth().await, Depth::default());
}

#[tokio::test(start_paused = true)]
async fn a_worker_outlives_an_outage_of_its_queue() {
    let queue: Arc<dyn WorkQueue> = Arc::new(MemoryQueue::default());
    let outage = FaultPlan::seeded(1).rule("lease", When::Nth(1), Fault::Error(ErrorKind::Unavailable)).rule(
        "lease",
        When::Nth(2),
        Fault::Error(ErrorKind::Timeout),
    );
    let mut house = House::with_worker_over(Arc::clone(&queue), Arc::new(Faulty::new(queue, outage)));
    house.put("ok").await;
    assert_eq!(house.started.recv().await, Some(1));
}
