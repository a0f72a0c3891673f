//! Jobs and dead letters as messages.

use crate::error::{Step, corrupt};
use crate::record::{Record, micros, since_epoch, time};
use async_nats::HeaderMap;
use async_nats::Subject;
use async_nats::jetstream::Message;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use bytes::{BufMut, Bytes, BytesMut};
use flames_queue::{DeadLetter, Failure, JobId, MaxAttempts, NewJob, Payload};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

const DELAY: &str = "Flames-Delay-Us";
const MAX_ATTEMPTS: &str = "Flames-Max-Attempts";

/// A job as its headers tell it.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// Its sequence in the stream, which is the job's id.
    pub(crate) sequence: u64,
    pub(crate) enqueued_at: SystemTime,
    /// Microseconds since 1970.
    pub(crate) ready_at: u64,
    pub(crate) max_attempts: MaxAttempts,
}

/// The right to look at a job, from the server.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) envelope: Envelope,
    pub(crate) payload: Bytes,
    /// Where to give the ticket back.
    pub(crate) reply: Subject,
    /// True if nobody has had a ticket for this job before, as far as the server remembers.
    pub(crate) is_first: bool,
}

impl Envelope {
    pub(crate) fn id(&self) -> JobId {
        JobId::from_number(self.sequence)
    }

    pub(crate) fn of_stored(message: &StreamMessage) -> Step<Self> {
        Self::new(message.sequence, message.time.into(), Some(&message.headers))
    }

    /// Of a message of a consumer, which may have headers only.
    pub(crate) fn of_delivered(message: &Message) -> Step<Self> {
        let info = message.info().map_err(corrupt)?;
        Self::new(info.stream_sequence, info.published.into(), message.headers.as_ref())
    }

    fn new(sequence: u64, enqueued_at: SystemTime, headers: Option<&HeaderMap>) -> Step<Self> {
        let delay = number(headers, DELAY)?;
        let attempts = u16::try_from(number(headers, MAX_ATTEMPTS)?).map_err(corrupt)?;
        let max_attempts = MaxAttempts::new(attempts).map_err(corrupt)?;
        Ok(Self {
            sequence,
            enqueued_at,
            ready_at: since_epoch(enqueued_at).saturating_add(delay),
            max_attempts,
        })
    }
}

impl Ticket {
    pub(crate) fn of(message: Message) -> Step<Self> {
        let envelope = Envelope::of_delivered(&message)?;
        let is_first = message.info().map_err(corrupt)?.delivered <= 1;
        let reply = message.reply.clone().ok_or_else(|| corrupt("a ticket without a reply subject"))?;
        Ok(Self { envelope, payload: message.message.payload, reply, is_first })
    }
}

/// A job on its way into the stream.
pub(crate) fn message_of(job: &NewJob) -> PublishMessage {
    let message = PublishMessage::build()
        .payload(job.payload.as_bytes().clone())
        .header(DELAY, micros(job.delay.get()).to_string().as_str())
        .header(MAX_ATTEMPTS, job.max_attempts.get().to_string().as_str());
    match &job.dedup_key {
        // In hex, since a header cannot hold a line break.
        Some(key) => message.message_id(hex(key.as_str().as_bytes())),
        None => message,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(headers: Option<&HeaderMap>, name: &str) -> Step<u64> {
    let value = headers.and_then(|headers| headers.get(name));
    value
        .and_then(|value| value.as_str().parse().ok())
        .ok_or_else(|| corrupt(format!("a job without {name}")))
}

/// What a dead letter tells besides the payload: the first line of its message.
#[derive(Debug, Serialize, Deserialize)]
struct Epitaph {
    enqueued_at: u64,
    max_attempts: u16,
    failures: Vec<Failure>,
}

/// The dead letter of a job: a line of JSON, then the payload.
pub(crate) fn bury(envelope: &Envelope, record: &Record, payload: &[u8]) -> Step<Bytes> {
    let epitaph = Epitaph {
        enqueued_at: since_epoch(envelope.enqueued_at),
        max_attempts: envelope.max_attempts.get(),
        failures: record.failures.clone(),
    };
    let mut body = BytesMut::new().writer();
    serde_json::to_writer(&mut body, &epitaph).map_err(corrupt)?;
    let mut body = body.into_inner();
    body.put_u8(b'\n');
    body.put_slice(payload);
    Ok(body.freeze())
}

pub(crate) fn exhume(id: &JobId, body: &Bytes) -> Step<DeadLetter> {
    let line = body
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| corrupt("a dead letter without a payload"))?;
    let epitaph: Epitaph = serde_json::from_slice(&body[..line]).map_err(corrupt)?;
    Ok(DeadLetter {
        id: id.clone(),
        payload: Payload::new(body.slice(line + 1..)).map_err(corrupt)?,
        enqueued_at: time(epitaph.enqueued_at),
        max_attempts: MaxAttempts::new(epitaph.max_attempts).map_err(corrupt)?,
        failures: epitaph.failures,
    })
}
