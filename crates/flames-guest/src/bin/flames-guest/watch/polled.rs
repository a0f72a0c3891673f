//! Watchers whose changes wait until they are asked for.

use super::tree::Tree;
use super::{Readiness, lost, refused};
use crate::files::blocking;
use crate::users::Names;
use flames_guest::filesystem::{FilesystemEvent, WatcherEvents};
use flames_guest::rpc::{Code, RpcError};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// The watchers of `CreateWatcher` by id.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    by_id: Mutex<BTreeMap<String, Arc<Polled>>>,
}

/// Each has an inotify instance, of which the kernel gives 128 to a user.
const MAX_WATCHERS: usize = 100;
/// Changes that wait for a client. One that does not ask for so many gets an error instead, and then what comes
/// after.
const MAX_WAITING: usize = 32_768;
/// Changes of one answer; the rest waits for the next call.
const MAX_ANSWER: usize = 16_384;

/// One watcher.
#[derive(Debug)]
struct Polled {
    state: Mutex<State>,
    /// Where users are looked up, if entries are described.
    describe: Option<PathBuf>,
    /// What empties the kernel's queue meanwhile.
    reader: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    waiting: Vec<FilesystemEvent>,
    lost: bool,
}

impl Watchers {
    /// Keeps a watcher and gives its id.
    ///
    /// # Errors
    /// `resource_exhausted` when there are too many.
    pub(super) fn insert(&self, tree: Tree, describe: Option<PathBuf>) -> Result<String, RpcError> {
        let ready = Readiness::of(&tree).map_err(|error| refused(&error))?;
        let mut by_id = self.lock();
        if by_id.len() >= MAX_WATCHERS {
            return Err(RpcError::new(
                Code::ResourceExhausted,
                format!("there are {MAX_WATCHERS} watchers already: remove some"),
            ));
        }
        let state = Mutex::new(State { tree, waiting: Vec::new(), lost: false });
        let polled = Arc::new(Polled { state, describe, reader: Mutex::default() });
        let reading = tokio::spawn(keep_reading(Arc::downgrade(&polled), ready));
        *lock(&polled.reader) = Some(reading.abort_handle());
        let id = new_id().map_err(|error| refused(&error))?;
        by_id.insert(id.clone(), polled);
        Ok(id)
    }

    /// What happened since the last call, up to this very moment.
    ///
    /// # Errors
    /// `not_found`; `data_loss` once, when there was more than can be kept.
    pub(super) async fn events(&self, id: &str) -> Result<WatcherEvents, RpcError> {
        let polled = self.lock().get(id).cloned().ok_or_else(|| unknown(id))?;
        let taken = blocking(move || polled.take()).await.and_then(|taken| taken);
        taken.map_err(|error| refused(&error))?.ok_or_else(lost)
    }

    /// # Errors
    /// `not_found`.
    pub(super) fn remove(&self, id: &str) -> Result<(), RpcError> {
        self.lock().remove(id).map(drop).ok_or_else(|| unknown(id))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Polled>>> {
        lock(&self.by_id)
    }
}

impl Polled {
    /// Moves what the kernel holds to what waits.
    fn collect(&self, state: &mut State) -> io::Result<()> {
        let names = self.describe.as_deref().map(Names::read);
        loop {
            let changes = state.tree.take(names.as_ref())?;
            state.lost |= changes.lost;
            state.waiting.extend(changes.events);
            if state.waiting.len() > MAX_WAITING {
                state.waiting = Vec::new();
                state.lost = true;
            }
            if !changes.more {
                return Ok(());
            }
        }
    }

    /// `None` when some were lost.
    fn take(&self) -> io::Result<Option<WatcherEvents>> {
        let mut state = lock(&self.state);
        self.collect(&mut state)?;
        if std::mem::take(&mut state.lost) {
            state.waiting = Vec::new();
            return Ok(None);
        }
        let length = state.waiting.len().min(MAX_ANSWER);
        let rest = state.waiting.split_off(length);
        Ok(Some(WatcherEvents { events: std::mem::replace(&mut state.waiting, rest) }))
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        if let Some(reader) = lock(&self.reader).take() {
            reader.abort();
        }
    }
}

/// Empties the kernel's queue as it fills, so that a client may ask seldom.
async fn keep_reading(polled: std::sync::Weak<Polled>, ready: Readiness) {
    while ready.wait().await.is_ok() {
        let Some(polled) = polled.upgrade() else { return };
        let collected = blocking(move || polled.collect(&mut lock(&polled.state))).await;
        // The next call meets the same error, and tells it.
        if !matches!(collected, Ok(Ok(()))) {
            return;
        }
    }
}

fn new_id() -> io::Result<String> {
    let mut random = [0; 10];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("w{digits}"))
}

fn unknown(id: &str) -> RpcError {
    let id: String = id.chars().take(64).collect();
    RpcError::new(Code::NotFound, format!("watcher with id {id} not found"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
