//! A route and its parts. Facts, no behaviour; [`crate::RouteSet`] checks what the types cannot.

use crate::{Host, PathPrefix, RouteId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;

/// Which requests go where, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Names the route in errors, in the provider's data and in calls.
    pub id: RouteId,
    /// Which hosts.
    pub host: Host,
    /// Which paths of these. The path reaches the upstream whole, the prefix is not cut off.
    #[serde(default)]
    pub path_prefix: PathPrefix,
    /// Where they go.
    pub upstream: Upstream,
    /// What a request and its answer may take.
    #[serde(default)]
    pub limits: Limits,
}

impl Route {
    /// A route for every path of `host`, with the usual limits.
    pub fn new(id: RouteId, host: Host, upstream: Upstream) -> Self {
        Self { id, host, path_prefix: PathPrefix::root(), upstream, limits: Limits::default() }
    }

    /// For paths under `prefix` only.
    #[must_use]
    pub fn under(mut self, prefix: PathPrefix) -> Self {
        self.path_prefix = prefix;
        self
    }

    /// With other limits.
    #[must_use]
    pub fn limited_to(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where clients reach this route behind an entrance that speaks `scheme` at `port` (`None` for the
    /// scheme's own). `None` for a wildcard host.
    pub fn url(&self, scheme: &str, port: Option<u16>) -> Option<Url> {
        if self.host.wildcard_suffix().is_some() {
            return None;
        }
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Url::parse(&format!("{scheme}://{}{port}{}", self.host, self.path_prefix)).ok()
    }
}

/// Where requests of a route go: plain HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Upstream {
    /// A TCP socket; the port is not 0.
    Tcp(SocketAddr),
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// What one request of a route may take.
///
/// How long a client may take to send its headers, how large they may be and how many connections there may
/// be is a matter of the listener: at that time no route is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest request body in bytes; more is answered 413. At least 1.
    pub max_body_bytes: u64,
    /// Longest wait for the upstream's answer to start, counted from the last byte of the request; past it
    /// 504 is answered.
    pub header_timeout: Duration,
    /// A started answer or a tunnel in which no byte moves for this long is cut.
    pub idle_timeout: Duration,
}

impl Limits {
    /// The longest timeout.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
}

impl Default for Limits {
    /// 5 GiB, two minutes to the first byte of an answer, an hour of silence: a terminal may be left alone.
    fn default() -> Self {
        Self {
            max_body_bytes: 5 << 30,
            header_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(3600),
        }
    }
}
