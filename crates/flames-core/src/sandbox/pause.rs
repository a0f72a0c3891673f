//! Pause a sandbox: in memory, to disk, or to disk without its memory.
//!
//! | step | makes | when it fails |
//! |---|---|---|
//! | claim | the record in `pausing`, with the snapshot's name | nothing happened |
//! | hold, or store | virtual CPUs stopped; or a snapshot, and the VMM gone | the node leaves the run as it was; the record says so |
//! | conclude | the record in `paused` or `snapshotted` | the sweep finishes or undoes it, by what is on the host |
//!
//! A delete takes the claim away at any moment: then what the pause made is removed, and the pause is refused.

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::error::LifecycleError;
use crate::sandbox::record::{Failure, Passing, Sandbox, Stored};
use crate::sandbox::state::{Event, State};
use crate::snapshot;
use flames_metrics::Operation;
use flames_node::{AfterSnapshot, Contents, Keep, SnapshotId, SnapshotTimings, TakeSnapshot, TakenSnapshot};
use flames_provider::{Error, ErrorKind};
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Where a paused sandbox rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PauseMode {
    /// On disk: no VMM and no memory of the host. Its clock stands still.
    #[default]
    Disk,
    /// On disk, and nothing but its disk: its files stay, its processes end. It boots when it comes back.
    DiskOnly,
    /// In memory, with its virtual CPUs stopped: back within milliseconds, and still ending at its time.
    Memory,
}

impl PauseMode {
    /// What a snapshot of it holds; `None` without one.
    fn contents(self) -> Option<Contents> {
        match self {
            Self::Disk => Some(Contents::MemoryAndDisk),
            Self::DiskOnly => Some(Contents::DiskOnly),
            Self::Memory => None,
        }
    }
}

/// A sandbox that rests, and how long it took.
#[derive(Clone, Debug)]
pub struct Paused {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// The snapshot's stages; all zero for a pause in memory.
    pub snapshot: SnapshotTimings,
    /// From the request until it rested, in milliseconds.
    pub total_ms: f64,
}

impl ControlPlane {
    /// Pauses a running sandbox; or brings one that rests in memory to disk. It goes on when the caller goes
    /// away.
    ///
    /// # Errors
    /// `NotRunning` in any other state, also when somebody else pauses or ends it; `Node` when the host
    /// refused: then the sandbox is as it was.
    pub async fn pause(self: &Arc<Self>, id: &SandboxId, mode: PauseMode) -> Result<Paused, LifecycleError> {
        let (plane, whose) = (Arc::clone(self), id.clone());
        let steps = self.in_task(async move {
            let steps = Box::pin(plane.pause_steps(&whose, mode));
            plane.monitor.timed(Operation::Pause, steps).await
        });
        steps.await.unwrap_or_else(|| Err(LifecycleError::NotFound(id.clone())))
    }

    pub(crate) async fn pause_steps(
        &self,
        id: &SandboxId,
        mode: PauseMode,
    ) -> Result<Paused, LifecycleError> {
        let asked = Instant::now();
        let contents = mode.contents();
        let writes = contents.map(|_| snapshot::random_id()).transpose()?;
        let contents = contents.unwrap_or_default();
        let _own = writes.as_ref().and_then(|id| self.snapshots_in_use.take(id));
        let claimed = self.claim_pause(id, writes.as_ref(), contents).await?;
        let (stored, snapshot) = match &writes {
            Some(writes) => self.store(&claimed, writes, contents).await?,
            None => (self.hold(&claimed).await?, SnapshotTimings::default()),
        };
        self.after_passing(&stored.sandbox);
        Ok(Paused { sandbox: stored.sandbox, snapshot, total_ms: asked.elapsed().as_secs_f64() * 1000.0 })
    }

    async fn claim_pause(
        &self,
        id: &SandboxId,
        writes: Option<&SnapshotId>,
        contents: Contents,
    ) -> Result<Stored, LifecycleError> {
        let now = self.clock.now();
        let claim = |sandbox: &mut Sandbox| {
            let from = sandbox.state;
            // What rests in memory can go to disk; to pause it in memory again would change nothing.
            if from == State::Paused && writes.is_none() || !sandbox.is_up() {
                return Err(LifecycleError::not_running(sandbox));
            }
            sandbox.take(Event::Pause, now)?;
            sandbox.passing = Some(Passing { from, writes: writes.cloned(), contents });
            Ok(())
        };
        self.records.update(id, claim).await
    }

    async fn hold(&self, claimed: &Stored) -> Result<Stored, LifecycleError> {
        let sandbox = &claimed.sandbox;
        match self.in_time(sandbox, self.node.pause(&sandbox.run)).await {
            Ok(()) => self.conclude(claimed, Event::HeldInMemory, |_| {}).await,
            Err(error) => Err(self.undo_pause(claimed, error).await),
        }
    }

    async fn store(
        &self,
        claimed: &Stored,
        writes: &SnapshotId,
        contents: Contents,
    ) -> Result<(Stored, SnapshotTimings), LifecycleError> {
        let sandbox = &claimed.sandbox;
        let (then, keep) = (AfterSnapshot::End, Keep::UntilRemoved);
        let request = TakeSnapshot { id: writes.clone(), then, keep, contents };
        let taken: TakenSnapshot =
            match self.in_time(sandbox, self.node.snapshot(&sandbox.run, request)).await {
                Ok(taken) => taken,
                Err(error) => return Err(self.undo_pause(claimed, error).await),
            };
        let stored = self.conclude_stored(claimed, writes).await?;
        Ok((stored, taken.timings))
    }

    /// The record of a sandbox that is on disk, with its memory or without, and whose VMM is gone.
    pub(crate) async fn conclude_stored(
        &self,
        claimed: &Stored,
        writes: &SnapshotId,
    ) -> Result<Stored, LifecycleError> {
        let now = self.clock.now();
        let rests = |sandbox: &mut Sandbox| {
            let left = sandbox.ends_at.take().map(|end| end.duration_since(now).as_millis());
            sandbox.left_ms = left.map(|left| u64::try_from(left).unwrap_or(0));
            sandbox.facts = None;
        };
        let concluded = self.conclude(claimed, Event::SnapshotStored, rests).await;
        match &concluded {
            Ok(stored) => self.room.release(&stored.sandbox.id, now),
            // Somebody ended it meanwhile: nobody will ever look for this snapshot.
            Err(LifecycleError::NotRunning { .. } | LifecycleError::NotFound(_)) => {
                self.discard_snapshot(writes).await;
            }
            // Out of reach: the sweep finds the claim, and the snapshot with it.
            Err(_) => {}
        }
        concluded
    }

    /// Says in the record what became of a claim, if the claim still holds.
    pub(crate) async fn conclude(
        &self,
        claimed: &Stored,
        event: Event,
        change: impl Fn(&mut Sandbox),
    ) -> Result<Stored, LifecycleError> {
        let now = self.clock.now();
        let ours = &claimed.sandbox;
        let conclude = |sandbox: &mut Sandbox| {
            if (&sandbox.run, &sandbox.passing) != (&ours.run, &ours.passing) {
                return Err(LifecycleError::not_running(sandbox));
            }
            sandbox.take(event, now)?;
            change(sandbox);
            Ok(())
        };
        self.records.update(&ours.id, conclude).await
    }

    /// Brings a record back to what it was before a pause that failed, and gives the error to answer.
    async fn undo_pause(&self, claimed: &Stored, error: Error) -> LifecycleError {
        let sandbox = &claimed.sandbox;
        if self.is_gone(sandbox).await {
            self.fail_logged(&sandbox.id, Failure::LostWhile { state: State::Pausing }).await;
            return LifecycleError::node(&sandbox.id, error);
        }
        match self.settle_back(claimed).await {
            Ok(()) => LifecycleError::node(&sandbox.id, error),
            Err(lost @ (LifecycleError::NotRunning { .. } | LifecycleError::NotFound(_))) => lost,
            Err(unsettled) => {
                tracing::warn!(sandbox = %sandbox.id, error = %unsettled, "a failed pause is left to the sweep");
                LifecycleError::node(&sandbox.id, error)
            }
        }
    }

    /// True if the host knows for sure that the VM does not exist.
    pub(crate) async fn is_gone(&self, sandbox: &Sandbox) -> bool {
        let found = self.node.inspect(&sandbox.run).await;
        found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// A host that does not answer is not waited for longer than a passing state may last (hazard L2).
    pub(crate) async fn in_time<T>(
        &self,
        sandbox: &Sandbox,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let deadline = self.limits.snapshot_deadline;
        tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "run", sandbox.run.as_str())
                .detail(format!("the host did not answer within {} s", deadline.as_secs())))
        })
    }

    /// Brings timers and routes in line with a record that left a passing state.
    pub(crate) fn after_passing(&self, sandbox: &Sandbox) {
        self.watch_anew(sandbox);
        if !sandbox.ports.is_empty() {
            self.ports.look_again();
        }
    }

    /// Runs steps that go on when the caller goes away; `None` if they broke off.
    pub(crate) async fn in_task<T: Send + 'static>(
        &self,
        steps: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, waiting) = oneshot::channel();
        self.tasks.spawn(async move {
            // Nobody has to wait for it: the record says how it ended.
            let _ = answer.send(steps.await);
        });
        waiting.await.ok()
    }
}
