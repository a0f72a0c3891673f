//! The end of a connection whose client is still sending.
//!
//! A socket that is closed with bytes in it that nobody read resets its connection, and a client that is busy with its
//! body meets that before it has read why it was refused. So the answer is sent, the end is said, and what still comes
//! is thrown away until the client has understood, or [`LINGER`] is over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A client that sends on for longer than this after its answer does not want to know.
const LINGER: Duration = Duration::from_secs(5);
/// Thrown away at once.
const CHUNK: usize = 16 * 1024;

/// Whether a request of the connection was answered with bytes of it still to come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that, when it is shut down after something was left [`Unread`], first lets its client finish.
#[derive(Debug)]
pub(crate) struct Lingering<S> {
    stream: S,
    unread: Unread,
    /// Runs from the moment that the end was said.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(crate) fn new(stream: S, unread: Unread) -> Self {
        Self { stream, unread, patience: None }
    }
}

impl<S: AsyncRead + Unpin> Lingering<S> {
    /// Ready when the client has no more to say.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut chunk = [0; CHUNK];
        loop {
            let mut buffer = ReadBuf::new(&mut chunk);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.patience.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.unread.is_noted() {
                return Poll::Ready(Ok(()));
            }
        }
        if this.poll_silence(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let patience = this.patience.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        patience.as_mut().poll(context).map(Ok)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    fn connection(unread: bool) -> (DuplexStream, Lingering<DuplexStream>) {
        let (client, server) = duplex(64);
        let noted = Unread::default();
        if unread {
            noted.note();
        }
        (client, Lingering::new(server, noted))
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_still_sending_is_heard_out_and_sees_the_end_at_once() {
        let (mut client, mut server) = connection(true);
        let client = tokio::spawn(async move {
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
            client.write_all(&[7; 1 << 20]).await
        });
        server.shutdown().await.unwrap();
        drop(server);
        client.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_for_ever_is_not() {
        let (mut client, mut server) = connection(true);
        tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        });
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), LINGER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_client_that_was_heard_to_its_end() {
        let (_client, mut server) = connection(false);
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
