//! The interface to ingress: which host name leads to which upstream.
//!
//! A caller hands over the whole [`RouteSet`] it wants; the provider makes its data path follow, in one
//! step. There is no call that adds a single route: a reconciler that crashed half-way repeats the same
//! call, and a provider that lost its state is right again after it.
//!
//! Which route serves a request: those whose [`Host`] and [`PathPrefix`] match; of these an exact host wins
//! over a wildcard, then the longest prefix wins. No match is answered 404, an upstream that does not answer
//! 502 with a JSON body that names route and upstream, one that answers too late 504.
//!
//! Every provider passes the suite in `conformance` (feature of that name). [`MemoryIngress`] records
//! routes and moves no request.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clients;
pub mod decorate;
pub mod hop;
mod memory;
mod name;
mod route;
mod set;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use memory::MemoryIngress;
pub use name::{Host, PathPrefix, RouteId};
pub use route::{Limits, Route, Upstream};
pub use set::{Applied, MAX_ROUTES, RouteSet};

pub use flames_provider::{Error, ErrorKind, Result, Retry};
pub use url::Url;

use async_trait::async_trait;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

/// Leads requests to upstreams by host name and path.
#[async_trait]
pub trait IngressProvider: Debug + Send + Sync + 'static {
    /// Short name for errors and metrics, for example `proxy`.
    fn adapter(&self) -> &'static str;

    /// What this provider can and cannot do.
    fn capabilities(&self) -> Capabilities;

    /// Makes `desired` the set of routes, in one step: every request is served by the old set or by the new
    /// one. Applying the set that is in force changes nothing, so the call may be repeated.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when the data path cannot be told, within a bounded time: the old set or
    /// the new one is in force. `Conflict` when somebody else changes it at the same time, or when what is
    /// there is not ours: nothing was changed.
    async fn apply(&self, desired: &RouteSet) -> Result<Applied>;

    /// The routes in force, as the data path has them.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when the data path cannot be asked; `Corrupt` when it holds routes that
    /// this provider would not have written.
    async fn routes(&self) -> Result<RouteSet>;

    /// Where clients reach a route. `None` for an unknown route, and for a wildcard host, which has no single
    /// URL.
    ///
    /// # Errors
    /// As [`IngressProvider::routes`].
    async fn url(&self, id: &RouteId) -> Result<Option<Url>>;

    /// The address at which requests enter: what DNS records point to.
    ///
    /// # Errors
    /// `Unsupported` without the capability [`Capabilities::data_path`].
    fn entrance(&self) -> Result<SocketAddr>;
}

/// What a provider can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it moves requests, or records routes only.
    pub data_path: bool,
    /// Whether it refuses connections past a limit, or leaves that to the operating system.
    pub connection_limit: bool,
    /// Whether connections outlive a change of the set: tunnels, and those that were made and not yet served.
    /// Without it a client may have to connect again.
    pub connections_outlive_changes: bool,
    /// Whether an answer that breaks off looks broken to the client. Without it, it may look whole.
    pub cut_answers_look_cut: bool,
}

#[async_trait]
impl<P: IngressProvider + ?Sized> IngressProvider for Arc<P> {
    fn adapter(&self) -> &'static str {
        (**self).adapter()
    }
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        (**self).apply(desired).await
    }
    async fn routes(&self) -> Result<RouteSet> {
        (**self).routes().await
    }
    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        (**self).url(id).await
    }
    fn entrance(&self) -> Result<SocketAddr> {
        (**self).entrance()
    }
}
