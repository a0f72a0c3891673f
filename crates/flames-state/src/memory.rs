//! A store in memory: for tests, for `memory:`, and the model of what the others do.

use crate::backend::{
    DEFAULT_HISTORY, EventBatch, EventSource, PageBuilder, follow, history_is_gone, not_reached,
};
use crate::{
    Change, ChangeKind, Error, ErrorKind, Event, Key, Lease, LeaseTtl, Page, Record, Result, Revision,
    StateStore, Watch, Write, validate_commit, validate_page_limit,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

const ADAPTER: &str = "memory";
/// Commits that one read of a watch looks at.
const BATCH: usize = 256;

/// Clones share their records. Everything is lost with the last of them.
#[derive(Clone, Debug)]
pub struct MemoryStateStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes watches; they read the history themselves.
    newest: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    records: BTreeMap<Key, (Bytes, Revision)>,
    /// Oldest first; without the commits that changed nothing.
    history: VecDeque<Event>,
    history_limit: u64,
    leases: HashMap<Key, Held>,
    tokens: u64,
}

#[derive(Debug)]
struct Held {
    holder: Key,
    token: u64,
    until: Instant,
}

impl MemoryStateStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_history(DEFAULT_HISTORY)
    }

    /// An empty store whose watches can go back `commits` commits.
    pub fn with_history(commits: u64) -> Self {
        let state = Mutex::new(State { history_limit: commits, ..State::default() });
        Self { shared: Arc::new(Shared { state, newest: watch::Sender::new(Revision::ZERO) }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStateStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl StateStore for MemoryStateStore {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(self.state().revision)
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        Ok(self.state().records.get(key).map(|stored| record(key, stored)))
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        validate_page_limit(limit).map_err(named)?;
        Ok(self.state().page(prefix, after, limit))
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        validate_commit(&writes).map_err(named)?;
        let mut state = self.state();
        let revision = state.commit(writes).map_err(named)?;
        // Under the lock, so that the numbers that watches see only grow.
        self.shared.newest.send_replace(revision);
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let source = History { store: self.clone(), newest: self.shared.newest.subscribe() };
        follow(source, prefix, from).await
    }

    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        self.state().acquire(name, holder, Instant::now() + ttl.get())
    }

    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        self.state().renew(lease, Instant::now() + ttl.get())
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        self.state().release(lease);
        Ok(())
    }
}

impl State {
    fn page(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Page {
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let mut page = PageBuilder::new(limit);
        for (key, stored) in self.records.range::<str, _>((start, Bound::Unbounded)) {
            if page.is_full() || !key.as_str().starts_with(prefix) {
                break;
            }
            page.push(record(key, stored));
        }
        page.finish()
    }

    fn commit(&mut self, writes: Vec<Write>) -> Result<Revision> {
        for write in &writes {
            let current = self.records.get(write.key()).map(|(_, revision)| *revision);
            write.precondition().check(write.key(), current)?;
        }
        self.revision = self.revision.next();
        let changes: Vec<_> = writes.into_iter().filter_map(|write| self.apply(write)).collect();
        if !changes.is_empty() {
            self.history.push_back(Event { revision: self.revision, changes });
        }
        self.forget();
        Ok(self.revision)
    }

    fn apply(&mut self, write: Write) -> Option<Change> {
        match write {
            Write::Put { key, value, .. } => {
                self.records.insert(key.clone(), (value.clone(), self.revision));
                Some(Change { key, kind: ChangeKind::Put(value) })
            }
            Write::Delete { key, .. } => {
                self.records.remove(&key)?;
                Some(Change { key, kind: ChangeKind::Delete })
            }
            Write::Check { .. } => None,
        }
    }

    /// Watches from here on find everything; from before it, no longer.
    fn oldest(&self) -> Revision {
        Revision(self.revision.0.saturating_sub(self.history_limit))
    }

    fn forget(&mut self) {
        let oldest = self.oldest();
        while self.history.front().is_some_and(|event| event.revision <= oldest) {
            self.history.pop_front();
        }
    }

    fn events(&self, prefix: &str, after: Revision) -> Result<EventBatch> {
        if after > self.revision {
            return Err(named(not_reached(after, self.revision)));
        }
        if after < self.oldest() {
            return Err(named(history_is_gone(after, self.oldest())));
        }
        let start = self.history.partition_point(|event| event.revision <= after);
        let batch: Vec<_> = self.history.range(start..).take(BATCH).collect();
        let reached = match batch.last() {
            Some(last) if batch.len() == BATCH => last.revision,
            _ => self.revision,
        };
        let events = batch.into_iter().filter_map(|event| under(prefix, event)).collect();
        Ok(EventBatch { events, reached, newest: self.revision })
    }

    fn acquire(&mut self, name: &Key, holder: &Key, until: Instant) -> Result<Lease> {
        if let Some(held) = self.leases.get(name).filter(|held| held.until > Instant::now()) {
            return Err(conflict("acquire_lease", name, format!("held by `{}`", held.holder)));
        }
        self.tokens += 1;
        let held = Held { holder: holder.clone(), token: self.tokens, until };
        self.leases.insert(name.clone(), held);
        Ok(Lease { name: name.clone(), holder: holder.clone(), token: self.tokens, valid_until: until })
    }

    fn renew(&mut self, lease: &Lease, until: Instant) -> Result<Lease> {
        let now = Instant::now();
        let held =
            self.leases.get_mut(&lease.name).filter(|held| held.token == lease.token && held.until > now);
        let held = held.ok_or_else(|| conflict("renew_lease", &lease.name, "it is over".to_owned()))?;
        held.until = until;
        Ok(Lease { valid_until: until, ..lease.clone() })
    }

    fn release(&mut self, lease: &Lease) {
        if self.leases.get(&lease.name).is_some_and(|held| held.token == lease.token) {
            self.leases.remove(&lease.name);
        }
    }
}

struct History {
    store: MemoryStateStore,
    newest: watch::Receiver<Revision>,
}

#[async_trait]
impl EventSource for History {
    async fn read(&mut self, prefix: &str, after: Revision) -> Result<EventBatch> {
        self.newest.mark_unchanged();
        self.store.state().events(prefix, after)
    }

    async fn changed(&mut self) -> Result<()> {
        // This value holds the store, so the sender cannot be gone.
        let _ = self.newest.changed().await;
        Ok(())
    }
}

fn under(prefix: &str, event: &Event) -> Option<Event> {
    let fits = |change: &&Change| change.key.as_str().starts_with(prefix);
    let changes: Vec<_> = event.changes.iter().filter(fits).cloned().collect();
    (!changes.is_empty()).then_some(Event { revision: event.revision, changes })
}

fn record(key: &Key, (value, revision): &(Bytes, Revision)) -> Record {
    Record { key: key.clone(), value: value.clone(), revision: *revision }
}

fn conflict(operation: &'static str, name: &Key, detail: String) -> Error {
    named(Error::new(ErrorKind::Conflict, "lease", name.as_str()).operation(operation).detail(detail))
}

fn named(error: Error) -> Error {
    error.adapter(ADAPTER)
}
