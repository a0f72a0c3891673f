//! The rules of one queue, without locks and without a clock: time is an argument, counted from any start.

use super::Clock;
use crate::{
    ConsumerName, DeadLetter, Depth, Enqueued, Failure, JobId, Lease, LeaseRequest, LeaseToken, LeasedJob,
    MaxAttempts, Nacked, NewJob, Novelty, Page, Payload, QueueName, Reason,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// All jobs of one queue.
#[derive(Debug, Default)]
pub(super) struct QueueState {
    last_id: u64,
    last_token: u64,
    live: BTreeMap<u64, Job>,
    dead: BTreeMap<u64, Job>,
    /// When something happens to which live job: it gets ready, or its lease expires.
    due: BTreeSet<(Duration, u64)>,
    dedup: HashMap<String, (u64, Duration)>,
}

/// The lease is not, or no longer, the job's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

#[derive(Debug)]
struct Job {
    payload: Payload,
    enqueued_at: Duration,
    max_attempts: MaxAttempts,
    attempt: u16,
    failures: Vec<Failure>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Waiting { ready_at: Duration },
    Leased { token: u64, consumer: ConsumerName, expires_at: Duration },
}

impl Phase {
    fn due(&self) -> Duration {
        match self {
            Self::Waiting { ready_at } => *ready_at,
            Self::Leased { expires_at, .. } => *expires_at,
        }
    }
}

impl QueueState {
    pub(super) fn enqueue(&mut self, now: Duration, job: NewJob, dedup_window: Duration) -> Enqueued {
        self.dedup.retain(|_, (_, until)| *until > now);
        let first = job.dedup_key.as_ref().and_then(|key| self.dedup.get(key.as_str()));
        if let Some((id, _)) = first {
            return Enqueued { id: JobId::from_number(*id), novelty: Novelty::Duplicate };
        }
        let ready_at = now + job.delay.get();
        let id = self.insert(now, job.payload, job.max_attempts, ready_at);
        if let Some(key) = job.dedup_key {
            self.dedup.insert(key.as_str().to_owned(), (id, now + dedup_window));
        }
        Enqueued { id: JobId::from_number(id), novelty: Novelty::Fresh }
    }

    pub(super) fn lease(&mut self, now: Duration, request: &LeaseRequest) -> Vec<Taken> {
        self.expire(now);
        let ready = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id);
        let ready: Vec<u64> = ready.take(request.max.get()).collect();
        ready.into_iter().filter_map(|id| self.take(now, id, request)).collect()
    }

    /// When a waiting consumer should look again; `None` if only a change from outside can bring work.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn extend(
        &mut self,
        now: Duration,
        id: u64,
        token: u64,
        visibility: Duration,
    ) -> Result<Duration, Refused> {
        let consumer = self.holder(now, id, token)?;
        let expires_at = now + visibility;
        self.set_phase(id, Phase::Leased { token, consumer, expires_at });
        Ok(expires_at)
    }

    pub(super) fn ack(&mut self, now: Duration, id: u64, token: u64) -> Result<(), Refused> {
        self.holder(now, id, token)?;
        self.remove(id);
        Ok(())
    }

    pub(super) fn nack(
        &mut self,
        now: Duration,
        id: u64,
        token: u64,
        reason: Reason,
        backoff: Duration,
    ) -> Result<Nacked, Refused> {
        let consumer = self.holder(now, id, token)?;
        Ok(self.fail(id, now + backoff, |attempt| Failure::nacked(attempt, consumer, reason)))
    }

    pub(super) fn dead_letters(&mut self, now: Duration, page: &Page, clock: Clock) -> Vec<DeadLetter> {
        self.expire(now);
        let after = page.after.as_ref().and_then(JobId::as_number).unwrap_or(0);
        let letters = self.dead.range(after + 1..).take(page.limit.get() + 1);
        letters.map(|(id, job)| job.to_dead_letter(*id, clock)).collect()
    }

    pub(super) fn requeue_dead(&mut self, now: Duration, id: u64) -> Option<JobId> {
        self.expire(now);
        let job = self.dead.remove(&id)?;
        Some(JobId::from_number(self.insert(now, job.payload, job.max_attempts, now)))
    }

    pub(super) fn purge_dead(&mut self, now: Duration, id: u64) -> Option<()> {
        self.expire(now);
        self.dead.remove(&id).map(|_| ())
    }

    pub(super) fn depth(&mut self, now: Duration) -> Depth {
        self.expire(now);
        let mut depth = Depth { dead: self.dead.len() as u64, ..Depth::default() };
        for job in self.live.values() {
            match job.phase {
                Phase::Leased { .. } => depth.leased += 1,
                Phase::Waiting { ready_at } if ready_at > now => depth.delayed += 1,
                Phase::Waiting { ready_at } => {
                    depth.ready += 1;
                    depth.oldest_age = depth.oldest_age.max(Some(now - ready_at));
                }
            }
        }
        depth
    }

    fn insert(
        &mut self,
        now: Duration,
        payload: Payload,
        max_attempts: MaxAttempts,
        ready_at: Duration,
    ) -> u64 {
        self.last_id += 1;
        let phase = Phase::Waiting { ready_at };
        let job = Job { payload, enqueued_at: now, max_attempts, attempt: 0, failures: Vec::new(), phase };
        self.due.insert((ready_at, self.last_id));
        self.live.insert(self.last_id, job);
        self.last_id
    }

    /// Ends the leases that are over: their jobs are ready or dead.
    fn expire(&mut self, now: Duration) {
        let over = self.due.iter().take_while(|(due, _)| *due <= now);
        let over: Vec<_> =
            over.filter_map(|(due, id)| self.live[id].consumer().map(|by| (*due, *id, by))).collect();
        for (expired_at, id, consumer) in over {
            self.fail(id, expired_at, |attempt| Failure::expired(attempt, consumer));
        }
    }

    fn take(&mut self, now: Duration, id: u64, request: &LeaseRequest) -> Option<Taken> {
        self.last_token += 1;
        let token = self.last_token;
        let expires_at = now + request.visibility.get();
        self.set_phase(id, Phase::Leased { token, consumer: request.consumer.clone(), expires_at });
        let job = self.live.get_mut(&id)?;
        job.attempt += 1;
        let (payload, attempt, enqueued_at) = (job.payload.clone(), job.attempt, job.enqueued_at);
        Some(Taken { id, token, payload, attempt, enqueued_at, expires_at })
    }

    /// Who holds the job, if it is held by this very lease and the lease is not over.
    fn holder(&self, now: Duration, id: u64, held: u64) -> Result<ConsumerName, Refused> {
        match self.live.get(&id).map(|job| &job.phase) {
            Some(Phase::Leased { token, consumer, expires_at }) if *token == held && now < *expires_at => {
                Ok(consumer.clone())
            }
            _ => Err(Refused),
        }
    }

    fn fail(&mut self, id: u64, ready_at: Duration, failure: impl FnOnce(u16) -> Failure) -> Nacked {
        self.set_phase(id, Phase::Waiting { ready_at });
        let Some(job) = self.live.get_mut(&id) else { return Nacked::Dead };
        job.failures.push(failure(job.attempt));
        if !job.max_attempts.used_up_by(job.attempt) {
            return Nacked::WillRetry;
        }
        if let Some(job) = self.remove(id) {
            self.dead.insert(id, job);
        }
        Nacked::Dead
    }

    fn set_phase(&mut self, id: u64, phase: Phase) {
        let Some(job) = self.live.get_mut(&id) else { return };
        self.due.remove(&(job.phase.due(), id));
        self.due.insert((phase.due(), id));
        job.phase = phase;
    }

    fn remove(&mut self, id: u64) -> Option<Job> {
        let job = self.live.remove(&id)?;
        self.due.remove(&(job.phase.due(), id));
        Some(job)
    }
}

impl Job {
    fn consumer(&self) -> Option<ConsumerName> {
        match &self.phase {
            Phase::Leased { consumer, .. } => Some(consumer.clone()),
            Phase::Waiting { .. } => None,
        }
    }

    fn to_dead_letter(&self, id: u64, clock: Clock) -> DeadLetter {
        DeadLetter {
            id: JobId::from_number(id),
            payload: self.payload.clone(),
            enqueued_at: clock.wall(self.enqueued_at),
            max_attempts: self.max_attempts,
            failures: self.failures.clone(),
        }
    }
}

/// A leased job, its times still counted from the start.
#[derive(Debug)]
pub(super) struct Taken {
    id: u64,
    token: u64,
    payload: Payload,
    attempt: u16,
    enqueued_at: Duration,
    expires_at: Duration,
}

impl Taken {
    pub(super) fn into_leased(self, queue: &QueueName, clock: Clock) -> LeasedJob {
        let lease = Lease {
            queue: queue.clone(),
            job: JobId::from_number(self.id),
            token: LeaseToken::new(self.token.to_string()),
            expires_at: clock.wall(self.expires_at),
        };
        LeasedJob {
            payload: self.payload,
            attempt: self.attempt,
            enqueued_at: clock.wall(self.enqueued_at),
            lease,
        }
    }
}
