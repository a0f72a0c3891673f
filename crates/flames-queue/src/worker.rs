//! The worker loop: takes jobs from a queue and gives them to a handler.
//!
//! It waits inside [`WorkQueue::lease`] and so never polls; it keeps a lease alive for as long as its handler
//! runs; it gives up a job whose lease it lost; it ends when it is told to, after the handlers that run.

use crate::backoff::Backoff;
use crate::{
    Batch, ConsumerName, ErrorKind, Lease, LeaseRequest, LeasedJob, Payload, QueueName, Reason, Visibility,
    Wait, WorkQueue,
};
use async_trait::async_trait;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span, warn};

/// Does the jobs of one queue. A job may come more than once: do it so that this is harmless.
#[async_trait]
pub trait Handler: Debug + Send + Sync + 'static {
    /// Does one job. The future is dropped when the lease is lost or the worker's grace is over.
    ///
    /// # Errors
    /// The reason why this attempt failed: the job is tried again until its attempts are used up.
    async fn handle(&self, job: Job<'_>) -> Result<(), Reason>;
}

/// What a handler gets.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What to do.
    pub payload: &'a Payload,
    /// Which attempt this is; the first is 1.
    pub attempt: u16,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Its name in leases and dead letters.
    pub consumer: ConsumerName,
    /// How many jobs it does at a time.
    pub concurrency: Batch,
    /// How long a job stays with a worker that died.
    pub visibility: Visibility,
    /// How long a failed job rests.
    pub backoff: Backoff,
    /// How long running handlers may go on after the shutdown began.
    pub grace: Duration,
}

impl WorkerOptions {
    /// Four jobs at a time, handed over 30 seconds after a death, 20 seconds to shut down.
    pub fn new(consumer: ConsumerName) -> Self {
        Self {
            consumer,
            concurrency: Batch::ONE.saturating_add(3),
            visibility: Visibility::clamped(Duration::from_secs(30)),
            backoff: Backoff::default(),
            grace: Duration::from_secs(20),
        }
    }
}

/// One loop that does the jobs of one queue.
#[derive(Debug)]
pub struct Worker {
    queue: Arc<dyn WorkQueue>,
    name: QueueName,
    handler: Arc<dyn Handler>,
    options: WorkerOptions,
}

impl Worker {
    /// A worker for the queue `name`. It does nothing until it runs.
    pub fn new(
        queue: Arc<dyn WorkQueue>,
        name: QueueName,
        handler: Arc<dyn Handler>,
        options: WorkerOptions,
    ) -> Self {
        Self { queue, name, handler, options }
    }

    /// Works until `shutdown`, then takes no more jobs and waits for the running ones, for the grace at most.
    /// Jobs that are still running then are given back.
    pub async fn run(self, shutdown: CancellationToken) {
        let worker = Arc::new(self);
        let slots = Arc::new(Semaphore::new(worker.options.concurrency.get()));
        let running = TaskTracker::new();
        let abandon = CancellationToken::new();
        shutdown.run_until_cancelled(Arc::clone(&worker).take_jobs(slots, &running, &abandon)).await;
        running.close();
        if tokio::time::timeout(worker.options.grace, running.wait()).await.is_err() {
            abandon.cancel();
            running.wait().await;
        }
    }

    async fn take_jobs(
        self: Arc<Self>,
        slots: Arc<Semaphore>,
        running: &TaskTracker,
        abandon: &CancellationToken,
    ) {
        let mut failures = 0;
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let mut free = take_free(&slots, slot);
            match self.queue.lease(&self.name, self.request(free.len())).await {
                Ok(jobs) => {
                    failures = 0;
                    for (job, slot) in jobs.into_iter().zip(free.drain(..)) {
                        running.spawn(Arc::clone(&self).work(job, slot, abandon.clone()));
                    }
                }
                Err(error) => {
                    failures += 1;
                    warn!(queue = %self.name, %error, failures, "cannot take jobs");
                    sleep(self.options.backoff.after(failures, spread(self.options.consumer.as_str())).get())
                        .await;
                }
            }
        }
    }

    fn request(&self, free: usize) -> LeaseRequest {
        let free = u16::try_from(free).unwrap_or(u16::MAX);
        LeaseRequest {
            consumer: self.options.consumer.clone(),
            max: Batch::new(free).unwrap_or(Batch::ONE),
            visibility: self.options.visibility,
            wait: Wait::MAX,
        }
    }

    async fn work(self: Arc<Self>, job: LeasedJob, slot: OwnedSemaphorePermit, abandon: CancellationToken) {
        let span = info_span!("job", queue = %self.name, id = %job.lease.job, attempt = job.attempt);
        async {
            let outcome = self.attempt(&job, &abandon).await;
            self.settle(&job, outcome).await;
        }
        .instrument(span)
        .await;
        drop(slot);
    }

    /// Runs the handler while keeping the lease.
    async fn attempt(&self, job: &LeasedJob, abandon: &CancellationToken) -> Outcome {
        let mut lease = job.lease.clone();
        let handled = self.handler.handle(Job { payload: &job.payload, attempt: job.attempt });
        let ended = tokio::select! {
            handled = handled => Some(handled),
            () = self.keep(&mut lease) => None,
            () = abandon.cancelled() => Some(Err(Reason::new("the worker was shut down"))),
        };
        match ended {
            Some(Ok(())) => Outcome::Done(lease),
            Some(Err(reason)) => Outcome::Failed(lease, reason),
            None => Outcome::LeaseLost,
        }
    }

    /// Extends the lease at a third of its time, so that two extends may fail before it ends. Returns when it is
    /// lost: somebody else may have the job from then on.
    async fn keep(&self, lease: &mut Lease) {
        let visibility = self.options.visibility.get();
        let mut ends = Instant::now() + visibility;
        loop {
            sleep(visibility / 3).await;
            let asked_at = Instant::now();
            let extend = self.queue.extend(lease, self.options.visibility);
            match tokio::time::timeout_at(ends, extend).await {
                Ok(Ok(extended)) => {
                    *lease = extended;
                    ends = asked_at + visibility;
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Conflict => return,
                Ok(Err(error)) => warn!(%error, "cannot extend the lease yet"),
                Err(_) => return,
            }
            if Instant::now() >= ends {
                return;
            }
        }
    }

    async fn settle(&self, job: &LeasedJob, outcome: Outcome) {
        let settled = match outcome {
            Outcome::Done(lease) => self.queue.ack(&lease).await,
            Outcome::Failed(lease, reason) => {
                debug!(%reason, "the attempt failed");
                let pause = self.options.backoff.after(job.attempt, spread(job.lease.job.as_str()));
                self.queue.nack(&lease, &reason, pause).await.map(|_| ())
            }
            Outcome::LeaseLost => return warn!("the lease was lost: another worker does the job"),
        };
        if let Err(error) = settled {
            warn!(%error, "cannot settle the job: it comes again when its lease expires");
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
enum Outcome {
    Done(Lease),
    Failed(Lease, Reason),
    LeaseLost,
}

/// The given slot and all others that are free now.
fn take_free(slots: &Arc<Semaphore>, first: OwnedSemaphorePermit) -> Vec<OwnedSemaphorePermit> {
    let others = std::iter::from_fn(|| Arc::clone(slots).try_acquire_owned().ok());
    std::iter::once(first).chain(others).collect()
}

/// A seed from a name (FNV-1a), so that the jobs of one outage do not all come back at once.
fn spread(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
