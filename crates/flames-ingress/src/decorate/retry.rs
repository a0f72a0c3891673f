//! Makes failed calls again: a bounded number of times, only on errors marked retryable.
//!
//! Every call may be repeated: `apply` hands over the whole set, so the second leaves what the first left.
//! Only its answer may then say that nothing changed, although the lost first call changed something.

use crate::{Applied, Capabilities, IngressProvider, Result, RouteId, RouteSet, Url};
use async_trait::async_trait;
use flames_provider::decorate::RetryPolicy;
use std::net::SocketAddr;

/// A provider that does not give up at the first fault that passes.
#[derive(Debug)]
pub struct WithRetry<P> {
    inner: P,
    policy: RetryPolicy,
}

impl<P: IngressProvider> WithRetry<P> {
    /// Repeats the calls of `inner` as `policy` allows.
    pub fn new(inner: P, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

#[async_trait]
impl<P: IngressProvider> IngressProvider for WithRetry<P> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        self.policy.run(|| self.inner.apply(desired)).await
    }

    async fn routes(&self) -> Result<RouteSet> {
        self.policy.run(|| self.inner.routes()).await
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        self.policy.run(|| self.inner.url(id)).await
    }

    fn entrance(&self) -> Result<SocketAddr> {
        self.inner.entrance()
    }
}
