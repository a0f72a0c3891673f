//! NATS with JetStream, its streams in a temporary folder.

use crate::{Port, Probe, Scratch, Server, ServerSpec, StopSignal};
use flames_provider::conformance;
use tokio::sync::OnceCell;

const PROGRAM: &str = "/usr/sbin/nats-server";
const PACKAGE: &str = "apt-get install nats-server";
const USER: &str = "flames";
const PASSWORD: &str = "flames-test-password";

/// A NATS server that wants a user and a password.
#[derive(Debug)]
pub struct Nats {
    server: Server,
    port: Port,
}

impl Nats {
    /// Starts one. `None`, after a loud line, when NATS is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `FLAMES_REQUIRE` names `nats`.
    pub async fn start() -> Option<Self> {
        if !std::path::Path::new(PROGRAM).exists() {
            conformance::skip("nats", PACKAGE);
            return None;
        }
        let port = Port::reserve();
        let server = Server::start(spec(port.number())).await;
        Some(Self { server, port })
    }

    /// The one that all tests of this process share. Ends with the process.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<Nats>> = OnceCell::const_new();
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

    /// Its URL, with user and password.
    pub fn url(&self) -> String {
        format!("nats://{USER}:{PASSWORD}@127.0.0.1:{}", self.port())
    }
}

fn spec(port: u16) -> ServerSpec {
    let scratch = Scratch::new("nats");
    let streams = scratch.path().join("jetstream").display().to_string();
    let port_text = port.to_string();
    let args =
        ["-a", "127.0.0.1", "-p", &port_text, "-js", "-sd", &streams, "--user", USER, "--pass", PASSWORD];
    ServerSpec {
        name: "nats",
        program: PROGRAM.into(),
        args: args.map(str::to_owned).to_vec(),
        env: vec![],
        user: None,
        stop: StopSignal::Kill,
        probe: Probe { port, question: vec![], answers: &[b"INFO "] },
        scratch,
    }
}
