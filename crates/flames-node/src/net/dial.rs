//! Connections to guests: sockets made inside a namespace by one dedicated thread, and cut when the run ends.
//!
//! A socket keeps the namespace it was made in, so only its creation needs the thread; connecting is
//! ordinary asynchronous work.

use super::slot::enter;
use super::{Lease, Slot};
use crate::paths::io_error;
use flames_vmm::{Error, ErrorKind, Result};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A guest on the same machine answers in well under a millisecond, or is paused or gone.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Opens connections to guests.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    jobs: mpsc::UnboundedSender<Job>,
}

#[derive(Debug)]
struct Job {
    namespace: Arc<File>,
    kind: Kind,
    reply: oneshot::Sender<io::Result<OwnedFd>>,
}

/// What a socket inside a namespace is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP to the guest, or from it.
    Stream,
    /// UDP from the guest.
    Datagram,
    /// TCP out of the namespace, on behalf of the guest.
    OutwardStream,
    /// UDP out of the namespace, on behalf of the guest.
    OutwardDatagram,
}

impl Dialer {
    /// Starts the thread; it ends with the last clone of the dialer.
    pub(crate) fn start() -> Result<Self> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let host = File::open("/proc/thread-self/ns/net");
        let host = host.map_err(|error| io_error("network namespace", "host", "open", error))?;
        std::thread::Builder::new()
            .name("fl-dial".into())
            .spawn(move || serve(&host, queue))
            .map_err(|error| io_error("thread", "fl-dial", "start", error))?;
        Ok(Self { jobs })
    }

    /// Connects to a port of the guest behind a lease; the connection dies with `cut`.
    pub(crate) async fn connect(&self, lease: &Lease, port: u16, cut: &CancellationToken) -> Result<Cut> {
        let address = lease.address(port)?;
        let refused = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, "guest port", port.to_string())
                .operation("connect")
                .detail(error.to_string())
                .source(error)
        };
        let connect = self.open(lease.namespace(), address);
        let connected = tokio::select! {
            connected = tokio::time::timeout(CONNECT_DEADLINE, connect) => connected,
            () = cut.cancelled() => Ok(Err(ended())),
        };
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(refused)?;
        Ok(Cut::new(stream, cut.clone()))
    }

    async fn open(&self, namespace: Option<&Slot>, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match namespace {
            Some(slot) => self.socket_inside(slot.namespace()).await?,
            None => TcpSocket::new_v4()?,
        };
        socket.set_nodelay(true)?;
        socket.connect(address).await
    }

    async fn socket_inside(&self, namespace: Arc<File>) -> io::Result<TcpSocket> {
        let socket = self.socket(namespace, Kind::Stream).await?;
        Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(socket)))
    }

    /// A socket in a namespace.
    pub(super) async fn socket(&self, namespace: Arc<File>, kind: Kind) -> io::Result<OwnedFd> {
        let (reply, socket) = oneshot::channel();
        let gone = || io::Error::other("the thread that makes sockets is gone");
        self.jobs.send(Job { namespace, kind, reply }).map_err(|_| gone())?;
        socket.await.map_err(|_| gone())?
    }
}

fn serve(host: &File, mut queue: mpsc::UnboundedReceiver<Job>) {
    while let Some(Job { namespace, kind, reply }) = queue.blocking_recv() {
        let socket = socket_in(&namespace, kind);
        // Back home, or the thread would keep the namespace alive until its next job.
        let home = enter(host.as_fd());
        let _ = reply.send(home.and(socket)); // a caller that went away closes the socket by this
    }
}

fn socket_in(namespace: &File, kind: Kind) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    enter(namespace.as_fd())?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let how = match kind {
        Kind::Stream | Kind::OutwardStream => SocketType::STREAM,
        Kind::Datagram | Kind::OutwardDatagram => SocketType::DGRAM,
    };
    let socket = socket_with(AddressFamily::INET, how, flags, None)?;
    if matches!(kind, Kind::OutwardStream | Kind::OutwardDatagram) {
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &flames_egress::OUTWARD_MARK)?;
    }
    Ok(socket)
}

/// A connection that breaks when its run ends. A socket keeps its namespace alive: one that nobody closes
/// would be a leak.
pub(crate) struct Cut {
    stream: TcpStream,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cut").field(&self.stream).finish()
    }
}

impl Cut {
    fn new(stream: TcpStream, cut: CancellationToken) -> Self {
        Self { stream, end: Box::pin(cut.cancelled_owned()) }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(ended()),
            Poll::Pending => Ok(()),
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the run ended")
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
