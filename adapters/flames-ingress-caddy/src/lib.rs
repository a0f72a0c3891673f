//! Routes in Caddy (2.6 and later), through its admin API.
//!
//! All routes live in one HTTP server block of Caddy's configuration, which this adapter makes, marks and
//! replaces as a whole: Caddy loads a configuration in one step or not at all. A block of that name without the
//! mark is somebody else's and is not touched; the rest of the configuration is never written.
//!
//! ```text
//! apply ── read block + Etag ── same? done ── else POST block with If-Match ── 412: Conflict
//! ```
//!
//! What is different from the built-in proxy, because Caddy 2.6 is: when the set changes, open tunnels end and
//! a connection that was made and not yet served may be reset (each load listens on a socket of its own, and
//! closing the old one drops its queue, unless `net.ipv4.tcp_migrate_req` is 1); an answer that breaks off
//! looks whole to the client; there is no limit of connections; the idle timeout looks at the upstream's side of a connection only, so a
//! client that sends into a silent upstream does not keep it open; and routes are tried one after another,
//! so a request costs more the more routes there are.

#![forbid(unsafe_code)]

mod admin;
mod config;
mod error;
mod render;

pub use config::CaddyConfig;

use admin::{Admin, Block};
use async_trait::async_trait;
use flames_ingress::{Applied, Capabilities, IngressProvider, Result, RouteId, RouteSet, Url};
use std::net::SocketAddr;
use tokio::sync::Mutex;

/// Caddy as an ingress provider.
#[derive(Debug)]
pub struct CaddyIngress {
    config: CaddyConfig,
    admin: Admin,
    /// Applies of this process follow each other; those of another one are found by the Etag.
    applying: Mutex<()>,
}

impl CaddyIngress {
    /// A provider that speaks to Caddy at the first call.
    ///
    /// # Errors
    /// `InvalidInput` that names the setting: an admin URL that is not `http://` with a host, a server name
    /// that is not 1 to 64 of `a-z 0-9 _ -`, a timeout of 0.
    pub fn new(config: CaddyConfig) -> Result<Self> {
        config.validate()?;
        let admin = Admin::new(&config)?;
        Ok(Self { config, admin, applying: Mutex::new(()) })
    }
}

#[async_trait]
impl IngressProvider for CaddyIngress {
    fn adapter(&self) -> &'static str {
        error::ADAPTER
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            data_path: true,
            connection_limit: false,
            connections_outlive_changes: false,
            cut_answers_look_cut: false,
        }
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        let _one_at_a_time = self.applying.lock().await;
        let block = self.admin.read("apply").await?;
        // A block that somebody edited counts as empty: it is replaced, and every route is reported as added.
        let actual = render::parse(&self.config, &block.value).unwrap_or_default();
        let wanted = render::server(&self.config, desired);
        if block.value != wanted {
            self.admin.write(&block, wanted).await?;
        }
        Ok(actual.difference(desired))
    }

    async fn routes(&self) -> Result<RouteSet> {
        let Block { value, .. } = self.admin.read("routes").await?;
        render::parse(&self.config, &value).map_err(|fault| error::edited(&self.config, fault))
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        let port = self.config.listen.port();
        Ok(self.routes().await?.get(id).and_then(|route| route.url("http", Some(port))))
    }

    fn entrance(&self) -> Result<SocketAddr> {
        Ok(self.config.listen)
    }
}
