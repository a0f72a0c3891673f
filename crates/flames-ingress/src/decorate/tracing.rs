//! A span per call.

use crate::{Applied, Capabilities, IngressProvider, Result, RouteId, RouteSet, Url};
use async_trait::async_trait;
use flames_provider::decorate::traced;
use std::net::SocketAddr;
use tracing::debug_span;

/// A provider whose calls are spans.
#[derive(Debug)]
pub struct WithTracing<P> {
    inner: P,
}

impl<P: IngressProvider> WithTracing<P> {
    /// Traces the calls of `inner`.
    pub fn new(inner: P) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<P: IngressProvider> IngressProvider for WithTracing<P> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        let span = debug_span!("ingress.apply", adapter = self.adapter(), routes = desired.len());
        traced(span, self.inner.apply(desired)).await
    }

    async fn routes(&self) -> Result<RouteSet> {
        let span = debug_span!("ingress.routes", adapter = self.adapter());
        traced(span, self.inner.routes()).await
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        let span = debug_span!("ingress.url", adapter = self.adapter(), %id);
        traced(span, self.inner.url(id)).await
    }

    fn entrance(&self) -> Result<SocketAddr> {
        self.inner.entrance()
    }
}
