//! After a daemon's death: adopt what lives, reap what nobody owns, and count both.
//!
//! Every kind of resource is found by its name: run directories and disks by their place, processes by the run
//! directory that they write to, namespaces, TAPs, firewalls and mounts by the node's slot prefix.

use super::Inner;
use super::record::{Phase, RunRecord, read_handle, remove_run_dir};
use super::run::{Holds, Line, Run};
use super::strays;
use crate::disk::blocking;
use crate::net::{LeaseRecord, Networks, SlotProbe};
use crate::paths::{RunDir, io_error};
use crate::snapshot::Snapshot;
use crate::{Adoption, Leak, LeakKind, Reaped, SnapshotId};
use flames_vmm::{Result, RunningVm, StopDeadlines, VmId};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

impl Inner {
    /// Takes up every run directory that is there, then reaps the rest.
    pub(super) async fn adopt(self: &Arc<Self>) -> Result<Adoption> {
        let mut adoption = Adoption::default();
        for (id, dir) in self.run_dirs()? {
            if self.is_owned(&id) {
                continue;
            }
            match self.adopt_or_clear(&id, &dir).await {
                Ok(Some(run)) => {
                    adoption.adopted.push(run.info());
                    self.own(run);
                }
                Ok(None) => adoption.gone.push(id),
                Err(error) => {
                    // One VM that does not answer must not keep the daemon from serving the others.
                    tracing::error!(run = %id, %error, "a run can be neither adopted nor removed");
                    adoption.stuck.push(id);
                }
            }
        }
        adoption.reaped = self.reap_except(&adoption.stuck).await?;
        // Every run has attached to what it maps.
        self.snapshots.collect()?;
        self.template_snapshots.collect()?;
        Ok(adoption)
    }

    /// The snapshot that a run maps; without it the run goes on, and cannot be captured again.
    fn base_of(&self, record: &RunRecord) -> Option<Arc<Snapshot>> {
        let base = record.base.as_ref()?;
        let id = SnapshotId::parse(base.file_name()?.to_str()?).ok()?;
        let own = self.data.snapshots();
        let store = if base.starts_with(&own) { &self.snapshots } else { &self.template_snapshots };
        let attached = store.attach(&id);
        attached
            .inspect_err(|error| tracing::warn!(run = %record.run, %error, "the snapshot of a run is gone"))
            .ok()
    }

    async fn adopt_or_clear(&self, machine: &VmId, dir: &RunDir) -> Result<Option<Arc<Run>>> {
        let adopted = self.adopt_one(dir).await?;
        if adopted.is_none() {
            self.clear(machine, dir).await?;
        }
        Ok(adopted)
    }

    /// A run that was handed out and whose VM and network are still there.
    async fn adopt_one(&self, dir: &RunDir) -> Result<Option<Arc<Run>>> {
        let Some(record) = RunRecord::read(dir)?.filter(|record| record.phase == Phase::HandedOut) else {
            return Ok(None);
        };
        let Some(handle) = read_handle(dir)? else { return Ok(None) };
        let Some(vm) = self.driver.adopt(&handle).await? else { return Ok(None) };
        let vm: Arc<dyn RunningVm> = Arc::from(vm);
        match self.networks.resume(&record.lease) {
            Ok(lease) => {
                let line = Line::new(self.dialer.clone(), lease);
                // What answers for it in this process (names, inspected connections) ended with the last daemon.
                if let Err(error) = line.set_policy(&record.network).await {
                    tracing::error!(run = %record.run, %error, "the network rules of a run cannot be applied again");
                }
                let guest = line.client(record.access_token.clone());
                let holds = Holds { machine: self.machines.claim(handle.id)?, base: self.base_of(&record) };
                Ok(Some(Arc::new(Run::new(record, dir.clone(), vm, line, guest, holds))))
            }
            Err(error) => {
                tracing::warn!(run = %record.run, %error, "a VM lives and its network is gone: it is ended");
                vm.stop(StopDeadlines::KILL).await?;
                Ok(None)
            }
        }
    }

    /// Ends and removes what a directory without an owner stands for.
    async fn clear(&self, machine: &VmId, dir: &RunDir) -> Result<()> {
        self.end_vmm_of(machine, dir).await?;
        if let Some(LeaseRecord::Slot(name)) = RunRecord::read(dir)?.map(|record| record.lease)
            && let Networks::Namespaces(pool) = &self.networks
        {
            pool.names().remove(&name)?;
        }
        let dir = dir.clone();
        blocking("run directory", move || remove_run_dir(&dir)).await
    }

    /// Removes what has no owner. What resists is told last, after the others were tried.
    pub(super) async fn reap(&self) -> Result<Reaped> {
        self.reap_except(&[]).await
    }

    /// Processes with their directories first, then slots: no slot goes while its VM may live.
    async fn reap_except(&self, stuck: &[VmId]) -> Result<Reaped> {
        let mut removed: BTreeMap<LeakKind, Vec<String>> = BTreeMap::new();
        let mut resisted = Ok(());
        let orphans =
            self.run_dirs()?.into_iter().filter(|(id, _)| !self.is_owned(id) && !stuck.contains(id));
        for (id, dir) in orphans {
            match self.clear(&id, &dir).await {
                Ok(()) => removed.entry(LeakKind::RunDir).or_default().push(id.to_string()),
                Err(error) => resisted = Err(error),
            }
        }
        for machine in self.strays(stuck)? {
            match strays::end_of(self.data.vms(), machine.clone()).await {
                Ok(()) => removed.entry(LeakKind::Process).or_default().push(machine.to_string()),
                Err(error) => resisted = Err(error),
            }
        }
        if let Networks::Namespaces(pool) = &self.networks {
            let kept = self.slots_of_remaining_runs()?;
            for name in pool.names().orphans()?.into_iter().filter(|name| !kept.contains(name)) {
                match pool.names().remove(&name) {
                    Ok(()) => removed.entry(LeakKind::Namespace).or_default().push(name),
                    Err(error) => resisted = Err(error),
                }
            }
            resisted = resisted.and(pool.names().tidy_uplink().await);
        }
        resisted.map(|()| Reaped { removed })
    }

    /// Machines without an owner whose VMM lives, though their directory may be gone.
    fn strays(&self, stuck: &[VmId]) -> Result<HashSet<VmId>> {
        let machines = strays::writers(&self.data.vms())?.into_iter().map(|stray| stray.machine);
        Ok(machines.filter(|machine| !self.is_owned(machine) && !stuck.contains(machine)).collect())
    }

    /// Slots of run directories that are still there: a VM may live in them (hazard C5).
    fn slots_of_remaining_runs(&self) -> Result<HashSet<String>> {
        let records = self.run_dirs()?.into_iter().map(|(_, dir)| RunRecord::read(&dir));
        let records: Vec<Option<RunRecord>> = records.collect::<Result<_>>()?;
        Ok(records.into_iter().flatten().filter_map(|record| record.lease.netns()).collect())
    }

    pub(super) async fn leaks(&self) -> Result<Vec<Leak>> {
        let dirs = self.run_dirs()?;
        let mut tally = Tally::default();
        for (id, dir) in &dirs {
            let owned = self.is_owned(id);
            tally.add(LeakKind::RunDir, owned);
            if dir.disk().exists() {
                tally.add(LeakKind::Disk, owned);
            }
        }
        for stray in strays::writers(&self.data.vms())? {
            tally.add(LeakKind::Process, self.is_owned(&stray.machine));
        }
        self.tally_slots(&mut tally).await?;
        Ok(tally.finish())
    }

    async fn tally_slots(&self, tally: &mut Tally) -> Result<()> {
        let Networks::Namespaces(pool) = &self.networks else { return Ok(()) };
        let orphans: HashSet<String> = pool.names().orphans()?.into_iter().collect();
        for name in pool.names().existing()? {
            let owned = !orphans.contains(&name);
            let SlotProbe { mounted, tap, firewall } = pool.names().probe(&name).await?;
            tally.add(LeakKind::Namespace, owned);
            let found = [(mounted, LeakKind::Mount), (tap, LeakKind::Tap), (firewall, LeakKind::Nft)];
            found.into_iter().filter(|(there, _)| *there).for_each(|(_, kind)| tally.add(kind, owned));
        }
        if let Some(uplink) = pool.names().probe_uplink().await? {
            uplink.links.iter().for_each(|link| tally.add(LeakKind::Veth, pool.names().owns_link(link)));
            if uplink.firewall {
                tally.add(LeakKind::Nft, !uplink.links.is_empty());
            }
        }
        Ok(())
    }

    fn is_owned(&self, machine: &VmId) -> bool {
        self.machines.has(machine)
    }

    /// The run directories that are there. What has another name is not ours, and stays.
    fn run_dirs(&self) -> Result<Vec<(VmId, RunDir)>> {
        let folder = self.data.vms();
        let entries =
            std::fs::read_dir(&folder).map_err(|error| io_error("run directory", &folder, "list", error))?;
        let run_dir = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.ok()?;
            let id = VmId::parse(entry.file_name().into_string().ok()?).ok()?;
            Some((id, RunDir::at(entry.path())))
        };
        let mut dirs: Vec<_> = entries.filter_map(run_dir).collect();
        dirs.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(dirs)
    }
}

/// Counts by kind.
#[derive(Debug, Default)]
struct Tally(BTreeMap<LeakKind, (usize, usize)>);

impl Tally {
    fn add(&mut self, kind: LeakKind, owned: bool) {
        let (with, without) = self.0.entry(kind).or_default();
        *(if owned { with } else { without }) += 1;
    }

    fn finish(mut self) -> Vec<Leak> {
        for kind in LeakKind::ALL {
            self.0.entry(kind).or_default();
        }
        self.0.into_iter().map(|(kind, (owned, orphaned))| Leak { kind, owned, orphaned }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_reported_even_when_there_is_none_of_it() {
        let leaks = Tally::default().finish();
        assert_eq!(leaks.len(), LeakKind::ALL.len());
        assert!(leaks.iter().all(|leak| leak.owned + leak.orphaned == 0));
    }
}
