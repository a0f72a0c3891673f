//! Resume a sandbox that rests, in memory or in its snapshot. From one of its disk alone it boots.
//!
//! | step | makes | when it fails |
//! |---|---|---|
//! | claim | the record in `resuming`; from disk with a new run id | nothing happened |
//! | reserve | memory of the machine (from disk) | the record as before |
//! | start | virtual CPUs run; or a VM restored from the snapshot, the same sandbox in it | the node undoes it; the record as before |
//! | conclude | the record in `running` | the run is destroyed; the sweep undoes the claim |
//! | tidy up | the snapshot removed | the sweep removes it |
//!
//! The snapshot goes once the record says `running`, and not before: until then it is the sandbox. To keep it
//! longer would cost its size on disk, and going back to it later would lose what the sandbox did since. Its
//! files stay for as long as the VM maps them.

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::admit::{Timeout, timeout};
use crate::sandbox::error::{LifecycleError, ResumeError};
use crate::sandbox::record::{Failure, Passing, Sandbox, Stored};
use crate::sandbox::room::expected_use;
use crate::sandbox::run;
use crate::sandbox::state::{Event, State};
use flames_metrics::Operation;
use flames_node::{
    BootLevel, BootPath, Contents, CreateVm, CreatedVm, Identity, SnapshotId, StageTimings, StartFrom,
};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A sandbox that runs again, and how long it took.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// The node's stages; all zero for a resume from memory.
    pub node: StageTimings,
    /// From the request until its agent served, in milliseconds.
    pub total_ms: f64,
}

impl ControlPlane {
    /// Brings a paused sandbox back: the same id, token, memory, processes and files; one whose disk alone was kept boots,
    /// with the same environment, and has its files. It goes on when the caller goes away.
    ///
    /// Without a timeout it has what was left of its time when it was paused; the default when nothing was.
    ///
    /// # Errors
    /// `NotPaused` in any other state, also when somebody else resumes it; `NoRoom`; `Start` when the
    /// snapshot was refused. The sandbox rests as before then.
    pub async fn resume(
        self: &Arc<Self>,
        id: &SandboxId,
        new_timeout: Option<Timeout>,
    ) -> Result<Resumed, ResumeError> {
        if let Some(asked) = new_timeout {
            timeout(&self.limits, Some(asked)).map_err(LifecycleError::from)?;
        }
        let (plane, whose) = (Arc::clone(self), id.clone());
        let steps = self.in_task(async move {
            let steps = Box::pin(plane.resume_steps(&whose, new_timeout));
            plane.monitor.timed(Operation::Resume, steps).await
        });
        steps.await.unwrap_or_else(|| Err(LifecycleError::NotFound(id.clone()).into()))
    }

    async fn resume_steps(
        &self,
        id: &SandboxId,
        new_timeout: Option<Timeout>,
    ) -> Result<Resumed, ResumeError> {
        let asked = Instant::now();
        let claimed = self.claim_resume(id).await?;
        let (stored, node) = match claimed.sandbox.snapshot.clone() {
            Some(snapshot) => Box::pin(self.wake(&claimed, snapshot, new_timeout)).await?,
            None => (self.unhold(&claimed, new_timeout).await?, StageTimings::default()),
        };
        self.after_passing(&stored.sandbox);
        Ok(Resumed { sandbox: stored.sandbox, node, total_ms: asked.elapsed().as_secs_f64() * 1000.0 })
    }

    async fn claim_resume(&self, id: &SandboxId) -> Result<Stored, LifecycleError> {
        let now = self.clock.now();
        let claim = |sandbox: &mut Sandbox| {
            let from = sandbox.state;
            match from {
                State::Paused => sandbox.take(Event::Resume, now)?,
                State::Snapshotted => {
                    sandbox.take(Event::Wake, now)?;
                    sandbox.run = run::next(&sandbox.run)?;
                }
                state => return Err(LifecycleError::NotPaused { id: sandbox.id.clone(), state }),
            }
            sandbox.passing = Some(Passing { from, writes: None, contents: Contents::default() });
            Ok(())
        };
        self.records.update(id, claim).await
    }

    async fn unhold(&self, claimed: &Stored, new_timeout: Option<Timeout>) -> Result<Stored, LifecycleError> {
        let sandbox = &claimed.sandbox;
        if let Err(error) = self.in_time(sandbox, self.node.resume(&sandbox.run)).await {
            return Err(self.undo_unhold(claimed, LifecycleError::node(&sandbox.id, error)).await);
        }
        let now = self.clock.now();
        let runs = |sandbox: &mut Sandbox| {
            if let Some(new_timeout) = new_timeout {
                sandbox.ends_at = new_timeout.ends_at(now);
            }
        };
        self.conclude(claimed, Event::Resumed, runs).await
    }

    async fn undo_unhold(&self, claimed: &Stored, error: LifecycleError) -> LifecycleError {
        let sandbox = &claimed.sandbox;
        if self.is_gone(sandbox).await {
            self.fail_logged(&sandbox.id, Failure::LostWhile { state: State::Resuming }).await;
            return error;
        }
        self.back(claimed).await;
        error
    }

    async fn wake(
        &self,
        claimed: &Stored,
        snapshot: SnapshotId,
        new_timeout: Option<Timeout>,
    ) -> Result<(Stored, StageTimings), ResumeError> {
        let sandbox = &claimed.sandbox;
        let amount = expected_use(&sandbox.resources, path_from(sandbox.kept));
        if let Err(full) = self.room.reserve(std::slice::from_ref(&sandbox.id), amount, self.clock.now()) {
            self.back(claimed).await;
            return Err(full.into());
        }
        let started = match self.node.create(self.same_again(sandbox, snapshot.clone())).await {
            Ok(started) => started,
            Err(error) => {
                self.room.release(&sandbox.id, self.clock.now());
                self.back(claimed).await;
                return Err(ResumeError::Start { id: sandbox.id.clone(), source: Box::new(error) });
            }
        };
        let node = started.timings;
        let stored = self.conclude_woken(claimed, started, new_timeout).await?;
        self.discard_snapshot(&snapshot).await;
        Ok((stored, node))
    }

    fn same_again(&self, sandbox: &Sandbox, snapshot: SnapshotId) -> CreateVm {
        CreateVm {
            run: sandbox.run.clone(),
            hostname: sandbox.id.to_string(),
            from: StartFrom::Snapshot(snapshot),
            level: BootLevel::default(),
            identity: Identity::Same,
            vcpus: sandbox.resources.vcpus,
            memory: sandbox.resources.memory,
            disk: sandbox.resources.disk,
            env: None,
            access_token: self.tokens.access(&sandbox.id),
            default_user: None,
            default_workdir: None,
            network: sandbox.network.clone(),
            boot_deadline: self.limits.boot_deadline,
        }
    }

    async fn conclude_woken(
        &self,
        claimed: &Stored,
        started: CreatedVm,
        new_timeout: Option<Timeout>,
    ) -> Result<Stored, LifecycleError> {
        let now = self.clock.now();
        let runs = |sandbox: &mut Sandbox| {
            sandbox.ends_at = end_after_rest(sandbox.left_ms, new_timeout, self.limits.default_timeout, now);
            sandbox.left_ms = None;
            sandbox.snapshot = None;
            sandbox.kept = Contents::default();
            sandbox.facts = Some(started.facts.clone());
            sandbox.path = Some(started.path);
            sandbox.why.clone_from(&started.why);
        };
        let concluded = self.conclude(claimed, Event::Resumed, runs).await;
        if concluded.is_err() {
            // Ended meanwhile, or the record is out of reach: then the sweep finds the claim and its snapshot.
            self.destroy_run(&claimed.sandbox).await;
            self.room.release(&claimed.sandbox.id, now);
        }
        concluded
    }

    /// Brings the record back; if that fails the sweep does it.
    async fn back(&self, claimed: &Stored) {
        if let Err(error) = self.settle_back(claimed).await {
            tracing::warn!(sandbox = %claimed.sandbox.id, %error, "a failed resume is left to the sweep");
        }
    }

    pub(crate) async fn destroy_run(&self, sandbox: &Sandbox) {
        if let Err(error) = self.node.destroy(&sandbox.run).await {
            tracing::error!(run = %sandbox.run, %error, "a run was left for the reconciler");
        }
    }
}

/// The way that a run takes from a snapshot.
pub(crate) fn path_from(contents: Contents) -> BootPath {
    match contents {
        Contents::MemoryAndDisk => BootPath::Restored,
        Contents::DiskOnly => BootPath::Cold,
    }
}

/// When a sandbox ends that comes back from a snapshot.
fn end_after_rest(
    left_ms: Option<u64>,
    new_timeout: Option<Timeout>,
    default: Timeout,
    now: Timestamp,
) -> Option<Timestamp> {
    let timeout = match (new_timeout, left_ms) {
        (Some(asked), _) => asked,
        (None, None) => Timeout::Never,
        // Its end was what paused it: it would end again at once.
        (None, Some(0)) => default,
        (None, Some(left)) => Timeout::After(Duration::from_millis(left)),
    };
    timeout.ends_at(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_does_not_use_up_time_and_one_that_ended_by_its_time_gets_the_default() {
        let now = Timestamp::from_second(1000).unwrap();
        let default = Timeout::After(Duration::from_secs(300));
        let end = |left, asked| end_after_rest(left, asked, default, now).map(Timestamp::as_second);
        assert_eq!(end(Some(5000), None), Some(1005));
        assert_eq!(end(Some(0), None), Some(1300));
        assert_eq!(end(None, None), None);
        assert_eq!(end(Some(5000), Some(Timeout::After(Duration::from_secs(7)))), Some(1007));
        assert_eq!(end(Some(5000), Some(Timeout::Never)), None);
    }
}
