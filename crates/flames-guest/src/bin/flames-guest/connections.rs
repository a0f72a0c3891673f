//! Which connections are open, so that a restored guest can be rid of those that its source had.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The open connections by number.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    open: BTreeMap<u64, Line>,
}

/// What the registry holds of a connection.
#[derive(Debug)]
struct Line {
    reset: oneshot::Sender<()>,
    /// Answers, with an error, once the connection is gone.
    gone: oneshot::Receiver<()>,
}

/// What a connection holds of the registry.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) via: Via,
    /// Rings when the connection is to be reset.
    pub(crate) reset: oneshot::Receiver<()>,
    /// Dropped with the ticket.
    _alive: oneshot::Sender<()>,
}

/// Which connection a request came on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Via {
    number: u64,
    /// Who is at its other end.
    pub(crate) peer: IpAddr,
}

impl Connections {
    /// Enters a connection; [`Connections::leave`] must follow.
    pub(crate) fn enter(&self, peer: IpAddr) -> Ticket {
        let (reset, rung) = oneshot::channel();
        let (alive, gone) = oneshot::channel();
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        inner.open.insert(number, Line { reset, gone });
        Ticket { via: Via { number, peer }, reset: rung, _alive: alive }
    }

    pub(crate) fn leave(&self, ticket: Ticket) {
        self.lock().open.remove(&ticket.via.number);
    }

    /// Resets all but one, and waits until they are gone; says how many there were.
    pub(crate) async fn reset_others(&self, stays: Via) -> u32 {
        let others = {
            let mut inner = self.lock();
            let own = inner.open.remove_entry(&stays.number);
            std::mem::replace(&mut inner.open, own.into_iter().collect())
        };
        let mut closed = 0;
        for Line { reset, gone } in others.into_values() {
            // An error: it ended by itself in the same moment, and counts all the same.
            let _ended = reset.send(());
            let _gone = gone.await;
            closed += 1;
        }
        closed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn all_but_one_are_reset_and_waited_for() {
        let connections = Arc::new(Connections::default());
        let stays = connections.enter(PEER);
        for _ in 0..3 {
            let mut ticket = connections.enter(PEER);
            let connections = Arc::clone(&connections);
            tokio::spawn(async move {
                (&mut ticket.reset).await.unwrap();
                connections.leave(ticket);
            });
        }
        assert_eq!(connections.reset_others(stays.via).await, 3);
        assert_eq!(connections.reset_others(stays.via).await, 0);
        assert_eq!(connections.lock().open.len(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_left_is_not_counted() {
        let connections = Connections::default();
        let stays = connections.enter(PEER);
        let other = connections.enter(PEER);
        connections.leave(other);
        assert_eq!(connections.reset_others(stays.via).await, 0);
    }
}
