//! Errors as labels: how a create ended, and of which kind an error is.

use crate::sandbox::error::{CreateSandboxError, ForkError, LifecycleError, ResumeError, SnapshotError};
use flames_metrics::Outcome;
use flames_node::{CreateError, CreateStep};
use flames_provider::ErrorKind;

/// An error with a kind in words, of which there are few.
pub(crate) trait HasKind {
    /// The kind, as [`ErrorKind::as_str`] writes it.
    fn kind(&self) -> &'static str;

    /// True if an agent did not take the handshake.
    fn is_handshake(&self) -> bool {
        false
    }
}

/// How a create that failed counts.
pub(crate) fn of(error: &CreateSandboxError) -> Outcome {
    match error {
        CreateSandboxError::Invalid(_) | CreateSandboxError::InProgress => Outcome::Rejected,
        CreateSandboxError::Snapshot(
            SnapshotError::NotFound(_) | SnapshotError::Unfinished(_) | SnapshotError::Busy(_),
        ) => Outcome::Rejected,
        CreateSandboxError::Snapshot(_) => Outcome::Failed,
        CreateSandboxError::ShuttingDown | CreateSandboxError::NoRoom(_) => Outcome::Refused,
        CreateSandboxError::Start(error) => of_node(error),
        CreateSandboxError::FromSnapshot { source, .. } => of_node(source),
        CreateSandboxError::Record(_) | CreateSandboxError::HandOut(_) => Outcome::Failed,
    }
}

fn of_node(error: &CreateError) -> Outcome {
    match (error.step(), error.kind()) {
        (CreateStep::Admit | CreateStep::Template, ErrorKind::InvalidInput | ErrorKind::NotFound) => {
            Outcome::Rejected
        }
        (CreateStep::Admit, _) => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

impl HasKind for CreateSandboxError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Invalid(_) => ErrorKind::InvalidInput.as_str(),
            Self::Record(error) | Self::HandOut(error) => error.kind(),
            Self::Start(error) => error.kind().as_str(),
            Self::FromSnapshot { source, .. } => source.kind().as_str(),
            Self::Snapshot(error) => error.kind(),
            Self::InProgress => ErrorKind::Conflict.as_str(),
            Self::ShuttingDown | Self::NoRoom(_) => ErrorKind::Unavailable.as_str(),
        }
    }

    fn is_handshake(&self) -> bool {
        match self {
            Self::Start(error) => error.step() == CreateStep::AgentInit,
            Self::FromSnapshot { source, .. } => source.step() == CreateStep::AgentInit,
            _ => false,
        }
    }
}

impl HasKind for ResumeError {
    fn is_handshake(&self) -> bool {
        matches!(self, Self::Start { source, .. } if source.step() == CreateStep::AgentInit)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Sandbox(error) => error.kind(),
            Self::NoRoom(_) => ErrorKind::Unavailable.as_str(),
            Self::Start { source, .. } => source.kind().as_str(),
        }
    }
}

impl HasKind for SnapshotError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Sandbox(error) => error.kind(),
            Self::NotFound(_) => ErrorKind::NotFound.as_str(),
            Self::NameTaken(_) => ErrorKind::AlreadyExists.as_str(),
            Self::Unfinished(_) | Self::Busy(_) => ErrorKind::Conflict.as_str(),
            Self::Missing(_) => ErrorKind::Corrupt.as_str(),
            Self::Store(error) => error.kind().as_str(),
        }
    }
}

impl HasKind for ForkError {
    fn is_handshake(&self) -> bool {
        matches!(self, Self::Clones { first, .. } if first.is_handshake())
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Source(error) => error.kind(),
            Self::Capture { source, .. } => source.kind().as_str(),
            Self::Clones { first, .. } => first.kind(),
            Self::NoRoom(_) | Self::ShuttingDown => ErrorKind::Unavailable.as_str(),
        }
    }
}

impl HasKind for LifecycleError {
    fn kind(&self) -> &'static str {
        let kind = match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Rejected(_) | Self::NotRunning { .. } | Self::NotPaused { .. } => ErrorKind::Conflict,
            Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::Store(error) => error.kind(),
            Self::Node { source, .. } => source.kind(),
            Self::Unreadable(_) => ErrorKind::Corrupt,
        };
        kind.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SandboxId;
    use crate::sandbox::error::InvalidRequest;
    use flames_provider::Error;

    #[test]
    fn a_guest_that_did_not_take_the_handshake_is_told_from_one_that_did_not_boot() {
        let failed = |step: CreateStep| step.failed(Error::new(ErrorKind::Timeout, "run", "r"));
        let resume = |step| ResumeError::Start { id: SandboxId::random(), source: Box::new(failed(step)) };
        assert!(resume(CreateStep::AgentInit).is_handshake() && !resume(CreateStep::Boot).is_handshake());
        assert!(CreateSandboxError::Start(failed(CreateStep::AgentInit)).is_handshake());
    }

    #[test]
    fn what_nobody_could_meet_is_rejected_what_has_no_room_refused_what_broke_failed() {
        let start = |step: CreateStep, kind| {
            let error = CreateSandboxError::Start(step.failed(Error::new(kind, "run", "r")));
            (of(&error), error.kind())
        };
        assert_eq!(of(&InvalidRequest::new("env", "is no list").into()), Outcome::Rejected);
        assert_eq!(start(CreateStep::Template, ErrorKind::NotFound), (Outcome::Rejected, "not found"));
        assert_eq!(start(CreateStep::Admit, ErrorKind::Unavailable), (Outcome::Refused, "unavailable"));
        assert_eq!(start(CreateStep::Boot, ErrorKind::Timeout), (Outcome::Failed, "timed out"));
        assert_eq!(of(&CreateSandboxError::ShuttingDown), Outcome::Refused);
    }
}
