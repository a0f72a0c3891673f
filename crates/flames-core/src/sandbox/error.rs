//! What can go wrong with sandboxes: one type per operation, a variant per step.

use crate::sandbox::record::Sandbox;
use crate::sandbox::room::NoRoom;
use crate::sandbox::state::{Rejected, State};
use crate::{InvalidName, SandboxId};
use flames_node::{CreateError, GuestError, SnapshotId};
use flames_provider::Error;

/// A create that failed. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateSandboxError {
    /// A field of the request is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// The record could not be written.
    #[error("the sandbox could not be recorded")]
    Record(#[source] LifecycleError),
    /// The host could not start it.
    #[error(transparent)]
    Start(CreateError),
    /// The host could not start it from its snapshot.
    #[error("snapshot `{id}` could not be started from")]
    FromSnapshot {
        /// Which snapshot.
        id: SnapshotId,
        /// What failed.
        #[source]
        source: Box<CreateError>,
    },
    /// It started, and its record could not be brought to `running`; it was destroyed again.
    #[error("the sandbox started and could not be handed out")]
    HandOut(#[source] LifecycleError),
    /// The snapshot to create from is not there or cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The machine's memory is given away.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// Another request with the same idempotency key is under way.
    #[error("a request with this idempotency key is under way")]
    InProgress,
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// A field of a request that no sandbox could be made from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {problem}")]
pub struct InvalidRequest {
    /// The field, as the API names it.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Anything done to a sandbox that exists, or does not.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// Nobody knows this sandbox (any more).
    #[error("sandbox `{0}` does not exist")]
    NotFound(SandboxId),
    /// Its state does not allow it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It must be running for this.
    #[error("sandbox `{id}` is {}, not running", state.as_str())]
    NotRunning {
        /// Which sandbox.
        id: SandboxId,
        /// Its state.
        state: State,
    },
    /// It must rest, in memory or in a snapshot, for this.
    #[error("sandbox `{id}` is {}, not paused", state.as_str())]
    NotPaused {
        /// Which sandbox.
        id: SandboxId,
        /// Its state.
        state: State,
    },
    /// A field of the request is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// The state store failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The host failed.
    #[error("the host of sandbox `{id}` failed")]
    Node {
        /// Which sandbox.
        id: SandboxId,
        /// What failed there. Boxed, because this type is returned by almost everything.
        #[source]
        source: Box<Error>,
    },
    /// A record cannot be read: it was written by another version, or altered.
    #[error("a sandbox record cannot be read")]
    Unreadable(#[from] serde_json::Error),
}

/// A resume that failed. The sandbox rests as before.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It is not there or not paused, or its record could not be written.
    #[error(transparent)]
    Sandbox(#[from] LifecycleError),
    /// The machine's memory is given away.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The host could not bring it back from its snapshot.
    #[error("sandbox `{id}` could not be brought back from its snapshot")]
    Start {
        /// Which sandbox.
        id: SandboxId,
        /// What failed there.
        #[source]
        source: Box<CreateError>,
    },
}

/// What can go wrong with snapshots that users keep.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The sandbox to take it of is not there or not running; the source goes on.
    #[error(transparent)]
    Sandbox(#[from] LifecycleError),
    /// Nobody knows a snapshot by this id or name.
    #[error("snapshot `{0}` does not exist")]
    NotFound(String),
    /// Another snapshot has this name.
    #[error("a snapshot named `{0}` exists")]
    NameTaken(String),
    /// It is not whole yet.
    #[error("snapshot `{0}` is still being taken")]
    Unfinished(SnapshotId),
    /// Creates from it are under way, or its removal is.
    #[error("snapshot `{0}` is in use right now")]
    Busy(SnapshotId),
    /// Its record is there, its files are not.
    #[error("the files of snapshot `{0}` are missing on this node")]
    Missing(SnapshotId),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A fork that failed. No clone is left, and the source goes on.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The source is not there or not running, or a field of the request is wrong.
    #[error(transparent)]
    Source(#[from] LifecycleError),
    /// The machine's memory is given away.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The source could not be captured.
    #[error("sandbox `{id}` could not be captured")]
    Capture {
        /// Which sandbox.
        id: SandboxId,
        /// What failed.
        #[source]
        source: Box<Error>,
    },
    /// Some clones did not start; the others were destroyed again.
    #[error("{failed} of {count} forks of sandbox `{id}` did not start; the others were destroyed")]
    Clones {
        /// The source.
        id: SandboxId,
        /// How many failed.
        failed: usize,
        /// How many were asked for.
        count: usize,
        /// Why the first of them failed.
        #[source]
        first: Box<CreateSandboxError>,
    },
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// A request to the agent inside a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum GuestCallError {
    /// The sandbox is not there or not running.
    #[error(transparent)]
    Sandbox(#[from] LifecycleError),
    /// The agent refused, or could not be reached.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl LifecycleError {
    pub(crate) fn not_running(sandbox: &Sandbox) -> Self {
        Self::NotRunning { id: sandbox.id.clone(), state: sandbox.state }
    }

    pub(crate) fn node(id: &SandboxId, source: Error) -> Self {
        Self::Node { id: id.clone(), source: Box::new(source) }
    }
}

impl InvalidRequest {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

impl From<InvalidName> for InvalidRequest {
    fn from(name: InvalidName) -> Self {
        Self::new("id", name.to_string())
    }
}
