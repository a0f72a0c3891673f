//! Tries again when the cause may pass and doing it twice is doing it once.

use crate::{Blob, BlobKey, BlobMeta, BlobStore, ByteRange, ByteStream, ListLimit, Page, PutOptions};
use async_trait::async_trait;
use flames_provider::Result;
use flames_provider::decorate::RetryPolicy;
use std::time::Duration;

/// Repeats every call but put, whose body is gone after the first try: who still has the source repeats
/// that. A stream that fails half-way is not continued either.
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
impl<S: BlobStore> BlobStore for WithRetry<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }
    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        self.inner.put(key, options, body).await
    }
    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        self.policy.run(|| self.inner.get(key, range)).await
    }
    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        self.policy.run(|| self.inner.head(key)).await
    }
    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        self.policy.run(|| self.inner.list(under, after, limit)).await
    }
    async fn delete(&self, key: &BlobKey) -> Result<()> {
        self.policy.run(|| self.inner.delete(key)).await
    }
    async fn collect_garbage(&self, older_than: Duration) -> Result<u64> {
        self.policy.run(|| self.inner.collect_garbage(older_than)).await
    }
}
