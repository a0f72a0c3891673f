//! Caddy with its admin API and nothing configured.

use crate::{Port, Probe, Scratch, Server, ServerSpec, StopSignal};
use flames_provider::conformance;
use tokio::sync::OnceCell;

const PROGRAM: &str = "/usr/bin/caddy";
const PACKAGE: &str = "apt-get install caddy";

/// A Caddy server. It keeps its configuration over a restart.
#[derive(Debug)]
pub struct Caddy {
    server: Server,
    admin: Port,
    http: Port,
}

impl Caddy {
    /// Starts one. `None`, after a loud line, when Caddy is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `FLAMES_REQUIRE` names `caddy`.
    pub async fn start() -> Option<Self> {
        if !std::path::Path::new(PROGRAM).exists() {
            conformance::skip("caddy", PACKAGE);
            return None;
        }
        let (admin, http) = (Port::reserve(), Port::reserve());
        let server = Server::start(spec(admin.number())).await;
        Some(Self { server, admin, http })
    }

    /// The one that all tests of this process share. Ends with the process.
    ///
    /// # Panics
    /// As [`Caddy::start`].
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<Caddy>> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await.as_ref()
    }

    /// The process, to break it on purpose.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The admin API's URL, without a slash at the end.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin.number())
    }

    /// A port reserved for the HTTP server that a test configures.
    pub fn http_port(&self) -> u16 {
        self.http.number()
    }
}

fn spec(admin: u16) -> ServerSpec {
    let scratch = Scratch::new("caddy");
    let config = scratch.path().join("caddy.json");
    std::fs::write(&config, format!(r#"{{"admin":{{"listen":"127.0.0.1:{admin}"}}}}"#))
        .expect("write the config");
    let home = scratch.path().display().to_string();
    let config = config.display().to_string();
    let question = format!("GET /config/ HTTP/1.1\r\nHost: 127.0.0.1:{admin}\r\nConnection: close\r\n\r\n");
    ServerSpec {
        name: "caddy",
        program: PROGRAM.into(),
        args: ["run", "--resume", "--config", &config].map(str::to_owned).to_vec(),
        env: ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"]
            .map(|name| (name.to_owned(), home.clone()))
            .to_vec(),
        user: None,
        stop: StopSignal::Kill,
        probe: Probe { port: admin, question: question.into_bytes(), answers: &[b"HTTP/1.1 200"] },
        scratch,
    }
}
