//! A job on its way: as it is enqueued, leased and failed.

use crate::limits::invalid;
use crate::{ConsumerName, Delay, MaxAttempts, QueueName, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::SystemTime;

/// A job to add.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// What the consumer gets.
    pub payload: Payload,
    /// How long the job waits before it is ready.
    pub delay: Delay,
    /// Names the work: a second job with the same key within the dedup window is not added.
    pub dedup_key: Option<DedupKey>,
    /// After so many failed attempts the job is dead.
    pub max_attempts: MaxAttempts,
}

impl NewJob {
    /// A job that is ready at once, without a dedup key and with the default number of attempts.
    pub fn new(payload: Payload) -> Self {
        Self { payload, delay: Delay::NONE, dedup_key: None, max_attempts: MaxAttempts::default() }
    }

    /// Ready only after `delay`.
    #[must_use]
    pub fn delay(mut self, delay: Delay) -> Self {
        self.delay = delay;
        self
    }

    /// Added only once per dedup window.
    #[must_use]
    pub fn dedup_key(mut self, key: DedupKey) -> Self {
        self.dedup_key = Some(key);
        self
    }

    /// Dead after so many attempts.
    #[must_use]
    pub fn max_attempts(mut self, attempts: MaxAttempts) -> Self {
        self.max_attempts = attempts;
        self
    }
}

/// A job that somebody holds.
#[derive(Debug, Clone)]
pub struct LeasedJob {
    /// What to do.
    pub payload: Payload,
    /// The how manieth attempt this is; the first is 1.
    pub attempt: u16,
    /// When the job was added.
    pub enqueued_at: SystemTime,
    /// The right to settle the job.
    pub lease: Lease,
}

/// The right to settle one job until a certain time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The queue of the job.
    pub queue: QueueName,
    /// The job.
    pub job: JobId,
    /// Tells this lease from earlier and later ones of the job; only its adapter can read it.
    pub token: LeaseToken,
    /// When it ends, by the backend's clock.
    pub expires_at: SystemTime,
}

/// What became of an enqueue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// The job's id; of the first one, for a duplicate.
    pub id: JobId,
    /// Whether a job was added.
    pub novelty: Novelty,
}

/// Whether an enqueue added a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// The job was added.
    Fresh,
    /// The dedup key had been used within the window: nothing was added.
    Duplicate,
}

/// What became of a failed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nacked {
    /// It will be ready again after the backoff.
    WillRetry,
    /// That was its last attempt.
    Dead,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt; the first is 1.
    pub attempt: u16,
    /// Who held the lease.
    pub consumer: ConsumerName,
    /// How it ended.
    pub kind: FailureKind,
    /// Why, for people.
    pub reason: Reason,
}

impl Failure {
    /// The consumer said that the attempt failed.
    pub fn nacked(attempt: u16, consumer: ConsumerName, reason: Reason) -> Self {
        Self { attempt, consumer, kind: FailureKind::Nacked, reason }
    }

    /// The consumer said nothing until its lease was over.
    pub fn expired(attempt: u16, consumer: ConsumerName) -> Self {
        let reason = Reason::new("the lease expired before the job was settled");
        Self { attempt, consumer, kind: FailureKind::Expired, reason }
    }
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// The consumer gave it back with a reason.
    Nacked,
    /// The lease expired.
    Expired,
}

/// What a job carries: up to 256 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Payload(Bytes);

impl Payload {
    /// The largest payload, in bytes.
    pub const MAX_LEN: usize = 256 * 1024;

    /// Checks the size.
    ///
    /// # Errors
    /// `InvalidInput` for more than 256 KiB.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.len() > Self::MAX_LEN {
            let mend = "a job carries up to 256 KiB: put more into the blob store and send its key";
            return Err(invalid("payload", format!("{} bytes", bytes.len()), mend));
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Names a piece of work: 1 to 256 bytes of UTF-8 without NUL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DedupKey(String);

impl DedupKey {
    /// Checks a key.
    ///
    /// # Errors
    /// `InvalidInput` for an empty one, for more than 256 bytes and for a NUL character.
    pub fn new(key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        if key.is_empty() || key.len() > 256 || key.contains('\0') {
            return Err(invalid("dedup key", key, "use 1 to 256 bytes without NUL"));
        }
        Ok(Self(key))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why an attempt failed, for people: cut after 1 KiB, so that a hundred of them fit anywhere, and without NUL
/// characters, which not every backend can store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason(String);

impl Reason {
    /// The longest reason, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// Takes a text and cuts it at the limit.
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into().replace('\0', "\u{fffd}");
        text.truncate(text.floor_char_boundary(Self::MAX_LEN));
        Self(text)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of a job, unique in its queue. Given by the backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(String);

impl JobId {
    /// For adapters, and for ids that come back from people: any text.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// For adapters that count: zero-padded, so that the order of the text is the order of the numbers.
    pub fn from_number(number: u64) -> Self {
        Self(format!("{number:020}"))
    }

    /// The number [`JobId::from_number`] was given; `None` for any other id.
    pub fn as_number(&self) -> Option<u64> {
        if self.0.len() == 20 { self.0.parse().ok() } else { None }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells a lease from the other leases of the same job. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseToken(String);

impl LeaseToken {
    /// For adapters.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_past_the_limit_are_refused_with_the_mend() {
        assert!(Payload::new(vec![0; Payload::MAX_LEN]).is_ok());
        let error = Payload::new(vec![0; Payload::MAX_LEN + 1]).unwrap_err();
        assert!(error.to_string().contains("256 KiB"), "{error}");
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let reason = Reason::new("ä".repeat(600));
        assert_eq!(reason.as_str().len(), Reason::MAX_LEN);
        assert_eq!(Reason::new("a\0b").as_str(), "a\u{fffd}b");
        assert_eq!(Reason::new(format!("x{}", "ä".repeat(600))).as_str().len(), Reason::MAX_LEN - 1);
    }

    #[test]
    fn ids_sort_as_the_numbers_they_are_made_of() {
        assert!(JobId::from_number(9) < JobId::from_number(10));
        assert_eq!(JobId::from_number(7).as_number(), Some(7));
        assert_eq!(JobId::new("7").as_number(), None);
    }

    #[test]
    fn dedup_keys_are_bounded() {
        assert!(DedupKey::new("").is_err());
        assert!(DedupKey::new("k".repeat(257)).is_err());
        assert!(DedupKey::new("a\0b").is_err());
        assert_eq!(DedupKey::new("schnürsenkel").unwrap().as_str(), "schnürsenkel");
    }
}
