//! Bodies on their way through: counted, timed, never collected.

use crate::exchange::{Exchange, UploadState};
use crate::pool::{Connection, Pool};
use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request's body is larger than the route allows")]
    TooLarge,
    #[error("no byte moved for the route's idle timeout")]
    Idle,
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
}

type FramePoll = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// A client's body on its way to the upstream.
#[derive(Debug)]
pub(crate) struct Upload {
    incoming: Incoming,
    left_bytes: u64,
    exchange: Arc<Exchange>,
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, max_bytes: u64, exchange: Arc<Exchange>) -> Self {
        if incoming.is_end_stream() {
            exchange.set_upload(UploadState::Whole);
        }
        Self { incoming, left_bytes: max_bytes, exchange }
    }

    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        match self.left_bytes.checked_sub(bytes) {
            Some(left) => self.left_bytes = left,
            None => {
                self.exchange.set_upload(UploadState::TooLarge);
                return Err(BodyError::TooLarge);
            }
        }
        self.exchange.touch();
        if self.incoming.is_end_stream() {
            self.exchange.set_upload(UploadState::Whole);
        }
        Ok(())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => Some(self.count(&frame).map(|()| frame)),
            Some(Err(error)) => Some(Err(BodyError::Broken(error))),
            None => {
                self.exchange.set_upload(UploadState::Whole);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What a client gets: the proxy's own words, or the upstream's.
#[derive(Debug)]
pub(crate) enum Answer {
    Own(Full<Bytes>),
    Forwarded(Box<Forwarded>),
}

/// An upstream's body on its way to the client. At its end the connection goes back to its pool; dropped
/// earlier, the connection closes and the upstream learns that nobody waits.
#[derive(Debug)]
pub(crate) struct Forwarded {
    incoming: Incoming,
    is_whole: bool,
    exchange: Arc<Exchange>,
    connection: Option<Connection>,
    pool: Arc<Pool>,
    /// Made when the upstream first makes us wait: most answers never need it.
    idle: Option<Pin<Box<Sleep>>>,
}

impl Forwarded {
    pub(crate) fn new(
        incoming: Incoming,
        exchange: Arc<Exchange>,
        connection: Connection,
        pool: Arc<Pool>,
    ) -> Self {
        exchange.touch();
        Self { incoming, is_whole: false, exchange, connection: Some(connection), pool, idle: None }
    }

    /// Ready once nothing has moved for the idle timeout.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let exchange = &self.exchange;
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep_until(exchange.idle_deadline())));
        while idle.as_mut().poll(cx).is_ready() {
            let deadline = exchange.idle_deadline();
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            idle.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl Body for Forwarded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        let polled = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => return self.poll_idle(cx).map(|()| Some(Err(BodyError::Idle))),
        };
        self.exchange.touch();
        self.is_whole = polled.is_none();
        Poll::Ready(polled.map(|frame| frame.map_err(BodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        // The server stops polling at the last byte of a known length, so `is_whole` alone does not tell.
        // An upload that is still running would make the next request wait for it.
        let is_whole = self.is_whole || self.incoming.is_end_stream();
        if let Some(connection) = self.connection.take()
            && is_whole
            && self.exchange.upload() == UploadState::Whole
        {
            self.pool.put(connection);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Forwarded(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Forwarded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Forwarded(body) => body.size_hint(),
        }
    }
}
