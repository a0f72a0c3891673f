//! Serves a router on TCP, plain or under TLS, and on a unix socket, with bounds on slow and many clients.

use crate::patient::Patient;
use crate::unread::{self, Unread};
use axum::Router;
use axum::extract::Request;
use flames_ingress::clients::{Client, Clients};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A client that takes longer to send its headers is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// More clients than this wait until one leaves.
const MAX_CONNECTIONS: usize = 4096;
/// Between two tries when the system cannot give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a stream of HTTP/2 that wait for its client.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;
/// Streams of one connection of HTTP/2.
const HTTP2_STREAMS: u32 = 256;
/// How long open requests may go on after the shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// How much one client may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections from one address, or one /64 of IPv6; those beyond are closed at once. `None` is any number.
    pub connections_per_client: Option<NonZeroU32>,
}

/// What a listener accepts.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Also gives whose connection it is, where clients can be told apart.
    fn accept_one(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<Client>)>> + Send;
}

/// Serves until `shutdown`, then lets open requests end.
pub async fn serve_tcp(listener: TcpListener, router: Router, bounds: Bounds, shutdown: CancellationToken) {
    serve(listener, Transport::Plain, router, bounds, shutdown).await;
}

/// The same under TLS, with HTTP/2 for clients that offer it.
pub async fn serve_tls(
    listener: TcpListener,
    mut tls: rustls::ServerConfig,
    router: Router,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    serve(listener, Transport::Tls(TlsAcceptor::from(Arc::new(tls))), router, bounds, shutdown).await;
}

/// The same on a unix socket.
pub async fn serve_unix(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    serve(listener, Transport::Plain, router, Bounds { connections_per_client: None }, shutdown).await;
}

/// What lies between the socket and HTTP.
#[derive(Clone)]
enum Transport {
    Plain,
    Tls(TlsAcceptor),
}

async fn serve<A: Accept>(
    listener: A,
    transport: Transport,
    router: Router,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    let router = router.layer(axum::middleware::from_fn(unread::end_connection));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let clients = Clients::new(bounds.connections_per_client);
    let open = GracefulShutdown::new();
    while let Some(place) = shutdown.run_until_cancelled(Arc::clone(&room).acquire_owned()).await {
        let Some(accepted) = shutdown.run_until_cancelled(listener.accept_one()).await else { break };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Mostly out of file descriptors, and the kernel has no event for "there are some again".
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let seat = match client.map(|client| clients.seat(client)) {
            Some(None) => {
                tracing::debug!(?client, "a connection was closed: its client has too many");
                continue;
            }
            seat => seat.flatten(),
        };
        let (transport, router, watcher) = (transport.clone(), router.clone(), open.watcher());
        tokio::spawn(async move {
            let _place = (place, seat);
            match transport {
                Transport::Plain => converse(stream, router, watcher).await,
                Transport::Tls(acceptor) => {
                    let handshake = tokio::time::timeout(HEADER_TIMEOUT, acceptor.accept(stream));
                    if let Ok(Ok(stream)) = handshake.await {
                        converse(stream, router, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, open.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off: they went on longer than {DRAIN:?} after the shutdown began");
    }
}

/// Serves one connection to its end.
async fn converse<S>(stream: S, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let unread = Unread::default();
    let stream = Patient::new(stream, HEADER_TIMEOUT, unread.clone());
    let router = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(unread.clone());
        request
    });
    let (service, stream) = (TowerToHyperService::new(router), TokioIo::new(stream));
    let builder = connection_builder();
    let connection = builder.serve_connection_with_upgrades(stream, service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%error, "a connection broke");
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let http2 = &mut builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    // What may wait for a client that answers pings and reads none of its streams.
    http2.max_send_buf_size(HTTP2_SEND_BUFFER).max_concurrent_streams(HTTP2_STREAMS);
    builder
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept_one(&self) -> io::Result<(Self::Stream, Option<Client>)> {
        let (stream, peer) = self.accept().await?;
        // Output of commands comes in small pieces that nobody should wait for.
        stream.set_nodelay(true)?;
        Ok((stream, Some(Client::at(peer.ip()))))
    }
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn accept_one(&self) -> io::Result<(Self::Stream, Option<Client>)> {
        Ok((self.accept().await?.0, None))
    }
}
