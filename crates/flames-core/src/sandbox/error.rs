//! What can go wrong with sandboxes: one type per operation, a variant per step.

use crate::sandbox::state::{Rejected, State};
use crate::{InvalidName, SandboxId};
use flames_node::{CreateError, GuestError};
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
    /// It started, and its record could not be brought to `running`; it was destroyed again.
    #[error("the sandbox started and could not be handed out")]
    HandOut(#[source] LifecycleError),
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
