//! The way to the agent inside a sandbox.

use crate::SandboxId;
use crate::activity::Work;
use crate::plane::ControlPlane;
use crate::sandbox::error::{GuestCallError, LifecycleError};
use crate::sandbox::state::State;
use flames_node::GuestClient;
use std::ops::Deref;

/// The agent inside a running sandbox, in use: the sandbox is not idle until this is dropped.
#[derive(Debug)]
pub struct Guest {
    client: GuestClient,
    work: Work,
}

impl ControlPlane {
    /// The agent inside a running sandbox, for somebody who works in it.
    ///
    /// # Errors
    /// `NotRunning` in any other state.
    pub async fn guest(&self, id: &SandboxId) -> Result<Guest, GuestCallError> {
        let client = self.guest_unnoticed(id).await?;
        Ok(Guest { client, work: self.work(id) })
    }

    /// The same for who only measures: it does not count as a use.
    ///
    /// # Errors
    /// As [`ControlPlane::guest`].
    pub async fn guest_unnoticed(&self, id: &SandboxId) -> Result<GuestClient, GuestCallError> {
        let sandbox = self.get(id).await?;
        if sandbox.state != State::Running {
            return Err(LifecycleError::NotRunning { id: id.clone(), state: sandbox.state }.into());
        }
        let client = self.node.guest(&sandbox.run).await;
        Ok(client.map_err(|source| LifecycleError::node(id, source))?)
    }
}

impl Guest {
    /// For a stream that goes on when the call has returned: the sandbox is in use as long as this is kept.
    pub fn into_work(self) -> Work {
        self.work
    }
}

impl Deref for Guest {
    type Target = GuestClient;

    fn deref(&self) -> &GuestClient {
        &self.client
    }
}
