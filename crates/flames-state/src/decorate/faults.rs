//! Makes calls fail on purpose, as a plan says.

use crate::{
    Error, ErrorKind, Key, Lease, LeaseTtl, Page, Record, Result, Revision, StateStore, Watch, Write,
};
use async_trait::async_trait;
use flames_provider::decorate::FaultPlan;
use std::sync::Arc;

/// A store whose calls fail, wait or lose their acknowledgement.
#[derive(Debug)]
pub struct WithFaults<S> {
    inner: S,
    plan: Arc<FaultPlan>,
}

impl<S: StateStore> WithFaults<S> {
    /// Breaks the calls of `inner` as `plan` says; operations are named as the trait names them.
    pub fn new(inner: S, plan: Arc<FaultPlan>) -> Self {
        Self { inner, plan }
    }

    fn error(&self, operation: &'static str, resource: &'static str, id: &str) -> Error {
        Error::new(ErrorKind::Internal, resource, id).operation(operation).adapter(self.inner.adapter())
    }
}

#[async_trait]
impl<S: StateStore> StateStore for WithFaults<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    async fn revision(&self) -> Result<Revision> {
        let error = self.error("revision", "store", "");
        self.plan.run("revision", error, || self.inner.revision()).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let error = self.error("get", "record", key.as_str());
        self.plan.run("get", error, || self.inner.get(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        let error = self.error("list", "prefix", prefix);
        self.plan.run("list", error, || self.inner.list(prefix, after, limit)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        let error = self.error("commit", "record", writes.first().map_or("", |write| write.key().as_str()));
        self.plan.run("commit", error, || self.inner.commit(writes)).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let error = self.error("watch", "prefix", prefix);
        self.plan.run("watch", error, || self.inner.watch(prefix, from)).await
    }

    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        let error = self.error("acquire_lease", "lease", name.as_str());
        self.plan.run("acquire_lease", error, || self.inner.acquire_lease(name, holder, ttl)).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        let error = self.error("renew_lease", "lease", lease.name.as_str());
        self.plan.run("renew_lease", error, || self.inner.renew_lease(lease, ttl)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let error = self.error("release_lease", "lease", lease.name.as_str());
        self.plan.run("release_lease", error, || self.inner.release_lease(lease)).await
    }
}
