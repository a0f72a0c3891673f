//! Counts and times calls.

use crate::{CacheKey, CacheStore, CacheValue, SetIfAbsent, Ttl};
use async_trait::async_trait;
use bytes::Bytes;
use flames_provider::Result;
use flames_provider::decorate::{Call, CallMetrics};

/// Records every call under the interface `cache`.
#[derive(Debug)]
pub struct WithMetrics<S> {
    inner: S,
    metrics: CallMetrics,
}

impl<S: CacheStore> WithMetrics<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, metrics: CallMetrics) -> Self {
        Self { inner, metrics }
    }

    fn call(&self, operation: &'static str) -> Call {
        Call { interface: "cache", adapter: self.inner.adapter(), operation }
    }
}

#[async_trait]
impl<S: CacheStore> CacheStore for WithMetrics<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        self.metrics.observe(self.call("get"), self.inner.get(key)).await
    }
    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        self.metrics.observe(self.call("set"), self.inner.set(key, value, ttl)).await
    }
    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent> {
        self.metrics.observe(self.call("set_if_absent"), self.inner.set_if_absent(key, value, ttl)).await
    }
    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64> {
        self.metrics.observe(self.call("increment"), self.inner.increment(key, by, ttl)).await
    }
    async fn delete(&self, key: &CacheKey) -> Result<()> {
        self.metrics.observe(self.call("delete"), self.inner.delete(key)).await
    }
}
