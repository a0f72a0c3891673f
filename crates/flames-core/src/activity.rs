//! Which sandboxes are in use: what an idle limit is measured by.
//!
//! In memory alone, so that no request writes anything for it: after a restart of the daemon every limit begins anew.

use crate::SandboxId;
use crate::clock::Clock;
use crate::plane::ControlPlane;
use crate::sandbox::record::Sandbox;
use crate::sandbox::state::State;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A sandbox is in use until this is dropped.
#[derive(Debug)]
#[must_use = "the use ends where this is dropped"]
pub struct Work {
    /// `None` for a sandbox whose uses nobody counts.
    counted: Option<(Arc<Activity>, SandboxId)>,
}

/// The uses of the sandboxes that have an idle limit.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Arc<dyn Clock>,
    usages: Mutex<HashMap<SandboxId, Usage>>,
}

/// How much a sandbox is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Requests and streams that have not ended.
    open: usize,
    /// When one of them ended last; before the first, when the sandbox began to run.
    last: Timestamp,
}

impl ControlPlane {
    /// Begins a use of a sandbox: a request or a stream into it that does not come by [`ControlPlane::guest`].
    pub fn work(&self, id: &SandboxId) -> Work {
        self.activity.begin(id)
    }

    /// Notes a request that concerns a sandbox and is over: its idle limit begins anew.
    pub(crate) fn touch(&self, id: &SandboxId) {
        drop(self.work(id));
    }

    /// When a sandbox ends by itself, as far as is known now.
    pub(crate) fn end_of(&self, sandbox: &Sandbox) -> Option<Timestamp> {
        end_of(sandbox, self.activity.usage(&sandbox.id), self.clock.now())
    }

    /// Lets the expiry look at a sandbox when it may end next.
    pub(crate) fn watch_end(&self, sandbox: &Sandbox) {
        self.deadlines.set(&sandbox.id, self.end_of(sandbox));
    }

    /// The same for one that runs from now on: its idle limit begins.
    pub(crate) fn watch_anew(&self, sandbox: &Sandbox) {
        self.activity.count(sandbox);
        self.watch_end(sandbox);
    }

    /// Forgets when a sandbox ends, and how it was used.
    pub(crate) fn forget_end(&self, id: &SandboxId) {
        self.deadlines.remove(id);
        self.late.forget(id);
        self.activity.forget(id);
    }
}

/// When a sandbox ends by itself. A failed one does not: its record stays until it is removed.
fn end_of(sandbox: &Sandbox, usage: Option<Usage>, now: Timestamp) -> Option<Timestamp> {
    let idle = || Some(usage?.idle_at(sandbox.idle_timeout_s?, now));
    match sandbox.state {
        State::Failed => None,
        State::Running => sandbox.ends_at.into_iter().chain(idle()).min(),
        // At rest nobody can use it, which is no reason to end it.
        _ => sandbox.ends_at,
    }
}

impl Usage {
    /// When a limit is over, as far as is known at `now`: for what is in use, a whole limit from now at the earliest.
    fn idle_at(self, limit: NonZeroU64, now: Timestamp) -> Timestamp {
        let since = match self.open {
            0 => self.last,
            _ => now,
        };
        let limit = SignedDuration::from_secs(i64::try_from(limit.get()).unwrap_or(i64::MAX));
        since.checked_add(limit).unwrap_or(Timestamp::MAX)
    }
}

impl Activity {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, usages: Mutex::default() }
    }

    /// Begins a use, which counts if the sandbox has an idle limit.
    pub(crate) fn begin(self: &Arc<Self>, id: &SandboxId) -> Work {
        let is_counted = self.usages().get_mut(id).map(|usage| usage.open += 1).is_some();
        Work { counted: is_counted.then(|| (Arc::clone(self), id.clone())) }
    }

    /// Counts the uses of a sandbox from now on, if it has an idle limit. Those that are open stay open.
    fn count(&self, sandbox: &Sandbox) {
        if sandbox.idle_timeout_s.is_some() {
            let now = self.clock.now();
            self.usages().entry(sandbox.id.clone()).or_insert(Usage { open: 0, last: now }).last = now;
        }
    }

    fn usage(&self, id: &SandboxId) -> Option<Usage> {
        self.usages().get(id).copied()
    }

    fn end(&self, id: &SandboxId) {
        let now = self.clock.now();
        if let Some(usage) = self.usages().get_mut(id) {
            *usage = Usage { open: usage.open.saturating_sub(1), last: now };
        }
    }

    fn forget(&self, id: &SandboxId) {
        self.usages().remove(id);
    }

    fn usages(&self) -> MutexGuard<'_, HashMap<SandboxId, Usage>> {
        // A panic cannot leave an entry half-changed.
        self.usages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some((activity, id)) = self.counted.take() {
            activity.end(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn limit(seconds: u64) -> NonZeroU64 {
        NonZeroU64::new(seconds).unwrap()
    }

    #[test]
    fn a_limit_beyond_all_time_never_ends() {
        let usage = Usage { open: 0, last: second(1000) };
        assert_eq!(usage.idle_at(limit(u64::MAX), second(1000)), Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn it_is_idle_when_nothing_was_open_for_the_whole_limit_and_never_else(
            open in 0usize..3, last in 0i64..1000, since in 0i64..1000, seconds in 1u64..1000,
        ) {
            let now = second(last + since);
            let is_over = Usage { open, last: second(last) }.idle_at(limit(seconds), now) <= now;
            prop_assert_eq!(is_over, open == 0 && since >= i64::try_from(seconds).unwrap());
        }

        /// The expiry looks again no earlier than at the moment that it was told: nothing may end before it.
        #[test]
        fn whatever_happens_after_a_look_it_ends_no_earlier_than_that_look_said(
            open in 0usize..3, last in 0i64..1000, looked in 0i64..1000, used in 0i64..1000,
            seconds in 1u64..1000,
        ) {
            let (limit, looked) = (limit(seconds), second(last + looked));
            let told = Usage { open, last: second(last) }.idle_at(limit, looked);
            let used = looked + SignedDuration::from_secs(used);
            let after = Usage { open: 0, last: used };
            prop_assert!(after.idle_at(limit, used) >= told);
        }
    }
}
