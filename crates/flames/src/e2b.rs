//! The listener of E2B's interface: plain, or under TLS with a certificate from files.

mod certificate;

use crate::config::{self, Config};
use crate::daemon;
use axum::Router;
use certificate::{Certificate, Files};
use flames_api::server::{self, Bounds};
use flames_e2b::Internet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A listener that does not serve yet.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    domain: String,
    internet: Internet,
    metrics_every: Duration,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Tls {
    config: rustls::ServerConfig,
    certificate: Arc<Certificate>,
}

impl Listener {
    /// Listens, once the certificate was read.
    pub(crate) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let tls = tls(&config.e2b)?;
        let listener = daemon::bind(config.e2b.address(config.api.listen), "`e2b.listen`").await?;
        let address = listener.local_addr()?;
        let domain = config.e2b.domain.clone();
        let domain = domain.unwrap_or_else(|| format!("{}:{}", config.api.domain, address.port()));
        let internet = if config.e2b.internet { Internet::Given } else { Internet::Withheld };
        let metrics_every = Duration::from_secs(config.e2b.metrics_every_s.into());
        Ok(Self { listener, address, domain, internet, metrics_every, tls })
    }

    /// Sandboxes are below it.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// What sandboxes of its clients reach when nobody denies it.
    pub(crate) fn internet(&self) -> Internet {
        self.internet
    }

    /// How often what sandboxes use is measured; zero is never.
    pub(crate) fn metrics_every(&self) -> Duration {
        self.metrics_every
    }

    /// How to point a client here.
    pub(crate) fn told(&self) -> String {
        match self.tls {
            Some(_) => format!("E2B clients: E2B_DOMAIN={}", self.domain),
            None => format!("E2B clients: E2B_API_URL=http://{0} E2B_SANDBOX_URL=http://{0}", self.address),
        }
    }

    /// Serves until `shutdown`.
    pub(crate) async fn serve(self, router: Router, bounds: Bounds, shutdown: CancellationToken) {
        match self.tls {
            Some(Tls { config, certificate }) => {
                tokio::select! {
                    () = certificate.follow() => {}
                    () = server::serve_tls(self.listener, config, router, bounds, shutdown) => {}
                }
            }
            None => server::serve_tcp(self.listener, router, bounds, shutdown).await,
        }
    }
}

fn tls(config: &config::E2b) -> anyhow::Result<Option<Tls>> {
    let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else { return Ok(None) };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let files = Files { certificate: certificate.clone(), key: key.clone() };
    let certificate = Arc::new(Certificate::read(files, Arc::clone(&provider))?);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&certificate) as _);
    Ok(Some(Tls { config, certificate }))
}
