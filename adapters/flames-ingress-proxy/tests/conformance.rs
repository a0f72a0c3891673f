//! The built-in proxy passes the suite.
#![allow(clippy::unwrap_used)]

use flames_ingress::conformance::{Fixture, ListenerLimits};
use flames_ingress::ingress_conformance;
use flames_ingress_proxy::{Proxy, ProxyConfig};
use std::sync::Arc;
use std::time::Duration;

async fn proxy() -> Option<Fixture> {
    let listener = ListenerLimits {
        header_timeout: Duration::from_secs(1),
        max_header_bytes: 16 << 10,
        max_connections: 8,
    };
    let config = ProxyConfig {
        header_timeout: listener.header_timeout,
        max_header_bytes: listener.max_header_bytes,
        max_connections: listener.max_connections,
        ..ProxyConfig::new(([127, 0, 0, 1], 0).into())
    };
    Some(Fixture::new(Arc::new(Proxy::start(config).await.unwrap()), listener))
}

ingress_conformance!(proxy);
