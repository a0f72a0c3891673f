//! How much of the machine's memory is given away: creates that do not fit are refused at once.
//!
//! A reservation is one step under one lock, before anything is recorded or started, so that a burst cannot
//! give the same memory away twice. What is held is rebuilt from the records at a start.
//!
//! A sandbox counts with what it is likely to use, [`expected_use`], not with what its guest could touch at
//! most: clones share the pages that they did not write to.

use crate::SandboxId;
use crate::sandbox::record::{Resources, Sandbox};
use flames_node::{BootLevel, BootPath, Capacity, MiB, TemplateName};
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How much memory all sandboxes together may be expected to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// This much.
    Fixed(MiB),
    /// Most of what the machine has left when the daemon starts: see [`automatic_limit`].
    Automatic,
    /// Creates are never refused for memory.
    Unlimited,
}

/// The machine's memory is given away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory is left for {wanted} MiB: {held} of {limit} MiB are given away")]
pub struct NoRoom {
    /// What the request is expected to use, in MiB.
    pub wanted: u64,
    /// What live and starting sandboxes are expected to use, in MiB.
    pub held: u64,
    /// What all together may, in MiB.
    pub limit: u64,
    /// When another try makes sense, judging by how often sandboxes ended lately.
    pub retry_after: Duration,
}

/// What the VMM process of a guest takes beside the guest's memory: 24 to 27 MiB of an idle clone under QEMU.
const VMM_OVERHEAD: u64 = 32;
/// What a guest from a snapshot writes to: 8 MiB by its first command, 18 by some work of a shell in `mini`, 64 in
/// `base`, whatever its size (docs/performance.md). The rest is shared with the snapshot's other clones.
const CLONE_AT_LEAST: u64 = 64;
/// Whoever asks for a large guest means to use it.
const CLONE_PERCENT: u64 = 25;
/// The share of the free memory that sandboxes may have; the rest is for the page cache and for whatever else
/// the machine does.
const AUTOMATIC_PERCENT: u64 = 80;
/// How far back ends of sandboxes tell the rate of ends.
const ENDS_WINDOW: SignedDuration = SignedDuration::from_secs(60);
const ENDS_KEPT: usize = 256;
const RETRY_AT_LEAST: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// What a sandbox is expected to use of the machine's memory, in MiB: all of its memory when its kernel was
/// booted (the guest's page cache fills it sooner or later), a quarter but at least 64 MiB when it came from a snapshot.
pub fn expected_use(resources: &Resources, path: BootPath) -> u64 {
    let memory = u64::from(resources.memory.0);
    VMM_OVERHEAD
        + match path {
            BootPath::Cold => memory,
            BootPath::Warm | BootPath::Restored => {
                (memory * CLONE_PERCENT / 100).max(CLONE_AT_LEAST).min(memory)
            }
        }
}

/// 80 % of what is free and of what living sandboxes hold already, in MiB.
pub fn automatic_limit(capacity: &Capacity, held: u64) -> u64 {
    let total = u64::from(capacity.memory_total.0);
    (u64::from(capacity.memory_available.0) + held).min(total) * AUTOMATIC_PERCENT / 100
}

/// When another try makes sense: after the mean time between the ends of the last minute.
pub fn retry_after(ends: impl Iterator<Item = Timestamp>, now: Timestamp) -> Duration {
    let recent = ends.filter(|end| now.duration_since(*end) <= ENDS_WINDOW).count();
    match u32::try_from(recent) {
        Ok(0) | Err(_) => RETRY_AT_MOST,
        Ok(recent) => (ENDS_WINDOW.unsigned_abs() / recent).clamp(RETRY_AT_LEAST, RETRY_AT_MOST),
    }
}

/// The book of what is given away.
#[derive(Debug, Default)]
pub(crate) struct Room {
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// `None` is any amount.
    limit: Option<u64>,
    held: HashMap<SandboxId, u64>,
    sum: u64,
    ends: VecDeque<Timestamp>,
    /// How the newest create of each template went that could have gone any way.
    usual: HashMap<TemplateName, BootPath>,
}

impl Room {
    /// Sets the limit; at a start, once the living sandboxes hold theirs.
    pub(crate) fn set_limit(&self, limit: MemoryLimit, capacity: &Capacity) {
        let mut ledger = self.ledger();
        ledger.limit = match limit {
            MemoryLimit::Fixed(limit) => Some(limit.0.into()),
            MemoryLimit::Automatic => Some(automatic_limit(capacity, ledger.sum)),
            MemoryLimit::Unlimited => None,
        };
    }

    /// Takes `each` MiB for every one of `ids`, or nothing.
    pub(crate) fn reserve(&self, ids: &[SandboxId], each: u64, now: Timestamp) -> Result<(), NoRoom> {
        self.ledger().reserve(ids, each, now)
    }

    /// Notes what a sandbox holds, whatever the limit: it lives already.
    pub(crate) fn hold(&self, id: &SandboxId, amount: u64) {
        self.ledger().put(id, amount);
    }

    /// What was reserved under one id is another's: a sandbox got the name that its machine had already.
    pub(crate) fn pass_on(&self, from: &SandboxId, to: &SandboxId) {
        let mut ledger = self.ledger();
        if let Some(amount) = ledger.held.remove(from) {
            ledger.sum -= amount;
            ledger.put(to, amount);
        }
    }

    /// Corrects what was reserved for a sandbox to the way it was started.
    pub(crate) fn started(&self, sandbox: &Sandbox, path: BootPath) {
        let mut ledger = self.ledger();
        // One that was ended meanwhile holds nothing any more.
        if ledger.held.contains_key(&sandbox.id) {
            ledger.put(&sandbox.id, expected_use(&sandbox.resources, path));
        }
        if matches!(sandbox.level, BootLevel::Instant | BootLevel::Sub2Second) && sandbox.origin.is_none() {
            ledger.usual.insert(sandbox.template.clone(), path);
        }
    }

    /// How a create of a template is likely to go; the first is taken for a cold boot.
    pub(crate) fn usual_path(&self, template: &TemplateName) -> BootPath {
        self.ledger().usual.get(template).copied().unwrap_or(BootPath::Cold)
    }

    /// Gives back what a sandbox held. One that holds nothing is fine.
    pub(crate) fn release(&self, id: &SandboxId, now: Timestamp) {
        self.ledger().release(id, now);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn reserve(&mut self, ids: &[SandboxId], each: u64, now: Timestamp) -> Result<(), NoRoom> {
        let wanted = each.saturating_mul(ids.len() as u64);
        if let Some(limit) = self.limit.filter(|limit| self.sum.saturating_add(wanted) > *limit) {
            let retry_after = retry_after(self.ends.iter().copied(), now);
            return Err(NoRoom { wanted, held: self.sum, limit, retry_after });
        }
        ids.iter().for_each(|id| self.put(id, each));
        Ok(())
    }

    fn put(&mut self, id: &SandboxId, amount: u64) {
        let before = self.held.insert(id.clone(), amount).unwrap_or(0);
        self.sum = self.sum - before + amount;
    }

    fn release(&mut self, id: &SandboxId, now: Timestamp) {
        let Some(amount) = self.held.remove(id) else { return };
        self.sum -= amount;
        self.ends.push_back(now);
        if self.ends.len() > ENDS_KEPT {
            self.ends.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    proptest! {
        #[test]
        fn a_ledger_never_gives_more_than_its_limit_and_its_sum_is_what_is_held(
            limit in 0u64..2000,
            steps in prop::collection::vec((0usize..8, 0u64..500, any::<bool>()), 0..60)
        ) {
            let ids: Vec<_> = (0..8).map(|_| SandboxId::random()).collect();
            let mut ledger = Ledger { limit: Some(limit), ..Ledger::default() };
            for (which, amount, take) in steps {
                let id = &ids[which];
                match take && !ledger.held.contains_key(id) {
                    true => drop(ledger.reserve(std::slice::from_ref(id), amount, at(0))),
                    false => ledger.release(id, at(0)),
                }
                prop_assert!(ledger.sum <= limit);
                prop_assert_eq!(ledger.sum, ledger.held.values().sum::<u64>());
            }
        }

        #[test]
        fn a_time_to_come_back_is_one_to_thirty_seconds_and_shorter_the_more_end(
            ends in prop::collection::vec(0i64..200, 0..300), more in 0i64..60
        ) {
            let now = at(200);
            let after = retry_after(ends.iter().map(|end| at(*end)), now);
            prop_assert!((RETRY_AT_LEAST..=RETRY_AT_MOST).contains(&after));
            let with_more = ends.iter().copied().chain([200 - more]);
            prop_assert!(retry_after(with_more.map(at), now) <= after);
        }
    }

    #[test]
    fn several_are_taken_together_or_not_at_all() {
        let ids: Vec<_> = (0..3).map(|_| SandboxId::random()).collect();
        let mut ledger = Ledger { limit: Some(299), ..Ledger::default() };
        let refused = ledger.reserve(&ids, 100, at(0)).unwrap_err();
        assert_eq!((refused.wanted, refused.held, refused.limit), (300, 0, 299));
        assert!(ledger.held.is_empty());
        ledger.limit = Some(300);
        ledger.reserve(&ids, 100, at(0)).unwrap();
        assert_eq!(ledger.sum, 300);
    }

    #[test]
    fn what_is_passed_on_is_held_once_and_by_the_other() {
        let (room, ids) = (Room::default(), [SandboxId::random(), SandboxId::random()]);
        room.reserve(&ids[..1], 100, at(0)).unwrap();
        room.pass_on(&ids[0], &ids[1]);
        assert_eq!(room.ledger().sum, 100);
        room.release(&ids[0], at(0));
        assert_eq!(room.ledger().sum, 100);
        room.release(&ids[1], at(0));
        assert_eq!(room.ledger().sum, 0);
    }

    #[test]
    fn a_clone_counts_less_than_one_that_was_booted() {
        let used =
            |memory, path| expected_use(&Resources { vcpus: 1, memory: MiB(memory), disk: MiB(1024) }, path);
        assert_eq!(used(256, BootPath::Cold), 288);
        assert_eq!(
            [64, 128, 256, 512, 1024].map(|memory| used(memory, BootPath::Restored)),
            [96, 96, 96, 160, 288]
        );
    }
}
