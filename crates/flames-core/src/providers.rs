//! The infrastructure that a control plane stands on: five interfaces, whoever is behind them.

use flames_blob::{BlobStore, MemoryBlobStore};
use flames_cache::{CacheStore, MemoryCacheStore};
use flames_ingress::{IngressProvider, MemoryIngress};
use flames_provider::decorate::CallMetrics;
use flames_queue::WorkQueue;
use flames_queue::memory::MemoryQueue;
use flames_state::{MemoryStateStore, StateStore};
use std::sync::Arc;

/// One of each. Clones are the same.
#[derive(Clone, Debug)]
pub struct Providers {
    /// Records, keys, and the secret that tokens are derived from.
    pub state: Arc<dyn StateStore>,
    /// Console logs and template images.
    pub blob: Arc<dyn BlobStore>,
    /// Idempotency keys and rate limits: what may be lost.
    pub cache: Arc<dyn CacheStore>,
    /// What can wait.
    pub queue: Arc<dyn WorkQueue>,
    /// How the world reaches ports of sandboxes.
    pub ingress: Arc<dyn IngressProvider>,
}

impl Providers {
    /// The same, with every call counted and timed.
    #[must_use]
    pub fn measured(self, calls: &CallMetrics) -> Self {
        Self {
            state: Arc::new(flames_state::decorate::WithMetrics::new(self.state, calls.clone())),
            blob: Arc::new(flames_blob::decorate::WithMetrics::new(self.blob, calls.clone())),
            cache: Arc::new(flames_cache::decorate::WithMetrics::new(self.cache, calls.clone())),
            queue: Arc::new(flames_queue::decorators::Metered::new(self.queue, calls.clone())),
            ingress: Arc::new(flames_ingress::decorate::WithMetrics::new(self.ingress, calls.clone())),
        }
    }

    /// All in memory: for tests, and for a daemon that lives as long as one command.
    pub fn memory() -> Self {
        Self {
            state: Arc::new(MemoryStateStore::new()),
            blob: Arc::new(MemoryBlobStore::new()),
            cache: Arc::new(MemoryCacheStore::new()),
            queue: Arc::new(MemoryQueue::default()),
            ingress: Arc::new(MemoryIngress::new()),
        }
    }
}
