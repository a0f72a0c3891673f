//! A span per call. Keys are shown, values never: they may hold secrets.

use crate::{Key, Lease, LeaseTtl, Page, Record, Result, Revision, StateStore, Watch, Write};
use async_trait::async_trait;
use flames_provider::decorate::traced;
use tracing::debug_span;

/// A store whose calls are spans.
#[derive(Debug)]
pub struct WithTracing<S> {
    inner: S,
}

impl<S: StateStore> WithTracing<S> {
    /// Traces the calls of `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<S: StateStore> StateStore for WithTracing<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    async fn revision(&self) -> Result<Revision> {
        let span = debug_span!("state.revision", adapter = self.adapter());
        traced(span, self.inner.revision()).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let span = debug_span!("state.get", adapter = self.adapter(), %key);
        traced(span, self.inner.get(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        let span = debug_span!("state.list", adapter = self.adapter(), prefix, limit);
        traced(span, self.inner.list(prefix, after, limit)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        let key = writes.first().map(Write::key).map(tracing::field::display);
        let span = debug_span!("state.commit", adapter = self.adapter(), writes = writes.len(), key);
        traced(span, self.inner.commit(writes)).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let span = debug_span!("state.watch", adapter = self.adapter(), prefix, %from);
        traced(span, self.inner.watch(prefix, from)).await
    }

    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        let span = debug_span!("state.acquire_lease", adapter = self.adapter(), %name, %holder);
        traced(span, self.inner.acquire_lease(name, holder, ttl)).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        let span = debug_span!("state.renew_lease", adapter = self.adapter(), name = %lease.name);
        traced(span, self.inner.renew_lease(lease, ttl)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let span = debug_span!("state.release_lease", adapter = self.adapter(), name = %lease.name);
        traced(span, self.inner.release_lease(lease)).await
    }
}
