//! What a sandbox may reach, looked at and changed while it lives.
//!
//! | step of a change | makes | when it fails |
//! |---|---|---|
//! | record | the policy in the record | nothing happened |
//! | apply | the rules on the host, for one that is up | the record as before |
//! | look again | the record's policy on the host, if somebody was faster | as for apply |
//!
//! One that rests in a snapshot gets its rules when it comes back.

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::error::LifecycleError;
use crate::sandbox::record::Sandbox;
use crate::sandbox::state::State;
use flames_node::{EgressPolicy, Traffic};
use flames_provider::ErrorKind;

/// What a sandbox may reach, and what came of it.
#[derive(Clone, Debug)]
pub struct NetworkState {
    /// What it may reach.
    pub policy: EgressPolicy,
    /// What its present run sent and received, and what was dropped; `None` while it has none, and on hosts that count
    /// nothing.
    pub traffic: Option<Traffic>,
}

impl ControlPlane {
    /// What a sandbox may reach, and what came of it since its present run began.
    ///
    /// # Errors
    /// `NotFound`; `Node` when the host does not tell.
    pub async fn network(&self, id: &SandboxId) -> Result<NetworkState, LifecycleError> {
        let sandbox = self.get(id).await?;
        let traffic = if sandbox.is_up() { self.traffic_of(&sandbox).await? } else { None };
        Ok(NetworkState { policy: sandbox.network, traffic })
    }

    /// Replaces what a sandbox may reach, as a whole and at once. Connections that stay allowed are not touched, all others
    /// are cut. When this returns the new rules hold.
    ///
    /// # Errors
    /// `NotRunning` for one that is neither running nor paused; `Node` when the host refused: then the earlier rules hold.
    pub async fn set_network(&self, id: &SandboxId, policy: EgressPolicy) -> Result<Sandbox, LifecycleError> {
        let mut before = EgressPolicy::default();
        let note = |sandbox: &mut Sandbox| {
            if !matches!(sandbox.state, State::Running | State::Paused | State::Snapshotted) {
                return Err(LifecycleError::not_running(sandbox));
            }
            before = std::mem::replace(&mut sandbox.network, policy.clone());
            Ok(())
        };
        let mut recorded = self.records.update(id, note).await?.sandbox;
        while recorded.is_up() {
            if let Err(error) = self.node.set_network(&recorded.run, recorded.network.clone()).await {
                self.take_back(id, &recorded.network, before).await;
                return Err(LifecycleError::node(id, error));
            }
            // Of two that change it at once, the one whose record came last must also be the last on the host.
            let now = self.get(id).await?;
            if now.network == recorded.network || now.run != recorded.run {
                return Ok(now);
            }
            recorded = now;
        }
        Ok(recorded)
    }

    /// Undoes the record of a change that the host refused, unless somebody changed it again.
    async fn take_back(&self, id: &SandboxId, refused: &EgressPolicy, before: EgressPolicy) {
        let undo = |sandbox: &mut Sandbox| {
            if sandbox.network == *refused {
                sandbox.network = before.clone();
            }
            Ok(())
        };
        if let Err(error) = self.records.update(id, undo).await {
            tracing::warn!(sandbox = %id, %error, "a network policy that was not applied stays in the record");
        }
    }

    async fn traffic_of(&self, sandbox: &Sandbox) -> Result<Option<Traffic>, LifecycleError> {
        match self.node.traffic(&sandbox.run).await {
            Ok(traffic) => Ok(Some(traffic)),
            // It ended in this moment, or nobody counts.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => Ok(None),
            Err(error) => Err(LifecycleError::node(&sandbox.id, error)),
        }
    }
}
