//! Connections into sandboxes.

use axum::body::Body;
use flames_core::ControlPlane;
use flames_node::{AGENT_PORT, GuestStream, VmId};
use flames_provider::{Error, Result};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub(super) type GuestHttp = Client<Connector, Body>;

/// How long an unused connection to an agent stays open.
const IDLE: Duration = Duration::from_secs(30);
/// Unused connections to one agent.
const MAX_IDLE: usize = 8;
/// Agents to which connections are kept.
const MAX_AGENTS: u64 = 4096;

/// HTTP clients of the ports of runs.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    plane: Arc<ControlPlane>,
    /// By run: a kept connection never leads into another life of a sandbox.
    agents: moka::future::Cache<VmId, GuestHttp>,
}

impl Lines {
    pub(super) fn new(plane: Arc<ControlPlane>) -> Self {
        let agents = moka::future::Cache::builder().max_capacity(MAX_AGENTS).time_to_idle(2 * IDLE).build();
        Self { plane, agents }
    }

    /// A client of one port. Connections to the agent are kept. Those to a user's server are not: it may
    /// serve one connection at a time, and a kept one would be in the way of the next client.
    pub(super) async fn to(&self, run: &VmId, port: u16) -> GuestHttp {
        if port == AGENT_PORT {
            return self.agents.get_with(run.clone(), async { self.client(run, port, MAX_IDLE) }).await;
        }
        self.client(run, port, 0)
    }

    fn client(&self, run: &VmId, port: u16, max_idle: usize) -> GuestHttp {
        let connector = Connector { plane: Arc::clone(&self.plane), run: run.clone(), port };
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(max_idle)
            .build(connector)
    }
}

/// Opens connections to one port of one run, whatever the address says.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    plane: Arc<ControlPlane>,
    run: VmId,
    port: u16,
}

impl tower::Service<http::Uri> for Connector {
    type Response = GuestIo;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<GuestIo>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let stream = connector.plane.node().connect(&connector.run, connector.port).await?;
            Ok(GuestIo(TokioIo::new(stream)))
        })
    }
}

/// A connection as the HTTP client wants it.
#[derive(Debug)]
pub(super) struct GuestIo(TokioIo<GuestStream>);

impl Connection for GuestIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for GuestIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for GuestIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
