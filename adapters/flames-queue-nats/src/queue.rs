//! [`NatsQueue`]: the story of each call, told in steps on the [`Shelf`].

use crate::config::NatsQueueConfig;
use crate::error::{ADAPTER, Fault, Step, corrupt, lost, no_dead};
use crate::record::{Next, Phase, Record, since_epoch, time};
use crate::scan;
use crate::shelf::Shelf;
use crate::ticket::{Envelope, Ticket, exhume, message_of};
use async_nats::connection::State;
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::{Client, Subject};
use async_trait::async_trait;
use flames_queue::{
    DeadLetter, DeadLetterPage, Delay, Depth, Enqueued, Error, ErrorKind, JobId, Lease, LeaseRequest,
    LeaseToken, LeasedJob, Nacked, NewJob, Novelty, Page, Payload, QueueName, Reason, Result, Visibility,
    WorkQueue,
};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A [`WorkQueue`] in NATS JetStream.
#[derive(Debug)]
pub struct NatsQueue {
    config: NatsQueueConfig,
    client: Client,
    context: Context,
    shelves: Mutex<HashMap<QueueName, Shelf>>,
}

/// Tickets of one call that are looked at together.
const TOGETHER: usize = 32;

impl NatsQueue {
    /// Connects. Streams are made when a queue is first used. A lost connection is made again by itself.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached; `PermissionDenied` for wrong credentials.
    pub async fn open(config: NatsQueueConfig) -> Result<Self> {
        let client = config
            .options()
            .connect(config.server())
            .await
            .map_err(|error| refused(error, &config.place()))?;
        let context = ContextBuilder::new().timeout(config.call_timeout).ack_timeout(config.call_timeout);
        let context = context.build(client.clone());
        Ok(Self { config, client, context, shelves: Mutex::default() })
    }

    /// The queue's streams, made if this process has not used them yet.
    async fn shelf(&self, queue: &QueueName) -> Step<Shelf> {
        if self.client.connection_state() != State::Connected {
            // The client would keep the message and send it later, when the caller has given up.
            return Err(Fault::Unreachable("the connection is down and is being made again".into()));
        }
        let known = self.shelves.lock().unwrap_or_else(PoisonError::into_inner).get(queue).cloned();
        if let Some(shelf) = known {
            return Ok(shelf);
        }
        let shelf = Shelf::open(self.context.clone(), queue, &self.config).await?;
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner).insert(queue.clone(), shelf.clone());
        Ok(shelf)
    }

    async fn add(&self, queue: &QueueName, job: NewJob) -> Step<Enqueued> {
        let added = self.shelf(queue).await?.add(message_of(&job)).await?;
        let novelty = if added.duplicate { Novelty::Duplicate } else { Novelty::Fresh };
        Ok(Enqueued { id: JobId::from_number(added.sequence), novelty })
    }

    async fn take(&self, queue: &QueueName, request: &LeaseRequest) -> Step<Vec<LeasedJob>> {
        let shelf = self.shelf(queue).await?;
        let give_up = Instant::now() + request.wait.get();
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let tickets = shelf.tickets(request.max.get(), left).await?;
            let was_empty = tickets.is_empty();
            let jobs = look_at_all(&shelf, tickets, request).await?;
            // Without a wait, too, tickets that led to no job are followed by others.
            if !jobs.is_empty() || (was_empty && Instant::now() >= give_up) {
                return Ok(jobs);
            }
        }
    }

    /// Deleting the record is what decides: it is there in this form only while the lease holds.
    async fn finish(&self, lease: &Lease, held: Held) -> Step<()> {
        let shelf = self.shelf(&lease.queue).await?;
        if lease.expires_at <= SystemTime::now() || !shelf.erase(held.record).await? {
            return Err(Fault::Moved);
        }
        shelf.remove_job(held.job, Some(&held.reply)).await
    }

    async fn prolong(&self, lease: &Lease, held: Held, visibility: Duration) -> Step<Lease> {
        let shelf = self.shelf(&lease.queue).await?;
        let record = current(&shelf, lease, &held).await?;
        let now = SystemTime::now();
        let record = record.extended(since_epoch(now), visibility).ok_or(Fault::Moved)?;
        let sequence = shelf.write(&lease.job, &record, held.record).await?;
        shelf.look_again_in(&held.reply, visibility).await?;
        let token = Held { record: sequence, ..held }.token();
        Ok(Lease { token, expires_at: now + visibility, ..lease.clone() })
    }

    async fn give_back(&self, lease: &Lease, held: Held, reason: Reason, backoff: Duration) -> Step<Nacked> {
        let shelf = self.shelf(&lease.queue).await?;
        let record = current(&shelf, lease, &held).await?;
        let Some(job) = shelf.job(held.job).await? else { return Err(Fault::Moved) };
        let envelope = Envelope::of_stored(&job)?;
        let now = since_epoch(SystemTime::now());
        let record = record.nacked(now, envelope.max_attempts, reason, backoff).ok_or(Fault::Moved)?;
        let sequence = shelf.write(&lease.job, &record, held.record).await?;
        if record.phase == Phase::Dead {
            shelf.bury(&envelope, (sequence, &record), Some(&held.reply)).await?;
            return Ok(Nacked::Dead);
        }
        shelf.look_again_in(&held.reply, backoff).await?;
        Ok(Nacked::WillRetry)
    }

    async fn list_dead(&self, queue: &QueueName, page: &Page) -> Step<Vec<DeadLetter>> {
        let shelf = self.shelf(queue).await?;
        let ids = scan::dead_in_order(&shelf).await?;
        let mut letters = Vec::new();
        for id in ids.into_iter().filter(|id| page.after.as_ref().is_none_or(|after| id > after)) {
            if letters.len() > page.limit.get() {
                break;
            }
            if let Some(message) = shelf.dead_letter(&id).await? {
                letters.push(exhume(&id, &message.payload)?);
            }
        }
        Ok(letters)
    }

    async fn revive(&self, queue: &QueueName, id: &JobId) -> Step<Option<JobId>> {
        let shelf = self.shelf(queue).await?;
        scan::dead_in_order(&shelf).await?;
        let Some(message) = shelf.dead_letter(id).await? else { return Ok(None) };
        let letter = exhume(id, &message.payload)?;
        let job = NewJob::new(letter.payload).max_attempts(letter.max_attempts);
        // First the new one, then the end of the old: a crash in between leaves two, never none. The message id
        // makes two people who requeue the same letter add one job.
        let added = shelf.add(message_of(&job).message_id(format!("requeue-{id}"))).await?;
        Ok(shelf.erase(message.sequence).await?.then(|| JobId::from_number(added.sequence)))
    }

    async fn forget(&self, queue: &QueueName, id: &JobId) -> Step<bool> {
        let shelf = self.shelf(queue).await?;
        match shelf.dead_letter(id).await? {
            Some(message) => shelf.erase(message.sequence).await,
            None => Ok(false),
        }
    }
}

#[async_trait]
impl WorkQueue for NatsQueue {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn enqueue(&self, queue: &QueueName, job: NewJob) -> Result<Enqueued> {
        self.add(queue, job).await.map_err(|fault| fault.about("enqueue", queue.as_str()))
    }

    async fn lease(&self, queue: &QueueName, request: LeaseRequest) -> Result<Vec<LeasedJob>> {
        self.take(queue, &request).await.map_err(|fault| fault.about("lease", queue.as_str()))
    }

    async fn extend(&self, lease: &Lease, visibility: Visibility) -> Result<Lease> {
        let held = Held::parse(lease).ok_or_else(|| lost("extend", &lease.job))?;
        let extended = self.prolong(lease, held, visibility.get()).await;
        extended.map_err(|fault| fault.about("extend", lease.job.as_str()))
    }

    async fn ack(&self, lease: &Lease) -> Result<()> {
        let held = Held::parse(lease).ok_or_else(|| lost("ack", &lease.job))?;
        self.finish(lease, held).await.map_err(|fault| fault.about("ack", lease.job.as_str()))
    }

    async fn nack(&self, lease: &Lease, reason: &Reason, backoff: Delay) -> Result<Nacked> {
        let held = Held::parse(lease).ok_or_else(|| lost("nack", &lease.job))?;
        let nacked = self.give_back(lease, held, reason.clone(), backoff.get()).await;
        nacked.map_err(|fault| fault.about("nack", lease.job.as_str()))
    }

    async fn dead_letters(&self, queue: &QueueName, page: Page) -> Result<DeadLetterPage> {
        let letters = self.list_dead(queue, &page).await;
        let letters = letters.map_err(|fault| fault.about("dead_letters", queue.as_str()))?;
        Ok(DeadLetterPage::from_overfull(letters, page.limit))
    }

    async fn requeue_dead(&self, queue: &QueueName, id: &JobId) -> Result<JobId> {
        id.as_number().ok_or_else(|| no_dead("requeue_dead", id))?;
        let revived =
            self.revive(queue, id).await.map_err(|fault| fault.about("requeue_dead", id.as_str()))?;
        revived.ok_or_else(|| no_dead("requeue_dead", id))
    }

    async fn purge_dead(&self, queue: &QueueName, id: &JobId) -> Result<()> {
        id.as_number().ok_or_else(|| no_dead("purge_dead", id))?;
        let forgotten =
            self.forget(queue, id).await.map_err(|fault| fault.about("purge_dead", id.as_str()))?;
        if forgotten { Ok(()) } else { Err(no_dead("purge_dead", id)) }
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        let counted = async { scan::depth(&self.shelf(queue).await?).await };
        counted.await.map_err(|fault| fault.about("depth", queue.as_str()))
    }
}

/// Leases what can be leased of these jobs, and gives the other tickets back.
async fn look_at_all(shelf: &Shelf, tickets: Vec<Ticket>, request: &LeaseRequest) -> Step<Vec<LeasedJob>> {
    let looks = tickets.into_iter().map(|ticket| look(shelf, ticket, request));
    let looks: Vec<_> = futures::stream::iter(looks).buffer_unordered(TOGETHER).collect().await;
    let (good, bad): (Vec<_>, Vec<_>) = looks.into_iter().partition(Step::is_ok);
    let jobs: Vec<_> = good.into_iter().flatten().flatten().collect();
    match bad.into_iter().find_map(Step::err) {
        // A job that is leased must be handed out, also when the look at another one failed.
        Some(fault) if jobs.is_empty() => Err(fault),
        _ => Ok(jobs),
    }
}

/// Does what the record of the ticket's job says.
async fn look(shelf: &Shelf, ticket: Ticket, request: &LeaseRequest) -> Step<Option<LeasedJob>> {
    let id = ticket.envelope.id();
    // A job that was never handed out has no record, but for a server that forgot; then the write is refused.
    let known = if ticket.is_first { None } else { shelf.record(&id).await? };
    let fresh = || (0, Record::fresh(ticket.envelope.ready_at));
    let (sequence, record) = known.unwrap_or_else(fresh);
    let now = since_epoch(SystemTime::now());
    match record.next(now, ticket.envelope.max_attempts, &request.consumer, request.visibility.get()) {
        Next::LookAgainIn(pause) => shelf.look_again_in(&ticket.reply, pause).await.map(|()| None),
        Next::Lease(record) => match shelf.write(&id, &record, sequence).await {
            Ok(sequence) => hand_out(shelf, ticket, &record, sequence, request).await.map(Some),
            Err(Fault::Moved) => shelf.look_again_in(&ticket.reply, AFTER_A_RACE).await.map(|()| None),
            Err(fault) => Err(fault),
        },
        Next::Bury(record) => match shelf.write(&id, &record, sequence).await {
            Ok(sequence) => {
                shelf.bury(&ticket.envelope, (sequence, &record), Some(&ticket.reply)).await.map(|()| None)
            }
            Err(Fault::Moved) => shelf.look_again_in(&ticket.reply, AFTER_A_RACE).await.map(|()| None),
            Err(fault) => Err(fault),
        },
    }
}

/// When somebody else changed the record between reading and writing: look again soon, with fresh eyes.
const AFTER_A_RACE: Duration = Duration::from_millis(10);

async fn hand_out(
    shelf: &Shelf,
    ticket: Ticket,
    record: &Record,
    sequence: u64,
    request: &LeaseRequest,
) -> Step<LeasedJob> {
    shelf.look_again_in(&ticket.reply, request.visibility.get()).await?;
    let Phase::Leased { expires_at, .. } = record.phase else { return Err(Fault::Moved) };
    let held = Held { record: sequence, job: ticket.envelope.sequence, reply: ticket.reply };
    let lease = Lease {
        queue: shelf.queue().clone(),
        job: ticket.envelope.id(),
        token: held.token(),
        expires_at: time(expires_at),
    };
    Ok(LeasedJob {
        payload: Payload::new(ticket.payload).map_err(corrupt)?,
        attempt: record.attempt,
        enqueued_at: ticket.envelope.enqueued_at,
        lease,
    })
}

/// The record, if it is still the one the lease was given with.
async fn current(shelf: &Shelf, lease: &Lease, held: &Held) -> Step<Record> {
    match shelf.record(&lease.job).await? {
        Some((sequence, record)) if sequence == held.record => Ok(record),
        _ => Err(Fault::Moved),
    }
}

/// What a lease token says: the record that proves the lease, and where its ticket is given back.
#[derive(Debug, Clone)]
struct Held {
    record: u64,
    job: u64,
    reply: Subject,
}

impl Held {
    fn token(&self) -> LeaseToken {
        LeaseToken::new(format!("{} {}", self.record, self.reply))
    }

    fn parse(lease: &Lease) -> Option<Self> {
        let (record, reply) = lease.token.as_str().split_once(' ')?;
        Some(Self {
            record: record.parse().ok()?,
            job: lease.job.as_number()?,
            reply: Subject::from(reply.to_owned()),
        })
    }
}

fn refused(error: async_nats::ConnectError, place: &str) -> Error {
    use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation};
    let (kind, detail) = match error.kind() {
        Authentication | AuthorizationViolation => (ErrorKind::PermissionDenied, "wrong user or password"),
        _ => (ErrorKind::Unavailable, "the server cannot be reached"),
    };
    Error::new(kind, "queue server", place).operation("open").adapter(ADAPTER).detail(detail).source(error)
}
