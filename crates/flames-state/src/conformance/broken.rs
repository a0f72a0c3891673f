//! A store that breaks its promises on purpose, one at a time, to prove that the suite notices.

mod flaw;

pub use flaw::Flaw;

use crate::backend::history_is_gone;
use crate::{
    Change, ChangeKind, Event, Key, Lease, LeaseTtl, MAX_VALUE_BYTES, MAX_WRITES, MemoryStateStore, Page,
    Precondition, Record, Result, Revision, StateStore, Watch, Write,
};
use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const INSTANT: Duration = Duration::from_millis(1);

/// A [`MemoryStateStore`] with one [`Flaw`].
#[derive(Debug)]
pub struct BrokenStateStore {
    inner: MemoryStateStore,
    flaw: Flaw,
    first_reads: Mutex<HashMap<Key, Record>>,
    held: Mutex<HashMap<Key, Lease>>,
    names: AtomicU64,
}

impl BrokenStateStore {
    /// An empty store that keeps a history of [`HISTORY`](super::HISTORY) commits.
    pub fn new(flaw: Flaw) -> Self {
        let inner = MemoryStateStore::with_history(super::HISTORY);
        Self { inner, flaw, first_reads: Mutex::default(), held: Mutex::default(), names: AtomicU64::new(0) }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    /// What the store says of a revision, when it repeats them.
    fn shown(&self, revision: Revision) -> Revision {
        if self.has(Flaw::RepeatsRevisions) { Revision(revision.0.div_ceil(3)) } else { revision }
    }

    async fn write(&self, write: Write) -> Write {
        let stored = async |key: &Key| self.inner.get(key).await.ok().flatten();
        match write {
            Write::Put { key, value, precondition } => {
                let cut = if self.has(Flaw::CutsValues) { value.len().min(60_000) } else { value.len() };
                let precondition = self.precondition(&key, precondition).await;
                Write::Put { key: self.key(&key), value: value.slice(..cut), precondition }
            }
            Write::Delete { key, precondition } if self.has(Flaw::KeepsDeleted) => {
                Write::Check { key, precondition }
            }
            Write::Delete { key, .. }
                if self.has(Flaw::RefusesEmptyDelete) && stored(&key).await.is_none() =>
            {
                Write::Delete { key, precondition: Precondition::Revision(Revision(1)) }
            }
            Write::Delete { key, precondition } => Write::Delete {
                precondition: self.precondition(&key, precondition).await,
                key: self.key(&key),
            },
            Write::Check { key, .. } if self.has(Flaw::IgnoresChecks) => {
                Write::Check { key, precondition: Precondition::None }
            }
            check @ Write::Check { .. } => check,
        }
    }

    async fn precondition(&self, key: &Key, wanted: Precondition) -> Precondition {
        let stored = self.inner.get(key).await.ok().flatten();
        match (self.flaw, wanted, stored) {
            (Flaw::DropsPreconditions, ..)
            | (Flaw::ForgetsAbsent, Precondition::Absent, _)
            | (Flaw::CreatesOnRevision, Precondition::Revision(_), None) => Precondition::None,
            (Flaw::ChecksTooEarly, _, found)
                if wanted.check(key, found.as_ref().map(|r| r.revision)).is_ok() =>
            {
                tokio::task::yield_now().await;
                Precondition::None
            }
            (Flaw::RepeatsRevisions, Precondition::Revision(shown), Some(found))
                if self.shown(found.revision) == shown =>
            {
                Precondition::Revision(found.revision)
            }
            _ => wanted,
        }
    }

    fn key(&self, key: &Key) -> Key {
        match self.flaw {
            Flaw::FoldsCase => Key::parse(key.as_str().to_lowercase()).unwrap_or_else(|_| key.clone()),
            _ => key.clone(),
        }
    }

    async fn commit_half(&self, writes: Vec<Write>) -> Result<Revision> {
        let mut revision = Revision::ZERO;
        for write in writes {
            revision = self.inner.commit(vec![write]).await?;
            tokio::task::yield_now().await;
        }
        Ok(revision)
    }

    fn lose_last(mut writes: Vec<Write>) -> Vec<Write> {
        if let Some(last) = writes.pop() {
            writes.push(Write::Check { key: last.key().clone(), precondition: last.precondition() });
        }
        writes
    }

    fn excess(writes: &[Write]) -> bool {
        let large =
            |write: &Write| matches!(write, Write::Put { value, .. } if value.len() > MAX_VALUE_BYTES);
        writes.is_empty() || writes.len() > MAX_WRITES || writes.iter().any(large)
    }

    fn unique_name(&self) -> Result<Key> {
        Key::parse(format!("lease-{}", self.names.fetch_add(1, Ordering::Relaxed)))
    }

    async fn release_current(&self, name: &Key) -> Result<()> {
        let current = self.held.lock().unwrap().remove(name);
        match current {
            Some(lease) => self.inner.release_lease(&lease).await,
            None => Ok(()),
        }
    }

    fn events(flaw: Flaw, event: Event) -> Vec<Event> {
        let Event { revision, mut changes } = event;
        match flaw {
            Flaw::WatchSkips if revision.0 % 10 == 0 => return vec![],
            Flaw::WatchHidesDeletes => changes.retain(|change| change.kind != ChangeKind::Delete),
            Flaw::WatchReorders => changes.reverse(),
            Flaw::WatchSplitsCommits => {
                let single = |change: Change| Event { revision, changes: vec![change] };
                return changes.into_iter().map(single).collect();
            }
            _ => {}
        }
        if changes.is_empty() { vec![] } else { vec![Event { revision, changes }] }
    }

    /// A watch that calls itself too slow once the store has moved on, though it saw nothing.
    async fn impatient_watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let (inner, history) = (self.inner.clone(), super::HISTORY);
        let late = async move {
            loop {
                let newest = inner.revision().await?;
                if newest.0 > from.0 + history {
                    return Err(history_is_gone(from, newest));
                }
                tokio::time::sleep(INSTANT).await;
            }
        };
        let watch = self.inner.watch(prefix, from).await?;
        Ok(stream::select(stream::once(late), watch).boxed())
    }
}

#[async_trait]
impl StateStore for BrokenStateStore {
    fn adapter(&self) -> &'static str {
        "broken"
    }

    async fn revision(&self) -> Result<Revision> {
        let revision = self.inner.revision().await?;
        let lag = u64::from(self.has(Flaw::LagsBehind));
        Ok(self.shown(Revision(revision.0.saturating_sub(lag))))
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let record = self.inner.get(&self.key(key)).await?;
        let record =
            record.map(|record| Record { revision: self.shown(record.revision), key: key.clone(), ..record });
        if !self.has(Flaw::ReadsStale) {
            return Ok(record);
        }
        let mut first = self.first_reads.lock().unwrap();
        Ok(record.map(|record| first.entry(key.clone()).or_insert(record).clone()))
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        let prefix = if self.has(Flaw::IgnoresPrefix) { "" } else { prefix };
        let limit = if self.has(Flaw::SwallowsExcess) { limit.clamp(1, 1000) } else { limit };
        let mut page = self.inner.list(prefix, after, limit).await?;
        match self.flaw {
            Flaw::ReordersPages => page.records.reverse(),
            Flaw::EndsAfterOnePage => page.next = None,
            Flaw::SkipsAtPageEnds if page.next.is_some() => drop(page.records.pop()),
            Flaw::RepeatsAtPageEnds => {
                if let Some(after) = after {
                    page.records.splice(0..0, self.inner.get(after).await?);
                    page.records.truncate(limit);
                }
            }
            _ => {}
        }
        Ok(page)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        if self.has(Flaw::SwallowsExcess) && Self::excess(&writes) {
            return self.revision().await;
        }
        let mut altered = Vec::with_capacity(writes.len());
        for write in writes {
            altered.push(self.write(write).await);
        }
        let revision = match self.flaw {
            Flaw::CommitsHalf => self.commit_half(altered).await?,
            Flaw::LosesTheLastWrite => self.inner.commit(Self::lose_last(altered)).await?,
            _ => self.inner.commit(altered).await?,
        };
        Ok(self.shown(revision))
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let newest = self.inner.revision().await?;
        let prefix = if self.has(Flaw::WatchIgnoresPrefix) { "" } else { prefix };
        let from = match self.flaw {
            Flaw::WatchRepeats => Revision(from.0.saturating_sub(1)),
            Flaw::WatchForgetsThePast => newest,
            Flaw::WatchHidesTheGap => from.max(Revision(newest.0.saturating_sub(super::HISTORY))),
            Flaw::WatchAwaitsTheFuture => from.min(newest),
            Flaw::WatchDropsIdle => return self.impatient_watch(prefix, from).await,
            _ => from,
        };
        let mut watch = self.inner.watch(prefix, from).await?;
        if self.has(Flaw::WatchForgetsTheFuture) {
            let past = usize::try_from(newest.0 - from.0).unwrap_or(usize::MAX);
            watch = watch.take(past).boxed();
        }
        let flaw = self.flaw;
        let events = move |event: Event| stream::iter(Self::events(flaw, event).into_iter().map(Ok));
        Ok(watch.map_ok(events).try_flatten().boxed())
    }

    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        let valid_until = Instant::now() + ttl.get();
        let taken = match self.flaw {
            Flaw::LeasesForEver => self.inner.acquire_lease(name, holder, LeaseTtl::parse(DAY)?).await,
            Flaw::EndsLeasesEarly => self.inner.acquire_lease(name, holder, LeaseTtl::parse(INSTANT)?).await,
            Flaw::LeasesTwice => self.inner.acquire_lease(&self.unique_name()?, holder, ttl).await,
            _ => self.inner.acquire_lease(name, holder, ttl).await,
        };
        let real = taken
            .map_err(|error| if self.has(Flaw::HidesTheHolder) { error.detail("held") } else { error })?;
        self.held.lock().unwrap().insert(name.clone(), real.clone());
        let token = if self.has(Flaw::RepeatsTokens) { 1 } else { real.token };
        Ok(Lease { name: name.clone(), token, valid_until, ..real })
    }

    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        match self.flaw {
            Flaw::RenewsNothing => Ok(Lease { valid_until: Instant::now() + ttl.get(), ..lease.clone() }),
            Flaw::RevivesLeases => {
                self.release_current(&lease.name).await?;
                self.acquire_lease(&lease.name, &lease.holder, ttl).await
            }
            _ => self.inner.renew_lease(lease, ttl).await,
        }
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        match self.flaw {
            Flaw::ReleasesNothing => Ok(()),
            Flaw::ReleasesForAnyone | Flaw::RepeatsTokens => self.release_current(&lease.name).await,
            _ => self.inner.release_lease(lease).await,
        }
    }
}
