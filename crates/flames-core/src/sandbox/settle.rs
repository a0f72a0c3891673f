//! What becomes of a pause or a resume that nobody finishes: after a crash, and after its deadline.
//!
//! | state | the VM | its snapshot | becomes |
//! |---|---|---|---|
//! | `pausing` | lives | | what it was; the half or whole snapshot is removed |
//! | `pausing` | gone | whole | `snapshotted`: only the record was missing |
//! | `pausing` | gone | none | `failed` |
//! | `resuming` from memory | lives | | `paused` |
//! | `resuming` from memory | gone | | `failed` |
//! | `resuming` from disk | whatever | whole | `snapshotted`; the half-made run is destroyed |
//! | `resuming` from disk | whatever | none | `failed` |

use crate::plane::ControlPlane;
use crate::sandbox::error::LifecycleError;
use crate::sandbox::record::{Failure, Sandbox, Stored};
use crate::sandbox::state::{Event, State};
use flames_node::{SnapshotId, VmId};
use flames_provider::{Error, ErrorKind};
use std::collections::HashSet;

/// What is on the host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) living: HashSet<VmId>,
    pub(crate) snapshots: HashSet<SnapshotId>,
}

/// What to do about a passing state that nobody is at work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settle {
    /// Undo it.
    Back,
    /// All was done but the record.
    Stored,
    /// Neither the VM nor a snapshot of it is there.
    Lost,
}

fn settle(sandbox: &Sandbox, host: &Host) -> Settle {
    let lives = host.living.contains(&sandbox.run);
    let has = |id: &Option<SnapshotId>| id.as_ref().is_some_and(|id| host.snapshots.contains(id));
    let Some(passing) = &sandbox.passing else { return Settle::Lost };
    match (sandbox.state, passing.from) {
        (State::Resuming, State::Snapshotted) if has(&sandbox.snapshot) => Settle::Back,
        (State::Resuming, State::Snapshotted) => Settle::Lost,
        (State::Pausing | State::Resuming, _) if lives => Settle::Back,
        (State::Pausing, _) if has(&passing.writes) => Settle::Stored,
        _ => Settle::Lost,
    }
}

/// The event that undoes a passing state.
fn undoing(sandbox: &Sandbox) -> Event {
    match (sandbox.state, sandbox.passing.as_ref().map(|passing| passing.from)) {
        (State::Resuming, Some(State::Snapshotted)) => Event::WakeUndone,
        (State::Resuming, _) => Event::ResumeUndone,
        (_, Some(State::Paused)) => Event::HeldInMemory,
        _ => Event::PauseUndone,
    }
}

impl ControlPlane {
    /// What the host has now; a driver that takes no snapshots has none.
    pub(crate) async fn stored_snapshots(&self) -> Result<HashSet<SnapshotId>, Error> {
        match self.node.snapshots().await {
            Ok(found) => Ok(found.into_iter().map(|snapshot| snapshot.id).collect()),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(HashSet::new()),
            Err(error) => Err(error),
        }
    }

    /// Finishes or undoes a passing state that nobody is at work on.
    pub(crate) async fn settle(&self, stored: &Stored, host: &Host) {
        let sandbox = &stored.sandbox;
        let settled = match (settle(sandbox, host), &sandbox.passing) {
            (Settle::Back, _) => self.settle_back(stored).await,
            (Settle::Stored, Some(passing)) => match &passing.writes {
                Some(writes) => self.conclude_stored(stored, writes).await.map(drop),
                None => Ok(()),
            },
            _ => {
                self.fail_logged(&sandbox.id, Failure::LostWhile { state: sandbox.state }).await;
                Ok(())
            }
        };
        if let Err(error) = settled {
            tracing::warn!(sandbox = %sandbox.id, %error, "a passing state is left to the next sweep");
        }
    }

    /// Undoes a claim: the host first, so that the record never promises what is not so.
    pub(crate) async fn settle_back(&self, claimed: &Stored) -> Result<(), LifecycleError> {
        let sandbox = &claimed.sandbox;
        let event = undoing(sandbox);
        let failed = |source| LifecycleError::node(&sandbox.id, source);
        match event {
            Event::WakeUndone => drop(self.node.destroy(&sandbox.run).await.map_err(failed)?),
            Event::PauseUndone => can_it(self.node.resume(&sandbox.run).await).map_err(failed)?,
            _ => can_it(self.node.pause(&sandbox.run).await).map_err(failed)?,
        }
        let stored = self.conclude(claimed, event, |_| {}).await?;
        if let Some(writes) = sandbox.passing.as_ref().and_then(|passing| passing.writes.as_ref()) {
            self.discard_snapshot(writes).await;
        }
        self.after_passing(&stored.sandbox);
        Ok(())
    }
}

/// A driver that cannot stop virtual CPUs has not stopped them.
fn can_it(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        done => done,
    }
}
