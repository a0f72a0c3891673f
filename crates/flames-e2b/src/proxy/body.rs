//! Bodies on their way through: never collected, and watched for their ends.

use super::lines::{Connection, Kept};
use axum::body::Body as AxumBody;
use bytes::Bytes;
use flames_core::activity::Work;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

/// A client's body on its way into a sandbox.
#[derive(Debug)]
pub(super) struct Upload {
    body: AxumBody,
    is_whole: Arc<AtomicBool>,
}

impl Upload {
    /// Also gives what becomes true once all of the body was taken.
    pub(super) fn new(body: AxumBody) -> (Self, Arc<AtomicBool>) {
        let is_whole = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Self { body, is_whole: Arc::clone(&is_whole) }, is_whole)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.is_whole.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A sandbox's body on its way to the client. At its end the connection is kept, if it can be; dropped earlier,
/// the connection closes and the sandbox learns that nobody waits.
#[derive(Debug)]
pub(super) struct Download {
    body: Incoming,
    is_whole: bool,
    upload_is_whole: Arc<AtomicBool>,
    connection: Option<Connection>,
    kept: Option<Arc<Kept>>,
    _work: Option<Work>,
}

impl Download {
    pub(super) fn new(
        body: Incoming,
        upload_is_whole: Arc<AtomicBool>,
        connection: Connection,
        kept: Option<Arc<Kept>>,
        work: Option<Work>,
    ) -> Self {
        Self { body, is_whole: false, upload_is_whole, connection: Some(connection), kept, _work: work }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.is_whole = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // The server stops polling at the last byte of a known length, so `is_whole` alone does not tell.
        let is_whole = self.is_whole || self.body.is_end_stream();
        if let (Some(kept), Some(connection)) = (self.kept.take(), self.connection.take())
            && is_whole
            && self.upload_is_whole.load(Ordering::Acquire)
        {
            kept.put(connection);
        }
    }
}
