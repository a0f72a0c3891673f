//! Counts and times every call.

use crate::{Key, Lease, LeaseTtl, Page, Record, Result, Revision, StateStore, Watch, Write};
use async_trait::async_trait;
use flames_provider::decorate::{Call, CallMetrics};

/// A store whose calls are counted and timed under the interface `state`.
#[derive(Debug)]
pub struct WithMetrics<S> {
    inner: S,
    metrics: CallMetrics,
}

impl<S: StateStore> WithMetrics<S> {
    /// Records the calls of `inner` in `metrics`.
    pub fn new(inner: S, metrics: CallMetrics) -> Self {
        Self { inner, metrics }
    }

    fn call(&self, operation: &'static str) -> Call {
        Call { interface: "state", adapter: self.inner.adapter(), operation }
    }
}

#[async_trait]
impl<S: StateStore> StateStore for WithMetrics<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    async fn revision(&self) -> Result<Revision> {
        self.metrics.observe(self.call("revision"), self.inner.revision()).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.metrics.observe(self.call("get"), self.inner.get(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        self.metrics.observe(self.call("list"), self.inner.list(prefix, after, limit)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        self.metrics.observe(self.call("commit"), self.inner.commit(writes)).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.metrics.observe(self.call("watch"), self.inner.watch(prefix, from)).await
    }

    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        self.metrics.observe(self.call("acquire_lease"), self.inner.acquire_lease(name, holder, ttl)).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        self.metrics.observe(self.call("renew_lease"), self.inner.renew_lease(lease, ttl)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        self.metrics.observe(self.call("release_lease"), self.inner.release_lease(lease)).await
    }
}
