//! The built-in reverse proxy: HTTP/1.1 in, HTTP/1.1 out, in this process.
//!
//! ```text
//! listener ── connection (serve) ── host + path ──> Table (arc-swap) ── Target
//!                  │                                                      │ limits, pool
//!                  └── forward: headers ─ pool or dial ─ exchange ─ body or tunnel
//! ```
//!
//! Why it is written here, on hyper, and not taken whole from a proxy library:
//! - A set of routes must change in one step under load: the table is one `Arc` behind `arc-swap`, and a request
//!   looks into it once. Ready-made routers put a layer per route into a tower stack.
//! - The node reaches a sandbox from inside its network namespace: [`Proxy`] is generic over [`Dial`].
//! - Connections to an upstream are kept per target, found with the route itself; a general pool hashes scheme and
//!   authority for every request and boxes its futures. That is where the requests per second are.
//! - Limits belong to routes, and what counts as idle is the exchange as a whole (upload, answer, tunnel).
//!
//! A request is sent a second time only when hyper gives it back untouched: the kept connection had died
//! before the first byte was written. Anything else is answered 502: a proxy cannot know what is idempotent.

#![forbid(unsafe_code)]

mod answer;
mod body;
mod config;
mod dial;
mod exchange;
mod forward;
mod impatient;
mod pool;
mod serve;
mod table;
mod tunnel;

pub use config::{ProxyConfig, Transport};
pub use dial::{Dial, TcpDial};

use async_trait::async_trait;
use flames_ingress::{
    Applied, Capabilities, Error, ErrorKind, IngressProvider, Result, RouteId, RouteSet, Url,
};
use serve::Server;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use table::Table;
use tokio::net::TcpListener;

/// A listening reverse proxy. Dropping it cuts its connections; [`Proxy::shutdown`] lets them finish.
#[derive(Debug)]
pub struct Proxy<D: Dial = TcpDial> {
    server: Arc<Server<D>>,
    address: SocketAddr,
    scheme: &'static str,
    /// The set the table was made from; held while a new table is made, so that applies are one after another.
    routes: Mutex<RouteSet>,
}

impl Proxy<TcpDial> {
    /// Listens, and dials upstreams from this process' own network namespace.
    ///
    /// # Errors
    /// As [`Proxy::start_with`].
    pub async fn start(config: ProxyConfig) -> Result<Self> {
        Self::start_with(config, TcpDial).await
    }
}

impl<D: Dial> Proxy<D> {
    /// Listens, and reaches upstreams through `dial`.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration with a limit of 0; `Unavailable` or `PermissionDenied` when the
    /// address cannot be listened on.
    pub async fn start_with(config: ProxyConfig, dial: D) -> Result<Self> {
        config.validate()?;
        let listener =
            TcpListener::bind(config.listen).await.map_err(|error| bind_error(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| bind_error(config.listen, error))?;
        let scheme = config.transport.scheme();
        let server = Arc::new(Server::new(config, dial));
        tokio::spawn(serve::accept(listener, Arc::clone(&server)));
        Ok(Self { server, address, scheme, routes: Mutex::new(RouteSet::default()) })
    }

    /// Stops accepting, lets open requests and tunnels finish within `deadline`, then cuts what is left.
    pub async fn shutdown(&self, deadline: Duration) {
        self.server.shutdown(deadline).await;
    }

    /// Open connections of clients.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Open tunnels (WebSockets) of a route: a sandbox with one is in use even when no request comes.
    pub fn tunnels(&self, id: &RouteId) -> usize {
        self.server.table.load().tunnels(id)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, RouteSet> {
        // A panic cannot leave the set half-written: it is replaced whole.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<D: Dial> IngressProvider for Proxy<D> {
    fn adapter(&self) -> &'static str {
        "proxy"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            data_path: true,
            connection_limit: true,
            connections_outlive_changes: true,
            cut_answers_look_cut: true,
        }
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        let mut routes = self.current();
        let applied = routes.difference(desired);
        if !applied.is_unchanged() {
            let table = Table::succeeding(&self.server.table.load(), desired);
            self.server.table.store(Arc::new(table));
            *routes = desired.clone();
        }
        Ok(applied)
    }

    async fn routes(&self) -> Result<RouteSet> {
        Ok(self.current().clone())
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        Ok(self.current().get(id).and_then(|route| route.url(self.scheme, Some(self.address.port()))))
    }

    fn entrance(&self) -> Result<SocketAddr> {
        Ok(self.address)
    }
}

impl<D: Dial> Drop for Proxy<D> {
    fn drop(&mut self) {
        self.server.cut();
    }
}

fn bind_error(address: SocketAddr, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "listener", address.to_string())
        .operation("start")
        .adapter("proxy")
        .detail(format!("cannot listen there: {error}; choose a free port (above 1023 without root)"))
        .source(error)
}
