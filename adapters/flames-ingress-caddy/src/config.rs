//! Where Caddy is, and what its listener allows.

use flames_ingress::{Error, ErrorKind, Result, Url};
use std::net::SocketAddr;
use std::time::Duration;

/// Which Caddy, which of its server blocks, and how that listens.
#[derive(Clone, Debug)]
pub struct CaddyConfig {
    /// The admin API, for example `http://127.0.0.1:2019`.
    pub admin: Url,
    /// Name of the server block that is ours alone: 1 to 64 of `a-z 0-9 _ -`.
    pub server: String,
    /// Where Caddy shall listen for requests.
    pub listen: SocketAddr,
    /// How long a client may take to send its headers.
    pub header_timeout: Duration,
    /// Largest header of a request in bytes.
    pub max_header_bytes: usize,
    /// Longest wait for an answer of the admin API. Loading ten thousand routes takes Caddy seconds.
    pub timeout: Duration,
}

impl CaddyConfig {
    /// The block `flames` of the Caddy behind `admin`, listening at `listen`.
    pub fn new(admin: Url, listen: SocketAddr) -> Self {
        Self {
            admin,
            server: "flames".to_owned(),
            listen,
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 64 << 10,
            timeout: Duration::from_secs(60),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if self.admin.scheme() != "http" || self.admin.host_str().is_none() {
            return Err(invalid("admin", "must be an http:// URL such as http://127.0.0.1:2019"));
        }
        if !(1..=64).contains(&self.server.len()) || !self.server.bytes().all(legal) {
            return Err(invalid("server", "must be 1 to 64 of `a-z 0-9 _ -`"));
        }
        if self.listen.port() == 0 {
            return Err(invalid("listen", "must name a port"));
        }
        if self.header_timeout.is_zero() || self.timeout.is_zero() || self.max_header_bytes == 0 {
            return Err(invalid("header_timeout, timeout, max_header_bytes", "must be more than 0"));
        }
        Ok(())
    }
}

fn invalid(setting: &'static str, detail: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, "setting", setting).operation("new").adapter("caddy").detail(detail)
}
