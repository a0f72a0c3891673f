//! Caddy passes the suite, each case against a server of its own.
#![allow(clippy::unwrap_used)]

use flames_ingress::conformance::{Fixture, ListenerLimits};
use flames_ingress::ingress_conformance;
use flames_ingress_caddy::{CaddyConfig, CaddyIngress};
use flames_testkit::Caddy;
use std::sync::Arc;
use std::time::Duration;

async fn caddy() -> Option<Fixture> {
    let server = Caddy::start().await?;
    let listener = ListenerLimits {
        header_timeout: Duration::from_secs(1),
        max_header_bytes: 16 << 10,
        max_connections: 8,
    };
    let listen = ([127, 0, 0, 1], server.http_port()).into();
    let config = CaddyConfig {
        header_timeout: listener.header_timeout,
        max_header_bytes: listener.max_header_bytes,
        ..CaddyConfig::new(server.admin_url().parse().unwrap(), listen)
    };
    Some(Fixture::new(Arc::new(CaddyIngress::new(config).unwrap()), listener).keeping(server))
}

ingress_conformance!(caddy);
