//! Connections to one upstream that wait for the next request.

use crate::body::Upload;
use hyper::client::conn::http1::SendRequest;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One end of a connection on which one request at a time can be sent.
pub(crate) type Connection = SendRequest<Upload>;

/// Idle connections, the most recently used last. Dropping the pool closes them.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<VecDeque<Idle>>);

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    const MAX_IDLE: usize = 256;
    /// Shorter than servers usually keep an idle connection, so that a request seldom meets a closing one.
    const MAX_AGE: Duration = Duration::from_secs(10);

    /// The connection used last, if one still stands.
    pub(crate) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(Idle { connection, since }) = idle.pop_back() {
            if since.elapsed() > Self::MAX_AGE {
                idle.clear();
            } else if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is complete.
    pub(crate) fn put(&self, connection: Connection) {
        let mut idle = self.idle();
        while idle.len() >= Self::MAX_IDLE
            || idle.front().is_some_and(|old| old.since.elapsed() > Self::MAX_AGE)
        {
            idle.pop_front();
        }
        idle.push_back(Idle { connection, since: Instant::now() });
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        // A panic cannot leave the queue half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
