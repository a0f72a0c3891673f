//! Makes failed calls again: a bounded number of times, only on errors marked retryable, and only calls
//! that may be repeated.
//!
//! | call | repeated |
//! |---|---|
//! | revision, get, list, watch | yes: they change nothing |
//! | commit | after `Unavailable`; after `Timeout` no: a first try that took effect makes the second a `Conflict`, or writes twice |
//! | acquire_lease | as commit: a lost first try would hold the lease against its own holder |
//! | renew_lease, release_lease | yes: the second leaves what the first left |
//!
//! `Unavailable` promises that nothing was executed; that is why a commit may be repeated after it.

use crate::{
    Error, ErrorKind, Key, Lease, LeaseTtl, Page, Record, Result, Retry, Revision, StateStore, Watch, Write,
};
use async_trait::async_trait;
use flames_provider::decorate::RetryPolicy;

/// A store that does not give up at the first fault that passes.
#[derive(Debug)]
pub struct WithRetry<S> {
    inner: S,
    policy: RetryPolicy,
}

impl<S: StateStore> WithRetry<S> {
    /// Repeats the calls of `inner` as `policy` allows.
    pub fn new(inner: S, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

/// Not to be repeated: it may have taken effect.
fn final_if_unknown(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Timeout => error.retry(Retry::Never),
        _ => error,
    }
}

#[async_trait]
impl<S: StateStore> StateStore for WithRetry<S> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    async fn revision(&self) -> Result<Revision> {
        self.policy.run(|| self.inner.revision()).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.policy.run(|| self.inner.get(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        self.policy.run(|| self.inner.list(prefix, after, limit)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        let commit = || async { self.inner.commit(writes.clone()).await.map_err(final_if_unknown) };
        self.policy.run(commit).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.policy.run(|| self.inner.watch(prefix, from)).await
    }

    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        let acquire =
            || async { self.inner.acquire_lease(name, holder, ttl).await.map_err(final_if_unknown) };
        self.policy.run(acquire).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        self.policy.run(|| self.inner.renew_lease(lease, ttl)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        self.policy.run(|| self.inner.release_lease(lease)).await
    }
}
