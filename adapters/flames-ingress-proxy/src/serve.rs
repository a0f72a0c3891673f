//! The listener: accepts connections within the limit, serves them, and ends them in two steps.

use crate::config::{ProxyConfig, Transport};
use crate::dial::Dial;
use crate::forward;
use crate::impatient::Impatient;
use crate::table::Table;
use arc_swap::ArcSwap;
use flames_ingress::clients::{self, Clients, Seat};
use flames_ingress::hop::Client;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Who sits at the other end of a connection, and the place that it takes.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) client: Client,
    /// Held by the connection and, after an upgrade, by its tunnel.
    pub(crate) seat: Arc<Place>,
}

/// The place of a connection: one of all, and one of its client's.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(crate) struct Place {
    permit: OwnedSemaphorePermit,
    seat: Seat,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server<D> {
    pub(crate) config: ProxyConfig,
    pub(crate) dial: D,
    pub(crate) table: ArcSwap<Table>,
    permits: Arc<Semaphore>,
    clients: Clients,
    tasks: TaskTracker,
    /// Cancelled: accept nothing more, finish what is open.
    drain: CancellationToken,
    /// Cancelled: end at once. A parent of nothing: `drain` may be cancelled without it.
    cut: CancellationToken,
}

impl<D: Dial> Server<D> {
    pub(crate) fn new(config: ProxyConfig, dial: D) -> Self {
        let permits = Arc::new(Semaphore::new(config.max_connections));
        let clients = Clients::new(config.connections_per_client);
        let (drain, cut) = (CancellationToken::new(), CancellationToken::new());
        let (table, tasks) = (ArcSwap::default(), TaskTracker::new());
        Self { config, dial, table, permits, clients, tasks, drain, cut }
    }

    pub(crate) fn connections(&self) -> usize {
        self.config.max_connections - self.permits.available_permits()
    }

    /// Runs `work` until it ends or the server is cut.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move { cut.run_until_cancelled_owned(work).await });
    }

    pub(crate) fn cut(&self) {
        self.drain.cancel();
        self.cut.cancel();
    }

    pub(crate) async fn shutdown(&self, deadline: Duration) {
        self.drain.cancel();
        self.tasks.close();
        // Past the deadline what is left is cut, and then ends at once.
        let _in_time = tokio::time::timeout(deadline, self.tasks.wait()).await;
        self.cut();
        self.tasks.wait().await;
    }
}

/// Accepts until the server drains. At the limit new connections wait in the operating system's queue; those of a client that
/// has too many are closed.
pub(crate) async fn accept<D: Dial>(listener: TcpListener, server: Arc<Server<D>>) {
    let drain = server.drain.clone();
    let accepting = async {
        while let Ok(permit) = Arc::clone(&server.permits).acquire_owned().await {
            let (stream, peer) = next(&listener).await;
            let Some(seat) = server.clients.seat(clients::Client::at(peer.ip())) else { continue };
            server.spawn(connection(Arc::clone(&server), stream, peer, Place { permit, seat }));
        }
    };
    drain.run_until_cancelled(accepting).await;
}

/// A failed accept is about that connection, or about descriptors that other connections will give back.
async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection<D: Dial>(server: Arc<Server<D>>, stream: TcpStream, peer: SocketAddr, place: Place) {
    // A connection that is gone already fails on its first read.
    let _ = stream.set_nodelay(true);
    let client = Client { address: peer.ip(), scheme: server.config.transport.scheme() };
    let visitor = Visitor { client, seat: Arc::new(place) };
    let stream = Impatient::new(stream, server.config.write_timeout);
    match server.config.transport.clone() {
        Transport::Plain => http(server, stream, visitor).await,
        Transport::Tls(config) => {
            let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
            if let Ok(Ok(stream)) = tokio::time::timeout(server.config.header_timeout, handshake).await {
                http(server, stream, visitor).await;
            }
        }
    }
}

async fn http<D, S>(server: Arc<Server<D>>, stream: S, visitor: Visitor)
where
    D: Dial,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = Arc::clone(&server);
    let service = service_fn(move |request| {
        let (server, visitor) = (Arc::clone(&shared), visitor.clone());
        async move { Ok::<_, Infallible>(forward::serve(server, visitor, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.config.header_timeout)
        .max_buf_size(server.config.max_header_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // How a connection of a client ends is the client's affair: there is nobody to tell.
    tokio::select! {
        _ended = &mut connection => return,
        () = server.drain.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}
