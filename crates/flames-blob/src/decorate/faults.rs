//! Breaks calls on purpose, by a plan from a seed.

use crate::{Blob, BlobKey, BlobMeta, BlobStore, ByteRange, ByteStream, ListLimit, Page, PutOptions};
use async_trait::async_trait;
use flames_provider::decorate::FaultPlan;
use flames_provider::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// Makes each call go as the plan says.
#[derive(Debug)]
pub struct WithFaults<S> {
    inner: S,
    plan: Arc<FaultPlan>,
}

impl<S: BlobStore> WithFaults<S> {
    /// Wraps `inner`. Several wrappers may share a plan.
    pub fn new(inner: S, plan: Arc<FaultPlan>) -> Self {
        Self { inner, plan }
    }

    fn about(&self, operation: &'static str, id: &str) -> Error {
        Error::new(ErrorKind::Internal, "blob", id).operation(operation).adapter(self.inner.adapter())
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for WithFaults<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }
    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        let error = self.about("put", key.as_str());
        self.plan.run("put", error, || self.inner.put(key, options, body)).await
    }
    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        self.plan.run("get", self.about("get", key.as_str()), || self.inner.get(key, range)).await
    }
    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        self.plan.run("head", self.about("head", key.as_str()), || self.inner.head(key)).await
    }
    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        let error = self.about("list", under.map_or("", BlobKey::as_str));
        self.plan.run("list", error, || self.inner.list(under, after, limit)).await
    }
    async fn delete(&self, key: &BlobKey) -> Result<()> {
        self.plan.run("delete", self.about("delete", key.as_str()), || self.inner.delete(key)).await
    }
    async fn collect_garbage(&self, older_than: Duration) -> Result<u64> {
        let error = self.about("collect_garbage", "");
        self.plan.run("collect_garbage", error, || self.inner.collect_garbage(older_than)).await
    }
}
