//! Counts and times every call.

use crate::{Applied, Capabilities, IngressProvider, Result, RouteId, RouteSet, Url};
use async_trait::async_trait;
use flames_provider::decorate::{Call, CallMetrics};
use std::net::SocketAddr;

/// A provider whose calls are counted and timed under the interface `ingress`.
#[derive(Debug)]
pub struct WithMetrics<P> {
    inner: P,
    metrics: CallMetrics,
}

impl<P: IngressProvider> WithMetrics<P> {
    /// Records the calls of `inner` in `metrics`.
    pub fn new(inner: P, metrics: CallMetrics) -> Self {
        Self { inner, metrics }
    }

    fn call(&self, operation: &'static str) -> Call {
        Call { interface: "ingress", adapter: self.inner.adapter(), operation }
    }
}

#[async_trait]
impl<P: IngressProvider> IngressProvider for WithMetrics<P> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        self.metrics.observe(self.call("apply"), self.inner.apply(desired)).await
    }

    async fn routes(&self) -> Result<RouteSet> {
        self.metrics.observe(self.call("routes"), self.inner.routes()).await
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        self.metrics.observe(self.call("url"), self.inner.url(id)).await
    }

    fn entrance(&self) -> Result<SocketAddr> {
        self.inner.entrance()
    }
}
