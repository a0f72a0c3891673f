//! A span per call, and an event when it fails. Values are never shown.

use crate::{CacheKey, CacheStore, CacheValue, SetIfAbsent, Ttl};
use async_trait::async_trait;
use bytes::Bytes;
use flames_provider::Result;
use flames_provider::decorate::traced;
use tracing::{Span, debug_span};

/// Traces every call with its operation, adapter and key.
#[derive(Debug)]
pub struct WithTracing<S> {
    inner: S,
}

impl<S: CacheStore> WithTracing<S> {
    /// Wraps `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    fn span(&self, operation: &'static str, key: &CacheKey) -> Span {
        debug_span!("cache", operation, adapter = self.inner.adapter(), key = key.as_str())
    }
}

#[async_trait]
impl<S: CacheStore> CacheStore for WithTracing<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        traced(self.span("get", key), self.inner.get(key)).await
    }
    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        traced(self.span("set", key), self.inner.set(key, value, ttl)).await
    }
    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent> {
        traced(self.span("set_if_absent", key), self.inner.set_if_absent(key, value, ttl)).await
    }
    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64> {
        traced(self.span("increment", key), self.inner.increment(key, by, ttl)).await
    }
    async fn delete(&self, key: &CacheKey) -> Result<()> {
        traced(self.span("delete", key), self.inner.delete(key)).await
    }
}
