//! Connections: accepting them, and their limits.

use crate::agent::Agent;
use crate::connections::Ticket;
use crate::sendfile::Handover;
use crate::{routes, tunnel};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

/// Connections at a time; one more waits in the kernel's queue. E2B clients keep up to 200.
const MAX_CONNECTIONS: usize = 1024;
/// The kernel's queue of connections that were not accepted yet.
const BACKLOG: u32 = 1024;
/// The most bytes of a request's line and headers.
const MAX_HEADERS: usize = 64 << 10;
/// How long a connection may be idle or in the middle of its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// After accept fails for want of descriptors, give others the time to close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A port that is open and not yet served.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { listener: socket.listen(BACKLOG)? })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(crate) async fn serve(self, agent: Arc<Agent>) -> Infallible {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let agent = Arc::clone(&agent);
                    let mut ticket = agent.connections.enter(peer.ip());
                    tokio::spawn(async move {
                        serve_connection(stream, &agent, &mut ticket).await;
                        agent.connections.leave(ticket);
                        drop(slot);
                    });
                }
                Err(error) => {
                    eprintln!("flames-guest: accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves until the client goes away or the connection is to be reset.
async fn serve_connection(mut stream: TcpStream, agent: &Arc<Agent>, ticket: &mut Ticket) {
    // Events are small and wanted at once. A socket that refuses this is only slower.
    let _slower = stream.set_nodelay(true);
    loop {
        let Some(after) = serve_http(stream, agent, ticket).await else { return };
        let rest = tokio::select! {
            rest = after.go_on() => rest,
            // Dropped, both ends are closed.
            Ok(()) = &mut ticket.reset => None,
        };
        match rest {
            Some(rest) => stream = rest,
            None => return,
        }
    }
}

/// What becomes of a connection that the HTTP server has let go of.
enum After {
    Tunnel { outer: TcpStream, early: Bytes, inner: TcpStream },
    File { stream: TcpStream, answer: Handover },
}

impl After {
    /// Gives back a connection on which further requests may come.
    async fn go_on(self) -> Option<TcpStream> {
        match self {
            Self::Tunnel { outer, early, inner } => {
                tunnel::carry(outer, early, inner).await;
                None
            }
            // An error: cut off, the client sees that something is missing.
            Self::File { stream, answer } => answer.send(stream).await.ok().flatten(),
        }
    }
}

/// `None` when the connection is over.
async fn serve_http(stream: TcpStream, agent: &Arc<Agent>, ticket: &mut Ticket) -> Option<After> {
    let via = ticket.via;
    let tunnel = tunnel::Inner::default();
    let (hand_over, mut handed_over) = mpsc::channel(1);
    let service = service_fn(|request| {
        let (agent, tunnel, hand_over) = (Arc::clone(agent), tunnel.clone(), hand_over.clone());
        Box::pin(async move {
            let suits = Handover::suits(&request);
            let mut answer = routes::answer(agent, request, via).await;
            tunnel.take_from(&mut answer);
            if !suits {
                return Ok::<_, Infallible>(answer);
            }
            match Handover::of(answer) {
                Ok(handover) => {
                    // Whoever receives it ends this server, and this call with it.
                    hand_over.send(handover).await.ok();
                    pending().await
                }
                Err(answer) => Ok(*answer),
            }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // An error here is the client's: it went away or spoke no HTTP, and was answered if that was possible.
        _client_gone = poll_fn(|context| connection.poll_without_shutdown(context)) => {}
        Some(answer) = handed_over.recv() => {
            let parts = connection.into_parts();
            // A request that did not wait for this answer is lost, which its client sees by the connection's end.
            let answer = if parts.read_buf.is_empty() { answer } else { answer.last() };
            return Some(After::File { stream: parts.io.into_inner(), answer });
        }
        Ok(()) = &mut ticket.reset => {
            reset(connection.into_parts().io.into_inner());
            return None;
        }
    }
    let inner = tunnel.take()?;
    let parts = connection.into_parts();
    Some(After::Tunnel { outer: parts.io.into_inner(), early: parts.read_buf, inner })
}

/// Ends a connection at once: nothing of what was to be sent is sent, and nobody waits for its other end.
fn reset(stream: TcpStream) {
    // A socket that refuses this ends the slow way.
    let _slower = stream.set_zero_linger();
}
