//! What the listener allows, before a route is known.

use flames_ingress::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Where the proxy listens and what it allows a client.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Plain or TLS.
    pub transport: Transport,
    /// How long a client may take for the TLS handshake, to send its headers, and between two requests.
    pub header_timeout: Duration,
    /// Largest header of a request in bytes; at least 8192. More is answered 431.
    pub max_header_bytes: usize,
    /// Connections from one address, or one /64 of IPv6; those beyond are closed at once. `None` is any number.
    pub connections_per_client: Option<NonZeroU32>,
    /// Connections served at once; more wait in the operating system's queue.
    pub max_connections: usize,
    /// How long a connection to an upstream may take.
    pub connect_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub write_timeout: Duration,
}

/// What clients speak to the listener.
#[derive(Clone, Debug)]
pub enum Transport {
    /// HTTP.
    Plain,
    /// HTTPS. The server configuration holds the certificate resolver, which may change certificates while
    /// the proxy runs.
    Tls(Arc<rustls::ServerConfig>),
}

impl Transport {
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls(_) => "https",
        }
    }
}

impl ProxyConfig {
    /// Smallest header limit that the HTTP parser can work with.
    const MIN_HEADER_BYTES: usize = 8192;

    /// Plain HTTP at `listen` with limits for a public entrance.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            transport: Transport::Plain,
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 64 << 10,
            connections_per_client: NonZeroU32::new(1024),
            max_connections: 8192,
            connect_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(120),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |field: &'static str, detail: &str| {
            Err(Error::new(ErrorKind::InvalidInput, "setting", field)
                .operation("start")
                .adapter("proxy")
                .detail(detail))
        };
        if self.max_header_bytes < Self::MIN_HEADER_BYTES {
            return invalid("max_header_bytes", "must be at least 8192");
        }
        if self.max_connections == 0 || self.max_connections > tokio::sync::Semaphore::MAX_PERMITS {
            return invalid("max_connections", "must be at least 1");
        }
        let timeouts = [
            ("header_timeout", self.header_timeout),
            ("connect_timeout", self.connect_timeout),
            ("write_timeout", self.write_timeout),
        ];
        match timeouts.into_iter().find(|(_, timeout)| timeout.is_zero()) {
            Some((field, _)) => invalid(field, "must be longer than 0"),
            None => Ok(()),
        }
    }
}
