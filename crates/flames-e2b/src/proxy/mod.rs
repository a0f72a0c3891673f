//! The way from a client into a sandbox: every request is forwarded as it comes, and its answer as it is made.
//!
//! The agent itself checks access tokens and signatures, so this holds for whoever reaches it by another way
//! too. What the proxy keeps from it is what only the node may call ([`is_public_call`]).

mod answer;
mod body;
mod forward;
mod guard;
mod lines;

pub use guard::is_public_call;

use crate::error::chain;
use crate::wake::{Awake, wake};
use answer::Refusal;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use flames_core::activity::Work;
use flames_core::sandbox::admit::Timeout;
use flames_core::sandbox::error::{LifecycleError, ResumeError};
use flames_core::sandbox::query::Filter;
use flames_core::sandbox::record::{OnRequest, Sandbox};
use flames_core::sandbox::state::State;
use flames_core::{ControlPlane, SandboxId};
use flames_node::AGENT_PORT;
use lines::Lines;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a sandbox lives that a request has woken, if nobody says otherwise.
const WOKEN_FOR: Timeout = Timeout::After(Duration::from_secs(300));

/// Leads requests into sandboxes. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    plane: Arc<ControlPlane>,
    lines: Lines,
    /// Held by the one search for a signer that goes on.
    search: Arc<Mutex<()>>,
}

impl Proxy {
    pub(crate) fn new(plane: Arc<ControlPlane>) -> Self {
        Self { lines: Lines::new(Arc::clone(&plane)), plane, search: Arc::default() }
    }

    /// Serves a request that names its sandbox.
    pub(crate) async fn forward(&self, id: &SandboxId, port: u16, request: Request) -> Response {
        // Whether it runs is all that this asks: it must not change the answer.
        let asks_health = port == AGENT_PORT && request.uri().path() == "/health";
        let found = if asks_health { self.find(id).await } else { Box::pin(self.find_or_wake(id)).await };
        match found {
            Ok(sandbox) if !guard::may_pass(&self.plane, &sandbox, port, request.headers()) => {
                Refusal::no_traffic_token(id).into_response()
            }
            Ok(sandbox) => {
                // To ask whether it runs is no use of it.
                let work = (!asks_health).then(|| self.plane.work(id));
                self.forward_to(&sandbox, port, request, work).await
            }
            Err(refusal) => refusal.into_response(),
        }
    }

    /// Serves a request for a file whose signature is all that it shows.
    pub(crate) async fn forward_signed(&self, request: Request) -> Response {
        let signer = match guard::Claim::of(&request) {
            Some(claim) => self.signer(&claim).await,
            None => Ok(None),
        };
        match signer {
            Ok(Some(sandbox)) => {
                let work = Some(self.plane.work(&sandbox.id));
                self.forward_to(&sandbox, AGENT_PORT, request, work).await
            }
            Ok(None) => Refusal::unknown_signature().into_response(),
            Err(error) => Refusal::fault("", chain(&error)).into_response(),
        }
    }

    async fn forward_to(
        &self,
        sandbox: &Sandbox,
        port: u16,
        request: Request,
        work: Option<Work>,
    ) -> Response {
        if port == AGENT_PORT && !is_public_call(request.uri().path()) {
            return Refusal::private_call(&sandbox.id).into_response();
        }
        match forward::forward(&self.lines, sandbox, port, request, work).await {
            Ok(response) => response,
            Err(broken) => self.explain(sandbox, port, broken).await.into_response(),
        }
    }

    /// A sandbox that can be sent to.
    async fn find(&self, id: &SandboxId) -> Result<Sandbox, Refusal> {
        match self.plane.get(id).await {
            Ok(sandbox) if sandbox.state == State::Running => Ok(sandbox),
            Ok(_) | Err(LifecycleError::NotFound(_)) => Err(Refusal::no_sandbox(id)),
            Err(error) => Err(Refusal::fault(id.as_str(), chain(&error))),
        }
    }

    /// The same; one that rests and wants it is brought back first, and the request waits.
    async fn find_or_wake(&self, id: &SandboxId) -> Result<Sandbox, Refusal> {
        let sandbox = match self.plane.get(id).await {
            Ok(sandbox) => sandbox,
            Err(LifecycleError::NotFound(_)) => return Err(Refusal::no_sandbox(id)),
            Err(error) => return Err(Refusal::fault(id.as_str(), chain(&error))),
        };
        let rests = matches!(sandbox.state, State::Paused | State::Snapshotted | State::Pausing);
        let wants_it = rests && sandbox.entrance.on_request == OnRequest::Resume;
        match sandbox.state {
            State::Running => Ok(sandbox),
            State::Resuming => self.awake(id).await,
            _ if wants_it => self.awake(id).await,
            _ => Err(Refusal::no_sandbox(id)),
        }
    }

    async fn awake(&self, id: &SandboxId) -> Result<Sandbox, Refusal> {
        match wake(&self.plane, id, WOKEN_FOR).await {
            Ok(Awake::Already(sandbox) | Awake::Resumed(sandbox)) => Ok(sandbox),
            Err(ResumeError::Sandbox(LifecycleError::NotFound(_))) => Err(Refusal::no_sandbox(id)),
            Err(error) => Err(Refusal::fault(id.as_str(), chain(&error))),
        }
    }

    /// The sandbox whose token made a signature. It looks at every sandbox, and anybody may ask for it: one at a time.
    async fn signer(&self, claim: &guard::Claim) -> Result<Option<Sandbox>, LifecycleError> {
        let _turn = self.search.lock().await;
        let filter = Filter { states: vec![State::Running], ..Filter::default() };
        let made_it = |sandbox: &Sandbox| claim.is_made_with(&self.plane.access_token(&sandbox.id));
        Ok(self.plane.list_all(&filter).await?.into_iter().find(made_it))
    }

    /// Why a request was not answered: the sandbox may have ended meanwhile.
    async fn explain(&self, sandbox: &Sandbox, port: u16, broken: forward::Broken) -> Refusal {
        match self.find(&sandbox.id).await {
            Err(refusal) => refusal,
            Ok(now) if now.run != sandbox.run => Refusal::no_sandbox(&sandbox.id),
            Ok(_) if broken.is_closed_port() => Refusal::closed_port(&sandbox.id, port),
            Ok(_) => Refusal::broke_off(&sandbox.id, port, chain(&broken)),
        }
    }
}
