//! The listener of E2B's interface: plain, or under TLS with a certificate from files or from an ACME server.

mod acme;
mod certificate;

use crate::config::{self, Config};
use crate::daemon;
use acme::Acme;
use axum::Router;
use certificate::{Certificate, Files};
use flames_api::server::{self, Bounds};
use flames_e2b::Internet;
use std::net::SocketAddr;
use std::path::Path;
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
    /// Who gets the certificate, unless the user does.
    acme: Option<Acme>,
}

impl Listener {
    /// Listens, once the certificate was read. One from an ACME server is below the data directory `data`, or is got
    /// while the listener is served; until then no client is.
    pub(crate) async fn bind(config: &Config, data: &Path) -> anyhow::Result<Self> {
        let tls = tls(&config.e2b, data)?;
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
            Some(Tls { config, certificate, acme }) => {
                tokio::select! {
                    () = certificate.follow() => {}
                    () = renew(acme) => {}
                    () = server::serve_tls(self.listener, config, router, bounds, shutdown) => {}
                }
            }
            None => server::serve_tcp(self.listener, router, bounds, shutdown).await,
        }
    }
}

async fn renew(acme: Option<Acme>) {
    match acme {
        Some(acme) => Box::pin(acme.follow()).await,
        None => std::future::pending().await,
    }
}

fn tls(config: &config::E2b, data: &Path) -> anyhow::Result<Option<Tls>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let acme = match (&config.acme, config.host()) {
        (Some(acme), Some(domain)) => Some(Acme::new(acme, domain, data, Arc::clone(&provider))?),
        _ => None,
    };
    let certificate = match (&acme, &config.tls_certificate, &config.tls_key) {
        (Some(acme), _, _) => Certificate::awaited(acme.files(), Arc::clone(&provider)),
        (None, Some(certificate), Some(key)) => {
            let files = Files { certificate: certificate.clone(), key: key.clone() };
            Certificate::read(files, Arc::clone(&provider))?
        }
        _ => return Ok(None),
    };
    let certificate = Arc::new(certificate);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&certificate) as _);
    Ok(Some(Tls { config, certificate, acme }))
}
