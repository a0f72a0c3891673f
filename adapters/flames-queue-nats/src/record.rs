//! The record of a job, and what to do with a ticket for it: decisions without a server and without a clock.
//!
//! ```text
//! no record ── lease ──> Leased ── nack ──> Waiting ── lease ──> Leased ...
//!                          │ ack: record and job are deleted
//!                          └── last attempt nacked or expired ──> Dead ── dead letter is written, job deleted
//! ```

use flames_queue::{ConsumerName, Failure, MaxAttempts, Reason};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// What the book says of a job. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) attempt: u16,
    pub(crate) phase: Phase,
    pub(crate) failures: Vec<Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Waiting { ready_at: u64 },
    Leased { consumer: ConsumerName, expires_at: u64 },
    Dead,
}

/// What the holder of a ticket does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing before so long.
    LookAgainIn(Duration),
    /// Write this record, and the job is yours.
    Lease(Record),
    /// Write this record, then the dead letter.
    Bury(Record),
}

impl Record {
    /// Of a job that nobody has leased yet.
    pub(crate) fn fresh(ready_at: u64) -> Self {
        Self { attempt: 0, phase: Phase::Waiting { ready_at }, failures: Vec::new() }
    }

    /// What to do about the job now.
    pub(crate) fn next(
        self,
        now: u64,
        max: MaxAttempts,
        consumer: &ConsumerName,
        visibility: Duration,
    ) -> Next {
        match self.settled(now, max) {
            Self {
                phase: Phase::Waiting { ready_at: due } | Phase::Leased { expires_at: due, .. }, ..
            } if due > now => Next::LookAgainIn(Duration::from_micros(due - now)),
            record if record.phase == Phase::Dead => Next::Bury(record),
            record => Next::Lease(record.leased(consumer, now + micros(visibility))),
        }
    }

    /// The same, a lease that is over counted as a failure.
    pub(crate) fn settled(mut self, now: u64, max: MaxAttempts) -> Self {
        match self.phase {
            Phase::Leased { consumer, expires_at } if expires_at <= now => {
                self.failures.push(Failure::expired(self.attempt, consumer));
                self.phase = after_failure(self.attempt, max, expires_at);
                self
            }
            _ => self,
        }
    }

    /// The holder gave the job back; `None` if its lease is over.
    pub(crate) fn nacked(
        mut self,
        now: u64,
        max: MaxAttempts,
        reason: Reason,
        backoff: Duration,
    ) -> Option<Self> {
        let consumer = self.holder(now)?.clone();
        self.failures.push(Failure::nacked(self.attempt, consumer, reason));
        self.phase = after_failure(self.attempt, max, now + micros(backoff));
        Some(self)
    }

    /// The lease ends later, or earlier; `None` if it is over.
    pub(crate) fn extended(mut self, now: u64, visibility: Duration) -> Option<Self> {
        let consumer = self.holder(now)?.clone();
        self.phase = Phase::Leased { consumer, expires_at: now + micros(visibility) };
        Some(self)
    }

    fn leased(mut self, consumer: &ConsumerName, expires_at: u64) -> Self {
        self.attempt += 1;
        self.phase = Phase::Leased { consumer: consumer.clone(), expires_at };
        self
    }

    fn holder(&self, now: u64) -> Option<&ConsumerName> {
        match &self.phase {
            Phase::Leased { consumer, expires_at } if *expires_at > now => Some(consumer),
            _ => None,
        }
    }
}

fn after_failure(attempt: u16, max: MaxAttempts, ready_at: u64) -> Phase {
    if max.used_up_by(attempt) { Phase::Dead } else { Phase::Waiting { ready_at } }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn since_epoch(time: SystemTime) -> u64 {
    micros(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

pub(crate) fn time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBILITY: Duration = Duration::from_micros(10);

    fn two() -> MaxAttempts {
        MaxAttempts::new(2).unwrap()
    }

    fn next(record: &Record, now: u64) -> Next {
        record.clone().next(now, two(), &ConsumerName::new("c").unwrap(), VISIBILITY)
    }

    fn lease(record: &Record, now: u64) -> Record {
        match next(record, now) {
            Next::Lease(record) => record,
            other => panic!("not a lease: {other:?}"),
        }
    }

    #[test]
    fn a_delayed_job_is_looked_at_again_when_its_delay_is_over() {
        assert_eq!(next(&Record::fresh(7), 5), Next::LookAgainIn(Duration::from_micros(2)));
        assert_eq!(lease(&Record::fresh(7), 7).attempt, 1);
    }

    #[test]
    fn a_lease_is_handed_over_only_when_it_is_over_and_buried_when_it_was_the_last() {
        let first = lease(&Record::fresh(0), 0);
        assert_eq!(next(&first, 9), Next::LookAgainIn(Duration::from_micros(1)));
        let second = lease(&first, 10);
        assert_eq!((second.attempt, second.failures.len()), (2, 1));
        let Next::Bury(dead) = next(&second, 20) else { panic!("it has no attempts left") };
        assert_eq!(dead.failures.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn nothing_can_be_done_with_a_lease_that_is_over() {
        let leased = lease(&Record::fresh(0), 0);
        assert!(leased.clone().extended(10, VISIBILITY).is_none());
        assert!(leased.clone().nacked(10, two(), Reason::new("late"), VISIBILITY).is_none());
        assert!(leased.extended(9, VISIBILITY).is_some());
    }

    #[test]
    fn a_nacked_job_waits_for_its_backoff_and_a_last_nack_kills_it() {
        let first = lease(&Record::fresh(0), 0).nacked(5, two(), Reason::new("no"), VISIBILITY).unwrap();
        assert_eq!(first.phase, Phase::Waiting { ready_at: 15 });
        let second = lease(&first, 15).nacked(16, two(), Reason::new("no"), VISIBILITY).unwrap();
        assert_eq!(second.phase, Phase::Dead);
    }
}
