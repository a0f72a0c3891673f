//! Snapshots that users keep: taken of running sandboxes, created from any number of times, also after the
//! source is gone.
//!
//! | step of taking one | makes | undone by |
//! |---|---|---|
//! | record | a record in `making`, and its name taken | removing both |
//! | capture | the snapshot on the node; the source goes on | the node, by itself |
//! | conclude | the record in `ready` | removing the snapshot and the record |
//!
//! Removing goes the other way round: the record first, so that nothing starts from it any more, then the
//! files; the node keeps those that VMs map until the last of them is gone (hazard C7).

pub(crate) mod in_use;
pub mod record;

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::error::{LifecycleError, SnapshotError};
use crate::sandbox::record::Sandbox;
use crate::sandbox::settle::Host;
use crate::sandbox::state::State;
use flames_metrics::Operation;
use flames_node::{AfterSnapshot, Contents, Keep, SnapshotId, SnapshotTimings, TakeSnapshot};
use flames_provider::{Error, ErrorKind};
use in_use::Use;
use record::{Snapshot, SnapshotName, SnapshotStatus};
use std::collections::HashMap;
use std::sync::Arc;

impl ControlPlane {
    /// Takes a snapshot of a running sandbox, which goes on: whole, or of its disk alone, from which others boot. It is
    /// finished or undone when the caller goes away.
    ///
    /// # Errors
    /// `Sandbox` for one that is not running, a bad name, or a host that refused; `NameTaken`. Nothing is
    /// left then.
    pub async fn snapshot(
        self: &Arc<Self>,
        id: &SandboxId,
        name: Option<SnapshotName>,
        contents: Contents,
    ) -> Result<Snapshot, SnapshotError> {
        let (plane, whose) = (Arc::clone(self), id.clone());
        let steps = self.in_task(async move {
            plane.monitor.timed(Operation::Snapshot, plane.snapshot_steps(&whose, name, contents)).await
        });
        steps.await.unwrap_or_else(|| Err(LifecycleError::NotFound(id.clone()).into()))
    }

    /// All snapshots, newest first.
    ///
    /// # Errors
    /// What the stores and the node answer.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let mut all = self.snapshot_records.all().await?;
        self.look_at_node(&mut all).await?;
        Ok(all)
    }

    /// One snapshot, by its id or its name.
    ///
    /// # Errors
    /// `NotFound`; what the stores and the node answer.
    pub async fn get_snapshot(&self, id_or_name: &str) -> Result<Snapshot, SnapshotError> {
        let mut found = [self.find_snapshot(id_or_name).await?];
        self.look_at_node(&mut found).await?;
        let [found] = found;
        Ok(found)
    }

    /// Removes a snapshot, by its id or its name. Sandboxes that came from it go on.
    ///
    /// # Errors
    /// `NotFound`; `Unfinished` while it is taken; `Busy` while creates from it are under way.
    pub async fn remove_snapshot(self: &Arc<Self>, id_or_name: &str) -> Result<(), SnapshotError> {
        let found = self.find_snapshot(id_or_name).await?;
        let (plane, busy) = (Arc::clone(self), SnapshotError::Busy(found.id.clone()));
        self.in_task(async move { plane.remove_steps(&found).await }).await.unwrap_or(Err(busy))
    }

    async fn remove_steps(&self, found: &Snapshot) -> Result<(), SnapshotError> {
        let Some(_alone) = self.snapshots_in_use.take_alone(&found.id) else {
            return Err(match found.status {
                SnapshotStatus::Making => SnapshotError::Unfinished(found.id.clone()),
                _ => SnapshotError::Busy(found.id.clone()),
            });
        };
        self.snapshot_records.remove(found).await?;
        match self.node.remove_snapshot(&found.id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => Ok(removed?),
        }
    }

    async fn snapshot_steps(
        &self,
        id: &SandboxId,
        name: Option<SnapshotName>,
        contents: Contents,
    ) -> Result<Snapshot, SnapshotError> {
        let sandbox = self.running(id).await?;
        let mut snapshot = self.new_snapshot(&sandbox, name, contents)?;
        // From before the record until it is whole: nobody takes it for left over.
        let _own = self.snapshots_in_use.take(&snapshot.id);
        let revision = self.snapshot_records.insert(&snapshot).await?;
        let (then, keep) = (AfterSnapshot::GoOn, Keep::UntilRemoved);
        let request = TakeSnapshot { id: snapshot.id.clone(), then, keep, contents };
        match self.in_time(&sandbox, self.node.snapshot(&sandbox.run, request)).await {
            Ok(taken) => {
                snapshot.status = SnapshotStatus::Ready;
                snapshot.size_bytes = taken.info.size_bytes;
                snapshot.driver = taken.info.driver;
                snapshot.vmm_version = taken.info.vmm_version;
                snapshot.timings = taken.timings;
            }
            Err(error) => {
                self.forget_snapshot(&snapshot).await;
                return Err(self.not_captured(&sandbox, error).await.into());
            }
        }
        if let Err(error) = self.snapshot_records.replace(&snapshot, revision).await {
            self.discard_snapshot(&snapshot.id).await;
            self.forget_snapshot(&snapshot).await;
            return Err(error.into());
        }
        Ok(snapshot)
    }

    fn new_snapshot(
        &self,
        sandbox: &Sandbox,
        name: Option<SnapshotName>,
        contents: Contents,
    ) -> Result<Snapshot, SnapshotError> {
        Ok(Snapshot {
            id: random_id()?,
            name,
            contents,
            status: SnapshotStatus::Making,
            template: sandbox.template.clone(),
            resources: sandbox.resources,
            network: sandbox.network.clone(),
            source: sandbox.id.clone(),
            created_at: self.clock.now(),
            size_bytes: 0,
            timings: SnapshotTimings::default(),
            driver: String::new(),
            vmm_version: String::new(),
            clones: 0,
        })
    }

    /// A sandbox that must be running.
    pub(crate) async fn running(&self, id: &SandboxId) -> Result<Sandbox, LifecycleError> {
        let sandbox = self.get(id).await?;
        match sandbox.state {
            State::Running => Ok(sandbox),
            _ => Err(LifecycleError::not_running(&sandbox)),
        }
    }

    /// Why a capture failed: the sandbox that stopped running meanwhile, or else what the host said.
    pub(crate) async fn not_captured(&self, sandbox: &Sandbox, error: Error) -> LifecycleError {
        match self.running(&sandbox.id).await {
            Err(ended @ (LifecycleError::NotFound(_) | LifecycleError::NotRunning { .. })) => ended,
            _ => LifecycleError::node(&sandbox.id, error),
        }
    }

    /// A snapshot that can be created from, and the right to do so until the right is dropped.
    pub(crate) async fn use_snapshot(&self, id_or_name: &str) -> Result<(Snapshot, Use), SnapshotError> {
        let found = self.find_snapshot(id_or_name).await?;
        let Some(right) = self.snapshots_in_use.take(&found.id) else {
            return Err(SnapshotError::NotFound(id_or_name.to_owned()));
        };
        // Again, now that nobody can remove it.
        let found = self.find_snapshot(found.id.as_str()).await?;
        match found.status {
            SnapshotStatus::Making => Err(SnapshotError::Unfinished(found.id)),
            _ => Ok((found, right)),
        }
    }

    async fn find_snapshot(&self, id_or_name: &str) -> Result<Snapshot, SnapshotError> {
        let found = self.snapshot_records.find(id_or_name).await?;
        found.ok_or_else(|| SnapshotError::NotFound(id_or_name.chars().take(80).collect()))
    }

    /// Adds what only the node knows.
    async fn look_at_node(&self, snapshots: &mut [Snapshot]) -> Result<(), Error> {
        if snapshots.is_empty() {
            return Ok(());
        }
        let there = self.node.snapshots().await?;
        let there: HashMap<_, _> = there.into_iter().map(|info| (info.id, info.clones)).collect();
        for snapshot in snapshots {
            match there.get(&snapshot.id) {
                Some(clones) => snapshot.clones = *clones,
                None if snapshot.status == SnapshotStatus::Ready => {
                    snapshot.status = SnapshotStatus::Missing;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Removes a snapshot that no record needs. If that fails the sweep finds it.
    pub(crate) async fn discard_snapshot(&self, id: &SnapshotId) {
        match self.node.remove_snapshot(id).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(snapshot = %id, %error, "a snapshot is left for the sweep"),
        }
    }

    async fn forget_snapshot(&self, snapshot: &Snapshot) {
        if let Err(error) = self.snapshot_records.remove(snapshot).await {
            tracing::warn!(snapshot = %snapshot.id, %error, "a record is left for the sweep");
        }
    }

    /// Removes what was half made, and what no record names (hazard R2). What somebody is at work with is
    /// left alone: `host` was looked at before `in_use`, and that before the records, so whatever was
    /// finished in between has its record by now.
    pub(crate) async fn reclaim_snapshots(&self, host: &Host) -> Result<(), LifecycleError> {
        let in_use = self.snapshots_in_use.ids();
        let mut owned = std::collections::HashSet::new();
        for stored in self.records.all().await? {
            let Sandbox { snapshot, passing, .. } = stored.sandbox;
            owned.extend(snapshot.into_iter().chain(passing.and_then(|passing| passing.writes)));
        }
        for snapshot in self.snapshot_records.all().await? {
            match snapshot.status {
                SnapshotStatus::Making if !in_use.contains(&snapshot.id) => {
                    tracing::warn!(snapshot = %snapshot.id, "removing a snapshot that nobody finished");
                    self.forget_snapshot(&snapshot).await;
                }
                _ => drop(owned.insert(snapshot.id)),
            }
        }
        for id in host.snapshots.iter().filter(|id| !owned.contains(*id) && !in_use.contains(*id)) {
            tracing::warn!(snapshot = %id, "removing a snapshot that no record names");
            self.discard_snapshot(id).await;
        }
        Ok(())
    }
}

/// A new id that nobody else has.
pub(crate) fn random_id() -> Result<SnapshotId, Error> {
    SnapshotId::parse(format!("s{}", &SandboxId::random().as_str()[1..]))
}
