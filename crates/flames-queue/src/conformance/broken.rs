//! A queue that breaks one promise, to prove that the suite notices.

use crate::memory::MemoryQueue;
use crate::{
    Batch, DeadLetterPage, Delay, Depth, Enqueued, ErrorKind, JobId, Lease, LeaseRequest, LeasedJob,
    MaxAttempts, Nacked, NewJob, Novelty, Page, Payload, QueueName, Reason, Result, Visibility, Wait,
    WorkQueue,
};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is wrong with a [`BrokenQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Flaw {
    AcksAfterExpiry,
    AcksForTheFormerHolder,
    AckDoesNothing,
    CountsDelayedAsReady,
    CutsPayloads,
    DedupForever,
    DoubleLeases,
    DropsDeadLetterReasons,
    DropsDedup,
    DuplicatesGetNewIds,
    ExtendDoesNothing,
    ForgetsBackoff,
    ForgetsDelay,
    IgnoresMax,
    LeasesNeverExpire,
    LosesEveryHundredthEnqueue,
    LosesTheLastEnqueue,
    MixesQueues,
    NeverDies,
    NeverTellsTheAge,
    NeverWaits,
    PurgeDoesNothing,
    RepeatsTheFirstPage,
    RequeueKeepsTheDead,
    SleepsThroughEvents,
}

/// A [`MemoryQueue`] with a [`Flaw`].
#[derive(Debug)]
pub struct BrokenQueue {
    inner: MemoryQueue,
    flaw: Flaw,
    memory: Mutex<Memory>,
}

/// What some flaws need to remember.
#[derive(Debug, Default)]
struct Memory {
    enqueued: u64,
    held: HashMap<(QueueName, JobId), LeasedJob>,
    settled: HashSet<(QueueName, JobId)>,
    keys: HashMap<String, JobId>,
}

impl BrokenQueue {
    /// A memory queue with this flaw.
    pub fn new(inner: MemoryQueue, flaw: Flaw) -> Self {
        Self { inner, flaw, memory: Mutex::default() }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue_of(&self, queue: &QueueName) -> Result<QueueName> {
        if self.has(Flaw::MixesQueues) { QueueName::new("all") } else { Ok(queue.clone()) }
    }

    /// True if this enqueue is acknowledged and then forgotten.
    fn loses_enqueue(&self) -> bool {
        let mut memory = self.memory();
        memory.enqueued += 1;
        match self.flaw {
            Flaw::LosesTheLastEnqueue => true,
            Flaw::LosesEveryHundredthEnqueue => memory.enqueued.is_multiple_of(100),
            _ => false,
        }
    }

    fn known_key(&self, job: &NewJob) -> Option<JobId> {
        let key = job.dedup_key.as_ref().filter(|_| self.has(Flaw::DedupForever))?;
        self.memory().keys.get(key.as_str()).cloned()
    }

    fn spoil(&self, mut job: NewJob) -> Result<NewJob> {
        match self.flaw {
            Flaw::ForgetsDelay => job.delay = Delay::NONE,
            Flaw::DropsDedup => job.dedup_key = None,
            Flaw::NeverDies => job.max_attempts = MaxAttempts::new(100)?,
            Flaw::CutsPayloads if job.payload.as_bytes().len() > 100_000 => {
                job.payload = Payload::new(job.payload.as_bytes().slice(..100_000))?;
            }
            _ => {}
        }
        Ok(job)
    }

    fn spoil_request(&self, mut request: LeaseRequest) -> Result<LeaseRequest> {
        match self.flaw {
            Flaw::IgnoresMax => request.max = Batch::new(1000)?,
            Flaw::LeasesNeverExpire => request.visibility = Visibility::MAX,
            Flaw::NeverWaits | Flaw::SleepsThroughEvents => request.wait = Wait::NONE,
            _ => {}
        }
        Ok(request)
    }

    fn remember(&self, jobs: &[LeasedJob]) {
        let held = jobs.iter().map(|job| ((job.lease.queue.clone(), job.lease.job.clone()), job.clone()));
        self.memory().held.extend(held);
    }

    fn hand_out_again(&self, queue: &QueueName) -> Vec<LeasedJob> {
        let memory = self.memory();
        let held = memory.held.values().filter(|job| job.lease.queue == *queue);
        held.filter(|job| !memory.settled.contains(&(queue.clone(), job.lease.job.clone())))
            .take(1)
            .cloned()
            .collect()
    }

    /// The lease of whoever holds the job now.
    fn current(&self, lease: &Lease) -> Lease {
        let held = self.memory().held.get(&(lease.queue.clone(), lease.job.clone())).cloned();
        held.map_or_else(|| lease.clone(), |job| job.lease)
    }
}

#[async_trait]
impl WorkQueue for BrokenQueue {
    fn adapter(&self) -> &'static str {
        "broken"
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        if self.loses_enqueue() {
            return Ok(Enqueued { id: JobId::from_number(u64::MAX), novelty: Novelty::Fresh });
        }
        if let Some(id) = self.known_key(&job) {
            return Ok(Enqueued { id, novelty: Novelty::Duplicate });
        }
        let key = job.dedup_key.clone();
        let mut enqueued = self.inner.enqueue(&self.queue_of(queue)?, self.spoil(job)?).await?;
        if let Some(key) = key {
            self.memory().keys.insert(key.as_str().to_owned(), enqueued.id.clone());
        }
        if self.has(Flaw::DuplicatesGetNewIds) && enqueued.novelty == Novelty::Duplicate {
            enqueued.id = JobId::from_number(u64::MAX);
        }
        Ok(enqueued)
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        let queue = self.queue_of(queue)?;
        let wait = request.wait.get();
        if self.has(Flaw::SleepsThroughEvents) {
            tokio::time::sleep(wait).await;
        }
        let mut jobs = self.inner.lease(&queue, self.spoil_request(request)?).await?;
        if jobs.is_empty() && self.has(Flaw::DoubleLeases) {
            jobs = self.hand_out_again(&queue);
        }
        self.remember(&jobs);
        Ok(jobs)
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        if self.has(Flaw::ExtendDoesNothing) {
            let expires_at = lease.expires_at + visibility.get();
            return Ok(Lease { expires_at, ..lease.clone() });
        }
        self.inner.extend(lease, visibility).await
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        if self.has(Flaw::AckDoesNothing) {
            return Ok(());
        }
        let lease = if self.has(Flaw::AcksForTheFormerHolder) { self.current(lease) } else { lease.clone() };
        self.memory().settled.insert((lease.queue.clone(), lease.job.clone()));
        match self.inner.ack(&lease).await {
            Err(error) if error.kind() == ErrorKind::Conflict && self.has(Flaw::AcksAfterExpiry) => Ok(()),
            result => result,
        }
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        let backoff = if self.has(Flaw::ForgetsBackoff) { Delay::NONE } else { backoff };
        self.inner.nack(lease, reason, backoff).await
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        let page = if self.has(Flaw::RepeatsTheFirstPage) { Page::first(page.limit) } else { page };
        let mut answer = self.inner.dead_letters(&self.queue_of(queue)?, page).await?;
        if self.has(Flaw::DropsDeadLetterReasons) {
            answer.letters.iter_mut().for_each(|letter| letter.failures.truncate(1));
        }
        Ok(answer)
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        let queue = self.queue_of(queue)?;
        if !self.has(Flaw::RequeueKeepsTheDead) {
            return self.inner.requeue_dead(&queue, id).await;
        }
        let letters = self.inner.dead_letters(&queue, Page::first(Batch::new(1000)?)).await?.letters;
        match letters.into_iter().find(|letter| letter.id == *id) {
            Some(letter) => Ok(self.inner.enqueue(&queue, NewJob::new(letter.payload)).await?.id),
            None => self.inner.requeue_dead(&queue, id).await,
        }
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        if self.has(Flaw::PurgeDoesNothing) {
            return Ok(());
        }
        self.inner.purge_dead(&self.queue_of(queue)?, id).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        let mut depth = self.inner.depth(&self.queue_of(queue)?).await?;
        if self.has(Flaw::NeverTellsTheAge) {
            depth.oldest_age = None;
        }
        if self.has(Flaw::CountsDelayedAsReady) {
            depth.ready += std::mem::take(&mut depth.delayed);
        }
        Ok(depth)
    }
}
