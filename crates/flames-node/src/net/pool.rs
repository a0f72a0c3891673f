//! Slots made ahead of need. A slot that was used is taken apart, never given out again (hazard C5).

use super::{Slot, SlotNames};
use flames_vmm::Result;
use futures::future::OptionFuture;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Keeps a number of slots ready.
#[derive(Debug)]
pub(crate) struct SlotPool {
    names: SlotNames,
    shared: Arc<Shared>,
    filling: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    ready: Mutex<Ready>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Ready {
    slots: VecDeque<Slot>,
    target: usize,
}

impl SlotPool {
    /// A pool that keeps `target` slots ready. It starts to fill with the first [`SlotPool::fill`].
    pub(crate) fn new(names: SlotNames, target: usize) -> Self {
        let ready = Ready { slots: VecDeque::with_capacity(target), target };
        Self {
            names,
            shared: Arc::new(Shared { ready: Mutex::new(ready), wanted: Notify::new() }),
            filling: Mutex::default(),
        }
    }

    /// Starts to fill in the background, until the pool is dropped or drained.
    pub(crate) fn fill(&self) {
        let filling = tokio::spawn(refill(self.names.clone(), Arc::downgrade(&self.shared)));
        *self.filling.lock().unwrap_or_else(PoisonError::into_inner) = Some(filling);
    }

    /// A ready slot, or a new one when none is ready.
    pub(crate) async fn take(&self) -> Result<Slot> {
        let ready = self.shared.lock().slots.pop_front();
        self.shared.wanted.notify_one();
        match ready {
            Some(slot) => Ok(slot),
            None => self.names.create().await,
        }
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.shared.lock().slots.is_empty()
    }

    pub(crate) fn names(&self) -> &SlotNames {
        &self.names
    }

    /// Takes the ready slots apart, makes no more, and waits for the one that is being made: a process that
    /// ended now would leave it behind. The uplink's firewall goes with the last pair of links.
    pub(crate) async fn close(&self) -> Result<()> {
        let drained = self.drain();
        let filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = OptionFuture::from(filling).await {
            tracing::warn!(%error, "the pool's filler broke");
        }
        drained.and(self.names.tidy_uplink().await)
    }

    /// Takes the ready slots apart and makes no more.
    fn drain(&self) -> Result<()> {
        let slots = {
            let mut ready = self.shared.lock();
            ready.target = 0;
            std::mem::take(&mut ready.slots)
        };
        self.shared.wanted.notify_one();
        slots.iter().try_for_each(Slot::remove)
    }
}

impl Drop for SlotPool {
    fn drop(&mut self) {
        if let Err(error) = self.drain() {
            tracing::warn!(%error, "a ready network slot was left behind");
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_short(&self) -> bool {
        let ready = self.lock();
        ready.slots.len() < ready.target
    }

    /// Puts a slot in, or gives it back when it is no longer wanted.
    fn offer(&self, slot: Slot) -> Option<Slot> {
        let mut ready = self.lock();
        if ready.slots.len() >= ready.target {
            return Some(slot);
        }
        ready.slots.push_back(slot);
        None
    }
}

/// One slot at a time: a create that finds none ready must not wait behind a crowd.
async fn refill(names: SlotNames, pool: Weak<Shared>) {
    while let Some(shared) = pool.upgrade() {
        if !shared.is_short() {
            if shared.lock().target == 0 {
                return;
            }
            shared.wanted.notified().await;
            continue;
        }
        match names.create().await {
            Ok(slot) => {
                if let Some(unwanted) = shared.offer(slot) {
                    let _ = unwanted.remove(); // drained meanwhile
                }
            }
            Err(error) => {
                // The next create tries for itself and tells its caller; then this one is woken again.
                tracing::warn!(%error, "no network slot could be made ahead");
                shared.wanted.notified().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::SlotProbe;
    use flames_provider::conformance;
    use std::time::{Duration, Instant};

    fn names(test: &str) -> Option<SlotNames> {
        if !rustix::process::geteuid().is_root() {
            conformance::skip("root", "run as root");
            return None;
        }
        Some(SlotNames::of(std::path::Path::new(&conformance::unique_prefix(test))))
    }

    #[tokio::test]
    async fn a_slot_has_tap_and_firewall_and_removing_it_twice_is_fine() {
        let Some(names) = names("one") else { return };
        let slot = names.create().await.unwrap();
        let whole = SlotProbe { mounted: true, tap: true, firewall: true };
        assert_eq!(names.probe(slot.name()).await.unwrap(), whole);
        assert!(names.orphans().unwrap().is_empty());
        slot.remove().unwrap();
        slot.remove().unwrap();
        assert!(names.existing().unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn fifty_slots_at_once_are_made_quickly_and_leave_nothing() {
        let Some(names) = names("fifty") else { return };
        let start = Instant::now();
        let made = futures::future::join_all((0..50).map(|_| names.create())).await;
        let slots: Vec<_> = made.into_iter().collect::<Result<_>>().unwrap();
        eprintln!("50 slots at once: {:?}", start.elapsed());
        assert_eq!(names.existing().unwrap().len(), 50);
        slots.iter().try_for_each(Slot::remove).unwrap();
        assert!(names.existing().unwrap().is_empty());
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(slots[0].name()));
    }

    #[tokio::test]
    async fn what_another_process_left_is_an_orphan_and_can_be_removed_by_name() {
        let Some(names) = names("orphan") else { return };
        let slot = names.create().await.unwrap();
        let after_restart = names.forgotten();
        assert_eq!(after_restart.orphans().unwrap(), [slot.name()]);
        after_restart.remove(slot.name()).unwrap();
        assert!(after_restart.orphans().unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_filled_pool_gives_in_no_time_and_drains_to_nothing() {
        let Some(names) = names("pool") else { return };
        let pool = SlotPool::new(names.clone(), 2);
        pool.fill();
        let deadline = Instant::now() + Duration::from_secs(10);
        while pool.shared.is_short() {
            assert!(Instant::now() < deadline, "the pool does not fill");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let start = Instant::now();
        let slot = pool.take().await.unwrap();
        eprintln!("a ready slot: {:?}", start.elapsed());
        slot.remove().unwrap();
        pool.close().await.unwrap();
        assert!(names.existing().unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pool_that_is_closed_while_it_fills_leaves_nothing() {
        let Some(names) = names("closed") else { return };
        for _ in 0..10 {
            let pool = SlotPool::new(names.clone(), 2);
            pool.fill();
            tokio::task::yield_now().await;
            pool.close().await.unwrap();
            assert!(names.existing().unwrap().is_empty());
        }
    }
}
