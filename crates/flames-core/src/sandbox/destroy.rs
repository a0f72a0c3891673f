//! End a sandbox: claim it by its record first, then take it down, then forget it.
//!
//! | step | makes | when it fails |
//! |---|---|---|
//! | claim | the record in `stopping` | nothing happened |
//! | take down | VMM, network, files and the snapshot it rested in gone (idempotent) | it stays in `stopping`; the sweep tries again |
//! | forget | the record gone | it stays in `stopping`; the sweep tries again |

use crate::SandboxId;
use crate::jobs::Job;
use crate::plane::ControlPlane;
use crate::sandbox::error::LifecycleError;
use crate::sandbox::record::{Failure, Sandbox, Stored};
use crate::sandbox::state::{Event, State};
use flames_metrics::Operation;
use flames_provider::{Error, ErrorKind};
use std::sync::Arc;
use tokio::sync::oneshot;

impl ControlPlane {
    /// Ends a sandbox in whatever state it is. Whoever claims it first takes it down; a second caller waits
    /// for the same end. It goes on when the caller goes away.
    ///
    /// # Errors
    /// `NotFound` when nobody knows it (any more).
    pub async fn destroy(self: &Arc<Self>, id: &SandboxId) -> Result<(), LifecycleError> {
        let (answer, waiting) = oneshot::channel();
        let (plane, id) = (Arc::clone(self), id.clone());
        let whose = id.clone();
        self.tasks.spawn(async move {
            // Nobody has to wait for it: a failure is in the record's state then, and the sweep sees it.
            let steps = plane.destroy_steps(&id);
            let _ = answer.send(plane.monitor.timed(Operation::Destroy, steps).await);
        });
        waiting.await.unwrap_or(Err(LifecycleError::NotFound(whose)))
    }

    pub(crate) async fn destroy_steps(&self, id: &SandboxId) -> Result<(), LifecycleError> {
        let claimed = self.claim(id).await?;
        self.forget_end(id);
        self.take_down(&claimed).await?;
        self.records.forget(id).await
    }

    /// Destroys without a caller who could be told.
    pub(crate) async fn destroy_logged(&self, id: &SandboxId) {
        match self.destroy_steps(id).await {
            Ok(()) | Err(LifecycleError::NotFound(_)) => {}
            Err(error) => tracing::error!(sandbox = %id, %error, "a sandbox could not be destroyed yet"),
        }
    }

    /// Marks a sandbox as failed, keeps its record, and removes what it has on the host.
    pub(crate) async fn fail(&self, id: &SandboxId, failure: Failure) -> Result<(), LifecycleError> {
        let now = self.clock.now();
        let failed = self
            .records
            .update(id, |sandbox| {
                sandbox.take(Event::Fail, now)?;
                sandbox.failure = Some(failure.clone());
                Ok(())
            })
            .await?;
        self.enqueue_logged(Job::ForgetSandbox { id: id.clone() }, self.limits.retention).await;
        self.take_down(&failed).await
    }

    async fn claim(&self, id: &SandboxId) -> Result<Stored, LifecycleError> {
        let now = self.clock.now();
        let stored = self.records.load(id).await?;
        if matches!(stored.sandbox.state, State::Stopping | State::Stopped) {
            return Ok(stored);
        }
        self.records.update_from(stored, |sandbox| sandbox.take(Event::Stop, now)).await
    }

    async fn take_down(&self, stored: &Stored) -> Result<(), LifecycleError> {
        let sandbox = &stored.sandbox;
        self.keep_console(sandbox).await;
        if !sandbox.ports.is_empty() {
            self.ports.look_again();
        }
        let failed = |source| LifecycleError::node(&sandbox.id, source);
        self.node.destroy(&sandbox.run).await.map_err(failed)?;
        self.room.release(&sandbox.id, self.clock.now());
        self.remove_rest(sandbox).await.map_err(failed)
    }

    /// Removes the snapshot that a sandbox rested in, or was being brought to.
    async fn remove_rest(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let Some(snapshot) = &sandbox.snapshot else { return Ok(()) };
        match self.node.remove_snapshot(snapshot).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
