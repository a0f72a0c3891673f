//! Fork a running sandbox: one capture, many clones; the source goes on.
//!
//! | step | makes | undone by |
//! |---|---|---|
//! | reserve | memory of the machine for all clones | giving it back |
//! | capture | a snapshot that lasts as long as the fork | removing it, in any case |
//! | clone | a record and a run each, all at once, with ids, tokens and host names of their own | destroying all of them |
//!
//! All or nothing: whoever asks for ten wants ten, and would have to count and clean up otherwise.

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::admit::{Plan, Timeout, timeout};
use crate::sandbox::error::{CreateSandboxError, ForkError, InvalidRequest, LifecycleError};
use crate::sandbox::record::{Origin, Sandbox};
use crate::sandbox::room::expected_use;
use crate::snapshot;
use flames_metrics::Operation;
use flames_node::BootPath;
use flames_node::{AfterSnapshot, Contents, Keep, SnapshotId, SnapshotTimings, StartFrom, TakeSnapshot};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Instant;

/// What to fork.
#[derive(Clone, Copy, Debug)]
pub struct Fork {
    /// How many, 1 to [`MAX_FORKS`].
    pub count: u32,
    /// When each of them ends by itself, counted from now; default as for a create.
    pub timeout: Option<Timeout>,
}

/// The most clones of one fork.
pub const MAX_FORKS: u32 = 20;

/// The clones, and how long it took.
#[derive(Clone, Debug)]
pub struct Forked {
    /// All of them, running.
    pub forks: Vec<Sandbox>,
    /// The capture's stages.
    pub snapshot: SnapshotTimings,
    /// From the request until the source was captured, in milliseconds.
    pub capture_ms: f64,
    /// From then until the last clone ran, in milliseconds.
    pub clone_ms: f64,
    /// All of it.
    pub total_ms: f64,
}

impl ControlPlane {
    /// Makes clones of a running sandbox: its memory, processes and files, other identities. A fork that
    /// nobody waits for any more is undone.
    ///
    /// # Errors
    /// `Source` for a count outside of 1 to [`MAX_FORKS`] or a sandbox that is not running; a variant per
    /// step otherwise. No clone is left, and the source goes on.
    pub async fn fork(self: &Arc<Self>, id: &SandboxId, fork: Fork) -> Result<Forked, ForkError> {
        if self.shutdown.is_cancelled() {
            return Err(ForkError::ShuttingDown);
        }
        let (answer, waiting) = tokio::sync::oneshot::channel();
        let (plane, id) = (Arc::clone(self), id.clone());
        self.tasks.spawn(async move {
            let forked = plane.monitor.timed(Operation::Fork, plane.fork_steps(&id, fork)).await;
            if let Err(Ok(unwanted)) = answer.send(forked) {
                tracing::info!(sandbox = %id, "destroying forks whose client went away");
                plane.destroy_forks(&unwanted.forks).await;
            }
        });
        waiting.await.unwrap_or(Err(ForkError::ShuttingDown))
    }

    async fn fork_steps(&self, id: &SandboxId, fork: Fork) -> Result<Forked, ForkError> {
        let asked = Instant::now();
        let ids = new_ids(fork.count)?;
        let timeout = timeout(&self.limits, fork.timeout).map_err(LifecycleError::from)?;
        let source = self.running(id).await?;
        let amount = expected_use(&source.resources, BootPath::Restored);
        self.room.reserve(&ids, amount, self.clock.now())?;
        let forked = self.fork_into(&source, &ids, timeout, asked).await;
        if forked.is_err() {
            ids.iter().for_each(|id| self.room.release(id, self.clock.now()));
        }
        forked
    }

    async fn fork_into(
        &self,
        source: &Sandbox,
        ids: &[SandboxId],
        timeout: Timeout,
        asked: Instant,
    ) -> Result<Forked, ForkError> {
        let snapshot = snapshot::random_id().map_err(LifecycleError::from)?;
        let _own = self.snapshots_in_use.take(&snapshot);
        let (then, keep, contents) = (AfterSnapshot::GoOn, Keep::ForForks, Contents::MemoryAndDisk);
        let request = TakeSnapshot { id: snapshot.clone(), then, keep, contents };
        let taken = match self.in_time(source, self.node.snapshot(&source.run, request)).await {
            Ok(taken) => taken,
            Err(error) => return Err(self.not_forked(source, error).await),
        };
        let captured = asked.elapsed();
        let forks = self.clones(source, &snapshot, ids, timeout).await;
        self.discard_snapshot(&snapshot).await;
        let total = asked.elapsed();
        Ok(Forked {
            forks: forks?,
            snapshot: taken.timings,
            capture_ms: captured.as_secs_f64() * 1000.0,
            clone_ms: (total - captured).as_secs_f64() * 1000.0,
            total_ms: total.as_secs_f64() * 1000.0,
        })
    }

    async fn not_forked(&self, source: &Sandbox, error: flames_provider::Error) -> ForkError {
        match self.not_captured(source, error).await {
            LifecycleError::Node { id, source } => ForkError::Capture { id, source },
            other => other.into(),
        }
    }

    /// Every clone, or none and why.
    async fn clones(
        &self,
        source: &Sandbox,
        snapshot: &SnapshotId,
        ids: &[SandboxId],
        timeout: Timeout,
    ) -> Result<Vec<Sandbox>, ForkError> {
        let made = ids.iter().map(|id| {
            let plan = plan(source, snapshot, timeout);
            async move { self.make(id.clone(), plan, Instant::now()).await }
        });
        let (mut made_well, mut failed): (Vec<Sandbox>, Vec<CreateSandboxError>) = (Vec::new(), Vec::new());
        for clone in join_all(made).await {
            match clone {
                Ok(clone) => made_well.push(clone),
                Err(error) => failed.push(error),
            }
        }
        let count = failed.len();
        let Some(first) = failed.into_iter().next() else { return Ok(made_well) };
        self.destroy_forks(&made_well).await;
        let first = Box::new(first);
        Err(ForkError::Clones { id: source.id.clone(), failed: count, count: ids.len(), first })
    }

    async fn destroy_forks(&self, forks: &[Sandbox]) {
        join_all(forks.iter().map(|fork| self.destroy_logged(&fork.id))).await;
    }
}

fn new_ids(count: u32) -> Result<Vec<SandboxId>, LifecycleError> {
    if (1..=MAX_FORKS).contains(&count) {
        return Ok((0..count).map(|_| SandboxId::random()).collect());
    }
    Err(InvalidRequest::new("count", format!("{count} is out of range: 1 to {MAX_FORKS} forks at once"))
        .into())
}

/// What a clone is made by: labels and limits of its source; no exposed ports and no timeout of it.
fn plan(source: &Sandbox, snapshot: &SnapshotId, timeout: Timeout) -> Plan {
    Plan {
        template: source.template.clone(),
        from: StartFrom::Snapshot(snapshot.clone()),
        origin: Some(Origin::Fork(source.id.clone())),
        resources: source.resources,
        metadata: source.metadata.clone(),
        env: None,
        timeout,
        on_timeout: source.on_timeout,
        idle_timeout_s: source.idle_timeout_s,
        entrance: source.entrance.clone(),
        network: source.network.clone(),
        level: source.level,
        user: None,
        workdir: None,
    }
}
