//! A connection after its upgrade: bytes both ways until one side ends or nothing moves.

use crate::exchange::Exchange;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

/// Carries bytes until the tunnel ends; how it ended concerns its two ends alone.
pub(crate) async fn run(
    client: OnUpgrade,
    upstream: OnUpgrade,
    exchange: Arc<Exchange>,
    open: Arc<AtomicUsize>,
) {
    let _counted = Counted::new(open);
    let carry = async {
        let (client, upstream) = tokio::try_join!(client, upstream)?;
        let mut client = Moving::new(client, &exchange);
        let mut upstream = Moving::new(upstream, &exchange);
        let _bytes = copy_bidirectional(&mut client, &mut upstream).await;
        Ok::<_, hyper::Error>(())
    };
    tokio::select! {
        _ended = carry => {}
        () = exchange.idle() => {}
    }
}

/// Counts a tunnel while it is open.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose reads and writes keep the exchange from being idle.
struct Moving<'a> {
    stream: TokioIo<Upgraded>,
    exchange: &'a Exchange,
}

impl<'a> Moving<'a> {
    fn new(stream: Upgraded, exchange: &'a Exchange) -> Self {
        Self { stream: TokioIo::new(stream), exchange }
    }
}

impl AsyncRead for Moving<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.exchange.touch();
        Poll::Ready(result)
    }
}

impl AsyncWrite for Moving<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.exchange.touch();
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
