//! Makes calls fail on purpose, as a plan says.

use crate::{Applied, Capabilities, Error, ErrorKind, IngressProvider, Result, RouteId, RouteSet, Url};
use async_trait::async_trait;
use flames_provider::decorate::FaultPlan;
use std::net::SocketAddr;
use std::sync::Arc;

/// A provider whose calls fail, wait or lose their acknowledgement. The data path is left alone.
#[derive(Debug)]
pub struct WithFaults<P> {
    inner: P,
    plan: Arc<FaultPlan>,
}

impl<P: IngressProvider> WithFaults<P> {
    /// Breaks the calls of `inner` as `plan` says; operations are named as the trait names them.
    pub fn new(inner: P, plan: Arc<FaultPlan>) -> Self {
        Self { inner, plan }
    }

    fn error(&self, operation: &'static str, id: &str) -> Error {
        Error::new(ErrorKind::Internal, "route set", id).operation(operation).adapter(self.inner.adapter())
    }
}

#[async_trait]
impl<P: IngressProvider> IngressProvider for WithFaults<P> {
    fn adapter(&self) -> &'static str {
        self.inner.adapter()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        self.plan.run("apply", self.error("apply", ""), || self.inner.apply(desired)).await
    }

    async fn routes(&self) -> Result<RouteSet> {
        self.plan.run("routes", self.error("routes", ""), || self.inner.routes()).await
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        self.plan.run("url", self.error("url", id.as_str()), || self.inner.url(id)).await
    }

    fn entrance(&self) -> Result<SocketAddr> {
        self.inner.entrance()
    }
}
