//! Counts and times calls.

use crate::{Blob, BlobKey, BlobMeta, BlobStore, ByteRange, ByteStream, ListLimit, Page, PutOptions};
use async_trait::async_trait;
use flames_provider::Result;
use flames_provider::decorate::{Call, CallMetrics};
use std::time::Duration;

/// Records every call under the interface `blob`.
#[derive(Debug)]
pub struct WithMetrics<S> {
    inner: S,
    metrics: CallMetrics,
}

impl<S: BlobStore> WithMetrics<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, metrics: CallMetrics) -> Self {
        Self { inner, metrics }
    }

    fn call(&self, operation: &'static str) -> Call {
        Call { interface: "blob", adapter: self.inner.adapter(), operation }
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for WithMetrics<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }
    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        self.metrics.observe(self.call("put"), self.inner.put(key, options, body)).await
    }
    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        self.metrics.observe(self.call("get"), self.inner.get(key, range)).await
    }
    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        self.metrics.observe(self.call("head"), self.inner.head(key)).await
    }
    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        self.metrics.observe(self.call("list"), self.inner.list(under, after, limit)).await
    }
    async fn delete(&self, key: &BlobKey) -> Result<()> {
        self.metrics.observe(self.call("delete"), self.inner.delete(key)).await
    }
    async fn collect_garbage(&self, older_than: Duration) -> Result<u64> {
        self.metrics.observe(self.call("collect_garbage"), self.inner.collect_garbage(older_than)).await
    }
}
