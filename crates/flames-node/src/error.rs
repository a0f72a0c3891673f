//! Why a create failed: one variant per step.

use flames_vmm::{Error, ErrorKind};
use std::fmt;

/// A create that failed at one of its steps. Everything earlier steps made was undone.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The request asks for what this node cannot give (memory, processors, disk size).
    #[error("the request cannot be met")]
    Admit(#[source] Error),
    /// The template is not there or damaged.
    #[error("the template cannot be used")]
    Template(#[source] Error),
    /// No network slot could be made.
    #[error("no network slot could be made")]
    Network(#[source] Error),
    /// The run directory or the writable disk could not be made.
    #[error("the disk could not be made")]
    Disk(#[source] Error),
    /// The VMM did not start.
    #[error("the VMM did not start")]
    VmmSpawn(#[source] Error),
    /// The guest did not report in time, or its kernel or agent failed.
    #[error("the guest did not boot")]
    Boot(#[source] Error),
    /// The agent refused the handshake.
    #[error("the agent did not take the handshake")]
    AgentInit(#[source] Error),
    /// The template's start command failed, or its ready command never succeeded.
    #[error("the template's start command did not make it ready")]
    StartUp(#[source] Error),
    /// What the guest may reach could not be applied.
    #[error("the network rules could not be applied")]
    Egress(#[source] Error),
}

impl CreateError {
    /// The step that failed.
    pub fn step(&self) -> CreateStep {
        match self {
            Self::Admit(_) => CreateStep::Admit,
            Self::Template(_) => CreateStep::Template,
            Self::Network(_) => CreateStep::Network,
            Self::Disk(_) => CreateStep::Disk,
            Self::VmmSpawn(_) => CreateStep::VmmSpawn,
            Self::Boot(_) => CreateStep::Boot,
            Self::AgentInit(_) => CreateStep::AgentInit,
            Self::StartUp(_) => CreateStep::StartUp,
            Self::Egress(_) => CreateStep::Egress,
        }
    }

    /// What to branch on: the kind of the cause.
    pub fn kind(&self) -> ErrorKind {
        self.cause().kind()
    }

    /// The cause, with resource, detail and retry hint.
    pub fn cause(&self) -> &Error {
        match self {
            Self::Admit(cause)
            | Self::Template(cause)
            | Self::Network(cause)
            | Self::Disk(cause)
            | Self::VmmSpawn(cause)
            | Self::Boot(cause)
            | Self::AgentInit(cause)
            | Self::StartUp(cause)
            | Self::Egress(cause) => cause,
        }
    }
}

/// The steps of a create, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CreateStep {
    /// Limits and room are checked; nothing was made yet.
    Admit,
    /// The template's name becomes an image file.
    Template,
    /// A network slot is taken, or a loopback port.
    Network,
    /// The run directory and the writable disk are made.
    Disk,
    /// The VMM is started.
    VmmSpawn,
    /// Kernel and agent start, until the agent reports.
    Boot,
    /// The agent takes time, entropy, token and environment.
    AgentInit,
    /// What the template starts is started, in a guest that was booted.
    StartUp,
    /// What the guest may reach is applied.
    Egress,
}

impl CreateStep {
    /// Every step, in order.
    pub const ALL: [Self; 9] = [
        Self::Admit,
        Self::Template,
        Self::Network,
        Self::Disk,
        Self::VmmSpawn,
        Self::Boot,
        Self::AgentInit,
        Self::StartUp,
        Self::Egress,
    ];

    /// The error of this step.
    pub fn failed(self, cause: Error) -> CreateError {
        match self {
            Self::Admit => CreateError::Admit(cause),
            Self::Template => CreateError::Template(cause),
            Self::Network => CreateError::Network(cause),
            Self::Disk => CreateError::Disk(cause),
            Self::VmmSpawn => CreateError::VmmSpawn(cause),
            Self::Boot => CreateError::Boot(cause),
            Self::AgentInit => CreateError::AgentInit(cause),
            Self::StartUp => CreateError::StartUp(cause),
            Self::Egress => CreateError::Egress(cause),
        }
    }
}

impl fmt::Display for CreateStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admit => "admit",
            Self::Template => "template",
            Self::Network => "network",
            Self::Disk => "disk",
            Self::VmmSpawn => "vmm_spawn",
            Self::Boot => "boot",
            Self::AgentInit => "agent_init",
            Self::StartUp => "start_up",
            Self::Egress => "egress",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_makes_an_error_that_names_it() {
        for step in CreateStep::ALL {
            let error = step.failed(Error::new(ErrorKind::Timeout, "run", "run-1"));
            assert_eq!((error.step(), error.kind()), (step, ErrorKind::Timeout));
        }
    }
}
