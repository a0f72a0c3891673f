//! Which sandbox ends when: an index over the records, so that nobody has to look at all of them each second.
//!
//! A hint, never the truth: whoever acts on it reads the record first.

use crate::SandboxId;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The index, shared by all tasks.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    index: Mutex<Index>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Index {
    by_time: BTreeSet<(Timestamp, SandboxId)>,
    by_id: HashMap<SandboxId, Timestamp>,
}

impl Deadlines {
    /// Takes over when a sandbox ends, or has to be looked at because it may; `None` is never.
    pub(crate) fn set(&self, id: &SandboxId, at: Option<Timestamp>) {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).set(id, at);
        self.earlier.notify_one();
    }

    /// Forgets a sandbox.
    pub(crate) fn remove(&self, id: &SandboxId) {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).set(id, None);
    }

    /// The sandboxes whose time is over at `now`, and the next moment after that.
    pub(crate) fn due(&self, now: Timestamp) -> (Vec<SandboxId>, Option<Timestamp>) {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).due(now)
    }

    /// Waits until a deadline was set, which may be earlier than all others.
    pub(crate) async fn changed(&self) {
        self.earlier.notified().await;
    }
}

impl Index {
    fn set(&mut self, id: &SandboxId, at: Option<Timestamp>) {
        if let Some(old) = self.by_id.remove(id) {
            self.by_time.remove(&(old, id.clone()));
        }
        if let Some(at) = at {
            self.by_id.insert(id.clone(), at);
            self.by_time.insert((at, id.clone()));
        }
    }

    fn due(&self, now: Timestamp) -> (Vec<SandboxId>, Option<Timestamp>) {
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect();
        let next = self.by_time.iter().map(|(at, _)| *at).find(|at| *at > now);
        (due, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_index_agrees_with_a_plain_map(
            steps in prop::collection::vec((0usize..6, prop::option::of(0i64..50)), 0..40), now in 0i64..50
        ) {
            let ids: Vec<_> = (0..6).map(|_| SandboxId::random()).collect();
            let mut index = Index::default();
            let mut plain: HashMap<SandboxId, i64> = HashMap::new();
            for (which, at) in steps {
                let id = &ids[which];
                index.set(id, at.map(|second| Timestamp::from_second(second).unwrap()));
                match at {
                    Some(second) => drop(plain.insert(id.clone(), second)),
                    None => drop(plain.remove(id)),
                }
            }
            let (mut due, next) = index.due(Timestamp::from_second(now).unwrap());
            let mut expected: Vec<_> = plain.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
            due.sort();
            expected.sort();
            prop_assert_eq!(due, expected);
            let later = plain.values().filter(|at| **at > now).min().copied();
            prop_assert_eq!(next.map(Timestamp::as_second), later);
        }
    }
}
