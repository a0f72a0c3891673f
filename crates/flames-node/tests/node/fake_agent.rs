//! A VMM whose guests have an agent that answers on the loopback port of the fake's network: the fake driver
//! has machines, this gives them a voice.

use async_trait::async_trait;
use flames_node::{InitRequest, InitResponse};
use flames_vmm::fake::{FakeVmm, FakeWorld};
use flames_vmm::{
    Capabilities, Network, PrepareFor, PreparedVm, Result, RunningVm, VmHandle, VmSpec, VmmDriver,
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// The fake driver, with an agent behind each machine's port.
#[derive(Debug)]
pub(crate) struct FakeWithAgent {
    inner: FakeVmm,
    agent: Agent,
    heard: Heard,
}

/// What the agents of a driver were told, oldest first.
pub(crate) type Heard = Arc<Mutex<Vec<InitRequest>>>;

/// How the agents behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agent {
    /// It takes the handshake.
    Willing,
    /// Its kernel takes no entropy.
    WithoutEntropy,
    /// It knows the calls of old.
    Old,
}

impl FakeWithAgent {
    pub(crate) fn new(world: &FakeWorld, agent: Agent) -> Arc<Self> {
        Arc::new(Self { inner: world.driver(), agent, heard: Heard::default() })
    }

    pub(crate) fn heard(&self) -> Heard {
        Arc::clone(&self.heard)
    }
}

#[async_trait]
impl VmmDriver for FakeWithAgent {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn version(&self) -> Result<String> {
        self.inner.version().await
    }

    async fn prepare(&self, spec: VmSpec, purpose: PrepareFor) -> Result<Box<dyn PreparedVm>> {
        if let Network::User { host_port, .. } = &spec.network {
            serve(*host_port, self.agent, &self.heard).await;
        }
        self.inner.prepare(spec, purpose).await
    }

    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        self.inner.adopt(handle).await
    }
}

/// What a guest says of itself when its disk is frozen.
const FROZEN: &str = r#"{"envVars":{"SET":"inside"},"defaultUser":"root","defaultWorkdir":"/srv"}"#;

async fn serve(port: u16, agent: Agent, heard: &Heard) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let heard = Arc::clone(heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heard = Arc::clone(&heard);
            let service =
                hyper::service::service_fn(move |request| answer(request, agent, Arc::clone(&heard)));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
}

async fn answer(
    request: Request<Incoming>,
    agent: Agent,
    heard: Heard,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/flames/v1/init" => {
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            let asked: InitRequest = serde_json::from_slice(&asked).unwrap();
            let answer = serde_json::to_vec(&acknowledge(&asked, agent)).unwrap();
            heard.lock().unwrap().push(asked);
            answer
        }
        "/flames/v1/freeze" if agent == Agent::Old => {
            let mut unknown = Response::new(Full::new(Bytes::from(r#"{"code":"unimplemented"}"#)));
            *unknown.status_mut() = hyper::StatusCode::NOT_FOUND;
            return Ok(unknown);
        }
        "/flames/v1/freeze" => FROZEN.into(),
        _ => Vec::new(),
    };
    Ok(Response::new(Full::new(Bytes::from(body))))
}

/// Says that everything was done that was asked for, but for what this agent does not do.
fn acknowledge(asked: &InitRequest, agent: Agent) -> InitResponse {
    let env = asked.env_vars.as_ref().map_or(0, |env| env.len());
    InitResponse {
        time_unix_nanos: asked.time_unix_nanos,
        entropy_credited: agent != Agent::WithoutEntropy,
        control_token_replaced: asked.control_token.is_some(),
        access_token_set: asked.access_token.is_some(),
        env_vars: env.try_into().unwrap(),
        hostname: asked.hostname.clone().unwrap_or_default(),
        machine_id: "0123456789abcdef".into(),
        neighbours_flushed: asked.close_connections,
        ..InitResponse::default()
    }
}
