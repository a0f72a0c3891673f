//! The two streams and the consumer of one queue, and the single steps on them.

use crate::config::NatsQueueConfig;
use crate::error::{Fault, Step, corrupt};
use crate::record::Record;
use crate::ticket::{Envelope, Ticket, bury};
use async_nats::Subject;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, PullConsumer, pull};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::message::{AckKind, PublishMessage, StreamMessage};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DeleteStatus, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use flames_queue::{JobId, QueueName};
use futures::StreamExt;
use std::time::Duration;

/// How long the server waits for an answer to a ticket: what a consumer that dies in the moment between getting
/// a ticket and giving it back costs its job.
pub const TICKET_WAIT: Duration = Duration::from_secs(5);

const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Everything about one queue that lives on the server.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    context: Context,
    queue: QueueName,
    pub(crate) jobs: Stream<()>,
    pub(crate) book: Stream<()>,
    tickets: PullConsumer,
    call_timeout: Duration,
}

impl Shelf {
    /// Makes what is missing on the server.
    pub(crate) async fn open(context: Context, queue: &QueueName, config: &NatsQueueConfig) -> Step<Self> {
        let (jobs_name, book_name) = (format!("FLAMES_{queue}_JOBS"), format!("FLAMES_{queue}_BOOK"));
        let jobs = Config {
            subjects: vec![jobs_subject(queue)],
            duplicate_window: config.dedup_window.get(),
            ..stream_config(&jobs_name, config)
        };
        let book = Config {
            subjects: vec![lease_subject(queue, "*"), dead_subject(queue, "*")],
            max_messages_per_subject: 1,
            ..stream_config(&book_name, config)
        };
        context.create_or_update_stream(jobs).await?;
        context.create_or_update_stream(book).await?;
        let jobs =
            context.get_stream_no_info(&jobs_name).await.map_err(|error| Fault::Refused(error.into()))?;
        let book =
            context.get_stream_no_info(&book_name).await.map_err(|error| Fault::Refused(error.into()))?;
        let tickets = jobs.create_consumer(tickets_config()).await?;
        let call_timeout = config.call_timeout;
        Ok(Self { context, queue: queue.clone(), jobs, book, tickets, call_timeout })
    }

    /// Adds a job; the answer tells its sequence, or the first one's for a duplicate.
    pub(crate) async fn add(&self, message: PublishMessage) -> Step<jetstream::publish::PublishAck> {
        Ok(self.context.send_publish(jobs_subject(&self.queue), message).await?.await?)
    }

    /// The tickets there are, up to `max`; with none, waits for the first ones up to `wait` on the server.
    ///
    /// A request that waits is renewed every few seconds, so that a server that is gone is noticed. One that does
    /// not wait is given a moment too: without, the server may keep it unanswered when several come for one ticket.
    pub(crate) async fn tickets(&self, max: usize, wait: Duration) -> Step<Vec<Ticket>> {
        let wait = wait.clamp(SHORTEST_WAIT, LONGEST_WAIT);
        let fetch = async {
            let batch = self.tickets.fetch().max_messages(max).expires(wait).messages().await;
            let mut batch = batch.map_err(|error| Fault::Refused(error.into()))?;
            let mut tickets = Vec::new();
            while let Some(message) = batch.next().await {
                tickets.push(Ticket::of(message.map_err(Fault::Refused)?)?);
            }
            Ok(tickets)
        };
        let patience = wait + self.call_timeout;
        tokio::time::timeout(patience, fetch).await.unwrap_or_else(|late| Err(Fault::Silent(late.into())))
    }

    /// Gives a ticket back until then. Nobody waits for the answer: if this is lost, the server hands the ticket
    /// out again after [`TICKET_WAIT`], and the record says what to do.
    pub(crate) async fn look_again_in(&self, reply: &Subject, pause: Duration) -> Step<()> {
        let nak = AckKind::Nak(Some(pause)).into();
        self.context
            .client()
            .publish(reply.clone(), nak)
            .await
            .map_err(|error| Fault::Unreachable(error.into()))
    }

    /// The record of a job and its sequence.
    pub(crate) async fn record(&self, id: &JobId) -> Step<Option<(u64, Record)>> {
        let Some(message) = self.last(lease_subject(&self.queue, id.as_str())).await? else {
            return Ok(None);
        };
        Ok(Some((message.sequence, serde_json::from_slice(&message.payload).map_err(corrupt)?)))
    }

    /// Writes a record if the last one still has the sequence `expected` (0: there is none).
    pub(crate) async fn write(&self, id: &JobId, record: &Record, expected: u64) -> Step<u64> {
        let body = serde_json::to_vec(record).map_err(corrupt)?;
        self.write_if(lease_subject(&self.queue, id.as_str()), body.into(), expected).await
    }

    /// Deletes a record if it is still the last one of its job, and says whether it was.
    pub(crate) async fn erase(&self, sequence: u64) -> Step<bool> {
        self.delete("BOOK", sequence).await
    }

    /// Deletes a job with its ticket.
    pub(crate) async fn remove_job(&self, sequence: u64, reply: Option<&Subject>) -> Step<()> {
        self.delete("JOBS", sequence).await?;
        if let Some(reply) = reply {
            // If this is lost, the server finds out by itself that the message is gone.
            let ack = self.context.client().publish(reply.clone(), AckKind::Ack.into()).await;
            ack.map_err(|error| Fault::Unreachable(error.into()))?;
        }
        Ok(())
    }

    /// Writes the dead letter of a job whose record says so, then deletes the job and the record. May be
    /// repeated by anybody at any point.
    pub(crate) async fn bury(
        &self,
        envelope: &Envelope,
        record: (u64, &Record),
        reply: Option<&Subject>,
    ) -> Step<()> {
        let Some(job) = self.job(envelope.sequence).await? else {
            return self.erase(record.0).await.map(|_| ());
        };
        let letter = bury(envelope, record.1, &job.payload)?;
        match self.write_if(dead_subject(&self.queue, envelope.id().as_str()), letter, 0).await {
            Ok(_) | Err(Fault::Moved) => {} // moved: it is written already
            Err(fault) => return Err(fault),
        }
        self.remove_job(envelope.sequence, reply).await?;
        self.erase(record.0).await.map(|_| ())
    }

    /// A stored job; `None` if it is gone.
    pub(crate) async fn job(&self, sequence: u64) -> Step<Option<StreamMessage>> {
        match self.jobs.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The message of a dead letter; `None` if there is none.
    pub(crate) async fn dead_letter(&self, id: &JobId) -> Step<Option<StreamMessage>> {
        self.last(dead_subject(&self.queue, id.as_str())).await
    }

    pub(crate) fn queue(&self) -> &QueueName {
        &self.queue
    }

    async fn last(&self, subject: String) -> Step<Option<StreamMessage>> {
        match self.book.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn write_if(&self, subject: String, body: Bytes, expected: u64) -> Step<u64> {
        let message = PublishMessage::build().payload(body).expected_last_subject_sequence(expected);
        Ok(self.context.send_publish(subject, message).await?.await?.sequence)
    }

    async fn delete(&self, stream: &str, sequence: u64) -> Step<bool> {
        // Overwriting the bytes, as is the default: this server keeps other deletions in memory for a while, and a
        // crash would bring the job back.
        let request = serde_json::json!({ "seq": sequence });
        let subject = format!("STREAM.MSG.DELETE.FLAMES_{}_{stream}", self.queue);
        match self.context.request::<_, _, Response<DeleteStatus>>(subject, &request).await? {
            Response::Ok(status) => Ok(status.success),
            Response::Err { error } if is_gone(error.error_code()) => Ok(false),
            Response::Err { error } => Err(Fault::Refused(error.into())),
        }
    }
}

fn is_gone(code: ErrorCode) -> bool {
    [ErrorCode::NO_MESSAGE_FOUND, ErrorCode::SEQUENCE_NOT_FOUND, ErrorCode::STREAM_MESSAGE_DELETE_FAILED]
        .contains(&code)
}

pub(crate) fn jobs_subject(queue: &QueueName) -> String {
    format!("flames.queue.{queue}.job")
}

pub(crate) fn lease_subject(queue: &QueueName, id: &str) -> String {
    format!("flames.queue.{queue}.lease.{id}")
}

pub(crate) fn dead_subject(queue: &QueueName, id: &str) -> String {
    format!("flames.queue.{queue}.dead.{id}")
}

fn stream_config(name: &str, config: &NatsQueueConfig) -> Config {
    Config {
        name: name.to_owned(),
        // Not WorkQueue: that allows no second reader, and depth needs one.
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: config.replicas,
        ..Config::default()
    }
}

fn tickets_config() -> pull::Config {
    pull::Config {
        durable_name: Some("tickets".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: TICKET_WAIT,
        max_ack_pending: -1, // every delayed and every leased job has its ticket out
        ..pull::Config::default()
    }
}

/// An ephemeral reader of a stream.
pub(crate) async fn reader(stream: &Stream<()>, config: pull::Config) -> Step<Consumer<pull::Config>> {
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        memory_storage: true,
        inactive_threshold: Duration::from_secs(30),
        ..config
    };
    Ok(stream.create_consumer(config).await?)
}
