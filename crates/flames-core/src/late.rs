//! Sandboxes that could not be paused at their end: when to try again.
//!
//! In memory alone: after a restart of the daemon the tries begin anew.

use crate::SandboxId;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// After the first try that failed, in seconds; twice as long after each further one.
const FIRST_WAIT_S: i64 = 1;
/// The longest between two tries, in seconds.
const LONGEST_WAIT_S: i64 = 300;

/// The sandboxes that are late.
#[derive(Debug, Default)]
pub(crate) struct Late {
    tries: Mutex<HashMap<SandboxId, Tries>>,
}

/// The tries to pause one sandbox at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tries {
    /// The end; another one begins anew.
    end: Option<Timestamp>,
    count: u32,
    not_before: Timestamp,
}

/// Whether to try now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    /// Yes; the first at this end, or one after failures.
    Now(Which),
    /// Not before this moment.
    Later(Timestamp),
}

/// Which try it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The first at this end: its failure is news.
    First,
    /// One after failures.
    Again,
}

impl Late {
    /// Asks to try now. Whoever may has used up this try: the next is due only after a wait, whatever becomes of this one.
    pub(crate) fn begin(&self, id: &SandboxId, end: Option<Timestamp>, now: Timestamp) -> Try {
        let mut all = self.tries();
        let earlier = all.get(id).filter(|tries| tries.end == end).copied();
        let (answer, tries) = next(earlier, end, now);
        all.insert(id.clone(), tries);
        answer
    }

    /// When the next try is due; `None` if there was none.
    pub(crate) fn next(&self, id: &SandboxId) -> Option<Timestamp> {
        self.tries().get(id).map(|tries| tries.not_before)
    }

    /// Forgets a sandbox that rests, or is gone.
    pub(crate) fn forget(&self, id: &SandboxId) {
        self.tries().remove(id);
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<SandboxId, Tries>> {
        // A panic cannot leave an entry half-changed.
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next(earlier: Option<Tries>, end: Option<Timestamp>, now: Timestamp) -> (Try, Tries) {
    let count = match earlier {
        Some(tries) if now < tries.not_before => return (Try::Later(tries.not_before), tries),
        Some(tries) => tries.count.saturating_add(1),
        None => 1,
    };
    let which = if count == 1 { Which::First } else { Which::Again };
    let not_before = now.checked_add(wait_after(count)).unwrap_or(Timestamp::MAX);
    (Try::Now(which), Tries { end, count, not_before })
}

/// How long to wait after so many tries.
fn wait_after(tries: u32) -> SignedDuration {
    let doubled = FIRST_WAIT_S.checked_shl(tries.saturating_sub(1).min(32)).unwrap_or(LONGEST_WAIT_S);
    SignedDuration::from_secs(doubled.min(LONGEST_WAIT_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn waits_double_and_end_at_the_longest() {
        let waits: Vec<i64> = (1..=11).map(|tries| wait_after(tries).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait_after(u32::MAX).as_secs(), LONGEST_WAIT_S);
    }

    #[test]
    fn a_try_too_early_costs_none_and_another_end_begins_anew() {
        let (late, id) = (Late::default(), SandboxId::random());
        let end = Some(second(100));
        assert_eq!(late.begin(&id, end, second(100)), Try::Now(Which::First));
        assert_eq!(late.begin(&id, end, second(100)), Try::Later(second(101)));
        assert_eq!(late.begin(&id, end, second(101)), Try::Now(Which::Again));
        assert_eq!(late.next(&id), Some(second(103)));
        assert_eq!(late.begin(&id, Some(second(102)), second(102)), Try::Now(Which::First));
        late.forget(&id);
        assert_eq!(late.next(&id), None);
    }
}
