//! A provider that records routes and moves no request: for tests and simulation.

use crate::{Applied, Capabilities, IngressProvider, RouteId, RouteSet};
use async_trait::async_trait;
use flames_provider::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use url::Url;

/// Records routes in memory.
#[derive(Debug, Default)]
pub struct MemoryIngress {
    routes: Mutex<RouteSet>,
}

impl MemoryIngress {
    /// A recorder without routes.
    pub fn new() -> Self {
        Self::default()
    }

    fn replace(&self, desired: RouteSet) -> RouteSet {
        // A panic elsewhere cannot leave the set half-written: it is replaced whole.
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *routes, desired)
    }

    fn current(&self) -> RouteSet {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl IngressProvider for MemoryIngress {
    fn adapter(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            data_path: false,
            connection_limit: false,
            connections_outlive_changes: false,
            cut_answers_look_cut: false,
        }
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        Ok(self.replace(desired.clone()).difference(desired))
    }

    async fn routes(&self) -> Result<RouteSet> {
        Ok(self.current())
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        Ok(self.current().get(id).and_then(|route| route.url("http", None)))
    }

    fn entrance(&self) -> Result<SocketAddr> {
        Err(Error::new(ErrorKind::Unsupported, "entrance", "")
            .operation("entrance")
            .adapter(self.adapter())
            .detail("the memory provider records routes and moves no request"))
    }
}
