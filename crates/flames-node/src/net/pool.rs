//! Slots made ahead of need. A slot that was used is taken apart, never given out again (hazard C5).

use super::{Slot, SlotNames};
use flames_vmm::Result;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// Keeps a number of slots ready.
#[derive(Debug)]
pub(crate) struct SlotPool {
    names: SlotNames,
    shared: Arc<Shared>,
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
        Self { names, shared: Arc::new(Shared { ready: Mutex::new(ready), wanted: Notify::new() }) }
    }

    /// Starts to fill in the background, until the pool is dropped or drained.
    pub(crate) fn fill(&self) {
        tokio::spawn(refill(self.names.clone(), Arc::downgrade(&self.shared)));
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

    pub(crate) fn names(&self) -> &SlotNames {
        &self.names
    }

    /// Takes the ready slots apart and makes no more.
    pub(crate) fn drain(&self) -> Result<()> {
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
