//! Tries again when the cause may pass and doing it twice is doing it once.

use crate::{CacheKey, CacheStore, CacheValue, SetIfAbsent, Ttl};
use async_trait::async_trait;
use bytes::Bytes;
use flames_provider::Result;
use flames_provider::decorate::RetryPolicy;

/// Repeats get, set and delete. Not increment, which would count twice, and not set-if-absent, which would
/// find its own lock taken.
#[derive(Debug)]
pub struct WithRetry<S> {
    inner: S,
    policy: RetryPolicy,
}

impl<S> WithRetry<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

#[async_trait]
impl<S: CacheStore> CacheStore for WithRetry<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        self.policy.run(|| self.inner.get(key)).await
    }
    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        self.policy.run(|| self.inner.set(key, value.clone(), ttl)).await
    }
    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent> {
        self.inner.set_if_absent(key, value, ttl).await
    }
    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64> {
        self.inner.increment(key, by, ttl).await
    }
    async fn delete(&self, key: &CacheKey) -> Result<()> {
        self.policy.run(|| self.inner.delete(key)).await
    }
}
