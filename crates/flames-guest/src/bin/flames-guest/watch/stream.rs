//! `WatchDir`: changes as a stream, as they happen.

use super::tree::{Changes, Tree};
use super::{Readiness, lost, refused};
use crate::agent::Agent;
use crate::files::blocking;
use crate::http::{Body, end_frame, message_frame};
use crate::timing::{deadline_exceeded, passed};
use crate::users::Names;
use bytes::{Bytes, BytesMut};
use flames_guest::filesystem::WatchResponse;
use flames_guest::process::Empty;
use flames_guest::rpc::{Code, RpcError};
use futures_util::stream::unfold;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The stream of one watched directory to one client. While the client does not read, changes wait in the
/// kernel, which drops them when they are too many; then the stream ends with an error.
#[derive(Debug)]
pub(super) struct Watching {
    agent: Arc<Agent>,
    /// None while it is read elsewhere, and after a failure.
    tree: Option<Tree>,
    ready: Readiness,
    describe: bool,
    keepalive: Duration,
    deadline: Option<Instant>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    /// There may be changes to read without waiting.
    More,
    Waiting,
    Done,
}

impl Watching {
    pub(super) fn new(
        agent: Arc<Agent>,
        tree: Tree,
        describe: bool,
        (keepalive, deadline): (Duration, Option<Instant>),
    ) -> Result<Self, RpcError> {
        let ready = Readiness::of(&tree).map_err(|error| refused(&error))?;
        Ok(Self { agent, tree: Some(tree), ready, describe, keepalive, deadline, phase: Phase::Start })
    }

    pub(super) fn into_body(self) -> Body {
        let frames = unfold(self, |mut watching| async move {
            let frame = watching.next().await?;
            Some((Ok(Frame::data(frame)), watching))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Start => {
                self.phase = Phase::More;
                Some(message_frame(&WatchResponse { start: Some(Empty {}), ..Default::default() }))
            }
            Phase::More | Phase::Waiting => Some(self.next_changes().await),
            Phase::Done => None,
        }
    }

    /// Frames of changes, or a keepalive, or the end.
    async fn next_changes(&mut self) -> Bytes {
        let silence = Instant::now() + self.keepalive;
        loop {
            if self.phase == Phase::Waiting {
                tokio::select! {
                    biased;
                    () = passed(self.deadline) => return self.fail(deadline_exceeded()),
                    ready = self.ready.wait() => if let Err(error) = ready {
                        return self.fail(refused(&error));
                    },
                    () = sleep(silence.saturating_duration_since(Instant::now())) => {
                        return message_frame(&WatchResponse { keepalive: Some(Empty {}), ..Default::default() });
                    }
                }
            }
            match self.take().await {
                Ok(Changes { lost: true, .. }) => return self.fail(lost()),
                Ok(changes) => {
                    self.phase = if changes.more { Phase::More } else { Phase::Waiting };
                    if !changes.events.is_empty() {
                        return frames(changes);
                    }
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    async fn take(&mut self) -> Result<Changes, RpcError> {
        let gone = || RpcError::new(Code::Internal, "the directory is no longer watched");
        let mut tree = self.tree.take().ok_or_else(gone)?;
        let (agent, describe) = (Arc::clone(&self.agent), self.describe);
        let taken = blocking(move || {
            let names = describe.then(|| Names::read(&agent.root));
            let changes = tree.take(names.as_ref());
            (tree, changes)
        });
        let (tree, changes) = taken.await.map_err(|_| gone())?;
        self.tree = Some(tree);
        changes.map_err(|error| refused(&error))
    }

    fn fail(&mut self, error: RpcError) -> Bytes {
        self.phase = Phase::Done;
        end_frame(Some(error))
    }
}

fn frames(changes: Changes) -> Bytes {
    let mut wire = BytesMut::new();
    for event in changes.events {
        let message = WatchResponse { filesystem: Some(event), ..Default::default() };
        wire.extend_from_slice(&message_frame(&message));
    }
    wire.freeze()
}
