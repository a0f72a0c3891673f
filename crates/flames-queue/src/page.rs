//! What a queue tells of itself: dead letters and depth.

use crate::{Batch, Failure, JobId, MaxAttempts, Payload};
use std::time::{Duration, SystemTime};

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Jobs that a consumer could take now.
    pub ready: u64,
    /// Jobs that wait for their delay or backoff.
    pub delayed: u64,
    /// Jobs that a consumer holds.
    pub leased: u64,
    /// Jobs that used up their attempts.
    pub dead: u64,
    /// How long the oldest ready job has been ready; `None` if none is.
    pub oldest_age: Option<Duration>,
}

/// A job that used up its attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The job.
    pub id: JobId,
    /// What it carried.
    pub payload: Payload,
    /// When it was added.
    pub enqueued_at: SystemTime,
    /// How many attempts it had.
    pub max_attempts: MaxAttempts,
    /// Each of them, the first one first.
    pub failures: Vec<Failure>,
}

/// Which part of a list to answer.
#[derive(Debug, Clone)]
pub struct Page {
    /// Only what comes after this one; from the start if `None`.
    pub after: Option<JobId>,
    /// The most items to answer.
    pub limit: Batch,
}

impl Page {
    /// The first `limit` ones.
    pub fn first(limit: Batch) -> Self {
        Self { after: None, limit }
    }

    /// The next `limit` ones.
    pub fn after(id: JobId, limit: Batch) -> Self {
        Self { after: Some(id), limit }
    }
}

/// A part of the dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// In the order of their ids.
    pub letters: Vec<DeadLetter>,
    /// Where the next page starts; `None` on the last page.
    pub next: Option<JobId>,
}

impl DeadLetterPage {
    /// For adapters: a page from up to one letter more than `limit`, which tells whether there is a next one.
    pub fn from_overfull(mut letters: Vec<DeadLetter>, limit: Batch) -> Self {
        let more = letters.len() > limit.get();
        letters.truncate(limit.get());
        let next = letters.last().filter(|_| more).map(|letter| letter.id.clone());
        Self { letters, next }
    }
}
