//! Sandboxes that rest, brought back for whoever wants something of them.

use flames_core::events::Since;
use flames_core::sandbox::admit::Timeout;
use flames_core::sandbox::error::{LifecycleError, ResumeError};
use flames_core::sandbox::record::Sandbox;
use flames_core::sandbox::state::State;
use flames_core::{ControlPlane, SandboxId};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// The longest that somebody waits for a sandbox that is between two states.
const PATIENCE: Duration = Duration::from_secs(90);

/// A sandbox that runs, and whether it had to be brought back.
#[derive(Clone, Debug)]
pub(crate) enum Awake {
    /// It ran.
    Already(Sandbox),
    /// It was brought back, now or while we waited.
    Resumed(Sandbox),
}

/// Brings a sandbox up from wherever it rests. Of many who ask at once one does it and the others wait.
///
/// # Errors
/// `NotFound` also for one that ends or has failed; what a resume answers.
pub(crate) async fn wake(
    plane: &Arc<ControlPlane>,
    id: &SandboxId,
    timeout: Timeout,
) -> Result<Awake, ResumeError> {
    let woken = tokio::time::timeout(PATIENCE, Box::pin(wake_patiently(plane, id, timeout))).await;
    woken.unwrap_or_else(|_| Err(LifecycleError::NotFound(id.clone()).into()))
}

async fn wake_patiently(
    plane: &Arc<ControlPlane>,
    id: &SandboxId,
    timeout: Timeout,
) -> Result<Awake, ResumeError> {
    let mut waited = false;
    loop {
        // Before the look, so that no change is missed after it.
        let mut changes = plane.changes(Since::Now).await.map_err(LifecycleError::from)?;
        let sandbox = plane.get(id).await?;
        match sandbox.state {
            State::Running if waited => return Ok(Awake::Resumed(sandbox)),
            State::Running => return Ok(Awake::Already(sandbox)),
            State::Paused | State::Snapshotted => match plane.resume(id, Some(timeout)).await {
                Ok(resumed) => return Ok(Awake::Resumed(resumed.sandbox)),
                // Somebody else was faster.
                Err(ResumeError::Sandbox(LifecycleError::NotPaused { .. })) => waited = true,
                Err(error) => return Err(error),
            },
            State::Starting | State::Pausing | State::Resuming => {
                waited = true;
                while let Some(Ok(change)) = changes.next().await {
                    if change.id == *id {
                        break;
                    }
                }
            }
            _ => return Err(LifecycleError::NotFound(id.clone()).into()),
        }
    }
}
