//! How an upstream is reached.

use flames_ingress::Upstream;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Opens connections to upstreams, for example from inside a network namespace.
pub trait Dial: Debug + Send + Sync + 'static {
    /// An open connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects. The caller bounds the time.
    ///
    /// # Errors
    /// Whatever the operating system says, and `Unsupported` for a kind of upstream that it cannot reach.
    fn dial(&self, upstream: &Upstream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// TCP from the process' own network namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    type Stream = TcpStream;

    async fn dial(&self, upstream: &Upstream) -> io::Result<TcpStream> {
        let Upstream::Tcp(address) = upstream else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "only TCP upstreams can be dialled"));
        };
        let stream = TcpStream::connect(address).await?;
        // Answers are small and interactive: a keystroke must not wait for the next one.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
