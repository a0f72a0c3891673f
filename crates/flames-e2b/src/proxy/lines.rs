//! Connections into sandboxes, and which of them are kept.
//!
//! A connection is kept when both directions of its exchange are complete, and then only. An agent may answer
//! before it has read the whole request, and closes the connection after it: the next request would be lost.

use super::body::Upload;
use super::forward::Broken;
use flames_core::ControlPlane;
use flames_node::{AGENT_PORT, VmId};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) type Connection = http1::SendRequest<Upload>;

/// How long a connection may be kept: shorter than the agent's own patience.
const MAX_AGE: Duration = Duration::from_secs(8);
/// Kept connections to one agent.
const MAX_KEPT: usize = 16;
/// Agents to which connections are kept.
const MAX_AGENTS: u64 = 4096;

/// The ways into all sandboxes. Clones share their connections.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    plane: Arc<ControlPlane>,
    /// By run: a kept connection never leads into another life of a sandbox.
    agents: moka::future::Cache<VmId, Arc<Kept>>,
}

/// Connections to one agent that nobody uses, the youngest last.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<VecDeque<(Connection, Instant)>>);

impl Lines {
    pub(super) fn new(plane: Arc<ControlPlane>) -> Self {
        let agents =
            moka::future::Cache::builder().max_capacity(MAX_AGENTS).time_to_idle(4 * MAX_AGE).build();
        Self { plane, agents }
    }

    /// Where connections to a port are kept. Those to a user's server are not: it may serve one connection at
    /// a time, and a kept one would be in the way of the next client.
    pub(super) async fn kept(&self, run: &VmId, port: u16) -> Option<Arc<Kept>> {
        if port != AGENT_PORT {
            return None;
        }
        Some(self.agents.get_with(run.clone(), async { Arc::default() }).await)
    }

    /// Sends on a kept connection if one stands, else on a new one.
    pub(super) async fn send(
        &self,
        run: &VmId,
        port: u16,
        kept: Option<&Kept>,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Connection), Broken> {
        while let Some(mut connection) = kept.and_then(Kept::take) {
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                // Given back means untouched: the kept connection had closed meanwhile.
                Err(mut refused) => match refused.take_message() {
                    Some(untouched) => request = untouched,
                    None => return Err(Broken::Sandbox(refused.into_error())),
                },
            }
        }
        let mut connection = self.connect(run, port).await?;
        let response = connection.send_request(request).await.map_err(Broken::Sandbox)?;
        Ok((response, connection))
    }

    async fn connect(&self, run: &VmId, port: u16) -> Result<Connection, Broken> {
        let stream = self.plane.node().connect(run, port).await.map_err(Broken::Connect)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(Broken::Sandbox)?;
        // Ends when the sender is dropped, the guest closes or the run ends; whoever waits on the sender learns how.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

impl Kept {
    /// The youngest that is not too old.
    fn take(&self) -> Option<Connection> {
        let (connection, since) = self.lock().pop_back()?;
        if since.elapsed() < MAX_AGE {
            return Some(connection);
        }
        // All others are older still.
        self.lock().clear();
        None
    }

    /// Keeps a connection whose exchange is complete.
    pub(super) fn put(&self, connection: Connection) {
        let mut kept = self.lock();
        if kept.len() >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((connection, Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Connection, Instant)>> {
        // A panic cannot leave the queue half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
