//! Serves a router on TCP, plain or under TLS, and on a unix socket, with bounds on slow and many clients.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A client that takes longer to send its headers is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// More clients than this wait until one leaves.
const MAX_CONNECTIONS: usize = 4096;
/// Between two tries when the system cannot give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long open requests may go on after the shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// What a listener accepts.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Serves until `shutdown`, then lets open requests end.
pub async fn serve_tcp(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve(listener, Transport::Plain, router, shutdown).await;
}

/// The same under TLS, with HTTP/2 for clients that offer it.
pub async fn serve_tls(
    listener: TcpListener,
    mut tls: rustls::ServerConfig,
    router: Router,
    shutdown: CancellationToken,
) {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    serve(listener, Transport::Tls(TlsAcceptor::from(Arc::new(tls))), router, shutdown).await;
}

/// The same on a unix socket.
pub async fn serve_unix(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    serve(listener, Transport::Plain, router, shutdown).await;
}

/// What lies between the socket and HTTP.
#[derive(Clone)]
enum Transport {
    Plain,
    Tls(TlsAcceptor),
}

async fn serve<A: Accept>(listener: A, transport: Transport, router: Router, shutdown: CancellationToken) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let open = GracefulShutdown::new();
    while let Some(place) = shutdown.run_until_cancelled(Arc::clone(&room).acquire_owned()).await {
        let Some(accepted) = shutdown.run_until_cancelled(listener.accept_one()).await else { break };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Mostly out of file descriptors, and the kernel has no event for "there are some again".
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (transport, router, watcher) = (transport.clone(), router.clone(), open.watcher());
        tokio::spawn(async move {
            let _place = place;
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
    let service = TowerToHyperService::new(router);
    let builder = connection_builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%error, "a connection broke");
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    builder
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept_one(&self) -> io::Result<Self::Stream> {
        let (stream, _) = self.accept().await?;
        // Output of commands comes in small pieces that nobody should wait for.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn accept_one(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}
