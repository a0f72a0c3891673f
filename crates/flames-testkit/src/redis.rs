//! Redis, without persistence: after a restart it is empty, as a cache may be.

use crate::{Port, Probe, Scratch, Server, ServerSpec, StopSignal};
use flames_provider::conformance;
use tokio::sync::OnceCell;

const PROGRAM: &str = "/usr/bin/redis-server";
const PACKAGE: &str = "apt-get install redis-server";
const PASSWORD: &str = "flames-test-password";

/// A Redis server that wants a password.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: Port,
}

impl Redis {
    /// Starts one. `None`, after a loud line, when Redis is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `FLAMES_REQUIRE` names `redis`.
    pub async fn start() -> Option<Self> {
        if !std::path::Path::new(PROGRAM).exists() {
            conformance::skip("redis", PACKAGE);
            return None;
        }
        let port = Port::reserve();
        let server = Server::start(spec(port.number())).await;
        Some(Self { server, port })
    }

    /// The one that all tests of this process share. Ends with the process.
    ///
    /// # Panics
    /// As [`Redis::start`].
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<Redis>> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await.as_ref()
    }

    /// The process, to break it on purpose.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its URL, with the password.
    pub fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/", self.port())
    }
}

fn spec(port: u16) -> ServerSpec {
    let port_text = port.to_string();
    let args = ["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD];
    ServerSpec {
        name: "redis",
        program: PROGRAM.into(),
        args: args.map(str::to_owned).to_vec(),
        env: vec![],
        user: None,
        stop: StopSignal::Kill,
        // It refuses an unknown client only once it serves.
        probe: Probe { port, question: b"PING\r\n".to_vec(), answers: &[b"-NOAUTH", b"+PONG"] },
        scratch: Scratch::new("redis"),
    }
}
