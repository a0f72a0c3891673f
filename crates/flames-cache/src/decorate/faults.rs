//! Breaks calls on purpose, by a plan from a seed.

use crate::{CacheKey, CacheStore, CacheValue, SetIfAbsent, Ttl};
use async_trait::async_trait;
use bytes::Bytes;
use flames_provider::decorate::FaultPlan;
use flames_provider::{Error, ErrorKind, Result};
use std::sync::Arc;

/// Makes each call go as the plan says.
#[derive(Debug)]
pub struct WithFaults<S> {
    inner: S,
    plan: Arc<FaultPlan>,
}

impl<S: CacheStore> WithFaults<S> {
    /// Wraps `inner`. Several wrappers may share a plan.
    pub fn new(inner: S, plan: Arc<FaultPlan>) -> Self {
        Self { inner, plan }
    }

    fn about(&self, operation: &'static str, key: &CacheKey) -> Error {
        let error = Error::new(ErrorKind::Internal, "cache entry", key.as_str());
        error.operation(operation).adapter(self.inner.adapter())
    }
}

#[async_trait]
impl<S: CacheStore> CacheStore for WithFaults<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        self.plan.run("get", self.about("get", key), || self.inner.get(key)).await
    }
    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        self.plan.run("set", self.about("set", key), || self.inner.set(key, value, ttl)).await
    }
    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent> {
        self.plan
            .run("set_if_absent", self.about("set_if_absent", key), || {
                self.inner.set_if_absent(key, value, ttl)
            })
            .await
    }
    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64> {
        self.plan.run("increment", self.about("increment", key), || self.inner.increment(key, by, ttl)).await
    }
    async fn delete(&self, key: &CacheKey) -> Result<()> {
        self.plan.run("delete", self.about("delete", key), || self.inner.delete(key)).await
    }
}
