//! A span per call, and an event when it fails.

use crate::{Blob, BlobKey, BlobMeta, BlobStore, ByteRange, ByteStream, ListLimit, Page, PutOptions};
use async_trait::async_trait;
use flames_provider::Result;
use flames_provider::decorate::traced;
use std::time::Duration;
use tracing::{Span, debug_span};

/// Traces every call with its operation, adapter and key.
#[derive(Debug)]
pub struct WithTracing<S> {
    inner: S,
}

impl<S: BlobStore> WithTracing<S> {
    /// Wraps `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    fn span(&self, operation: &'static str, key: &str) -> Span {
        debug_span!("blob", operation, adapter = self.inner.adapter(), key)
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for WithTracing<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }
    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        traced(self.span("put", key.as_str()), self.inner.put(key, options, body)).await
    }
    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        traced(self.span("get", key.as_str()), self.inner.get(key, range)).await
    }
    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        traced(self.span("head", key.as_str()), self.inner.head(key)).await
    }
    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        let span = self.span("list", under.map_or("", BlobKey::as_str));
        traced(span, self.inner.list(under, after, limit)).await
    }
    async fn delete(&self, key: &BlobKey) -> Result<()> {
        traced(self.span("delete", key.as_str()), self.inner.delete(key)).await
    }
    async fn collect_garbage(&self, older_than: Duration) -> Result<u64> {
        traced(self.span("collect_garbage", ""), self.inner.collect_garbage(older_than)).await
    }
}
