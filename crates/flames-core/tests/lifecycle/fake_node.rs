//! A node whose machines are entries in a map: creates and destroys can be held, and made to fail.

// Benches include this file by its path, too.
#[path = "fake_node/values.rs"]
mod values;

use async_trait::async_trait;
use bytes::Bytes;
use flames_node::{
    AccessToken, Adoption, AfterSnapshot, BootPath, BuildProgress, BuildTemplate, Capacity, Console,
    CreateError, CreateStep, CreateVm, CreatedVm, Dial, EgressPolicy, Error, ErrorKind, Exit, ExitCause,
    GuestClient, GuestStream, Leak, LinesAt, MiB, Newcomers, Node, PoolConfig, PoolStatus, Reaped, Result,
    RunExit, RunInfo, SnapshotId, SnapshotInfo, SnapshotTimings, StageTimings, StartFrom, TakeReady,
    TakeSnapshot, TakenSnapshot, Template, TemplateName, TemplateOrigin, Traffic, VmId, VmState,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use values::{Nobody, info, snapshot_info};

/// The node. Its machines outlive the control planes that use it, as real ones do.
#[derive(Debug)]
pub(crate) struct FakeNode {
    machines: Mutex<Machines>,
    /// Bumped at each change of `machines`, so that tests wait for an event and not for a time.
    changed: watch::Sender<u64>,
    creates: watch::Sender<Gate>,
    destroys: watch::Sender<Gate>,
    /// Pauses, resumes and snapshots.
    stops: watch::Sender<Gate>,
    exits: broadcast::Sender<RunExit>,
    agent: Arc<dyn Dial>,
}

/// Whether calls may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Held,
}

#[derive(Debug, Default)]
struct Machines {
    running: BTreeMap<VmId, RunInfo>,
    creating: BTreeMap<VmId, CancellationToken>,
    fail_creates_at: Option<CreateStep>,
    fail_creates_as: Option<ErrorKind>,
    creates_until_failure: Option<u32>,
    failing_destroys: u32,
    destroy_calls: usize,
    snapshots: BTreeMap<SnapshotId, Kept>,
    fail_stops_as: Option<ErrorKind>,
    fail_snapshots_as: Option<ErrorKind>,
    stop_calls: usize,
    created: Vec<CreateVm>,
    networks: BTreeMap<VmId, EgressPolicy>,
    fail_networks_as: Option<ErrorKind>,
    pools: BTreeMap<String, PoolConfig>,
    newcomers: Option<Arc<dyn Newcomers>>,
    /// Machines that wait for somebody.
    ready: u32,
    taken: Vec<TakeReady>,
}

/// A snapshot: what it was taken of, and the runs that came from it.
#[derive(Debug)]
struct Kept {
    info: SnapshotInfo,
    of: VmId,
    clones: Vec<VmId>,
}

impl FakeNode {
    /// A node whose guests nobody answers in.
    pub(crate) fn new() -> Arc<Self> {
        Self::with_agent(Arc::new(Nobody))
    }

    /// A node whose guests answer as `agent` does.
    pub(crate) fn with_agent(agent: Arc<dyn Dial>) -> Arc<Self> {
        Arc::new(Self {
            machines: Mutex::default(),
            changed: watch::Sender::new(0),
            creates: watch::Sender::new(Gate::Open),
            destroys: watch::Sender::new(Gate::Open),
            stops: watch::Sender::new(Gate::Open),
            exits: broadcast::Sender::new(1024),
            agent,
        })
    }

    pub(crate) fn running(&self) -> Vec<VmId> {
        self.machines().running.keys().cloned().collect()
    }

    pub(crate) fn creating(&self) -> usize {
        self.machines().creating.len()
    }

    pub(crate) fn destroy_calls(&self) -> usize {
        self.machines().destroy_calls
    }

    /// Lets every create fail at a step from now on; `None` lets them pass again.
    pub(crate) fn fail_creates_at(&self, step: Option<CreateStep>) {
        self.machines().fail_creates_at = step;
    }

    /// What kind of error that gives; `Unavailable` if nothing is said.
    pub(crate) fn fail_creates_as(&self, kind: ErrorKind) {
        self.machines().fail_creates_as = Some(kind);
    }

    /// Lets `count` creates pass and all others fail.
    pub(crate) fn fail_creates_after(&self, count: u32) {
        self.machines().creates_until_failure = Some(count);
    }

    /// Lets every pause, resume and snapshot fail from now on; `None` lets them pass again.
    pub(crate) fn fail_stops(&self, kind: Option<ErrorKind>) {
        self.machines().fail_stops_as = kind;
    }

    /// Lets every snapshot fail from now on, and all else pass; `None` lets them pass again.
    pub(crate) fn fail_snapshots(&self, kind: Option<ErrorKind>) {
        self.machines().fail_snapshots_as = kind;
    }

    pub(crate) fn hold_stops(&self) {
        self.stops.send_replace(Gate::Held);
    }

    pub(crate) fn release_stops(&self) {
        self.stops.send_replace(Gate::Open);
    }

    pub(crate) fn stop_calls(&self) -> usize {
        self.machines().stop_calls
    }

    /// As a node that was started anew.
    pub(crate) fn forget_pools(&self) {
        self.machines().pools.clear();
    }

    pub(crate) fn pool_configs(&self) -> Vec<PoolConfig> {
        self.machines().pools.values().cloned().collect()
    }

    /// Has so many machines ready, once there is a pool.
    pub(crate) fn make_ready(&self, count: u32) {
        self.machines().ready = count;
    }

    /// Every machine that was asked for ready and was there, in order.
    pub(crate) fn taken(&self) -> Vec<TakeReady> {
        self.machines().taken.clone()
    }

    pub(crate) fn created(&self) -> Vec<CreateVm> {
        self.machines().created.clone()
    }

    pub(crate) fn network_of(&self, run: &VmId) -> Option<EgressPolicy> {
        self.machines().networks.get(run).cloned()
    }

    /// Lets every change of a network fail from now on; `None` lets them pass again.
    pub(crate) fn fail_networks(&self, kind: Option<ErrorKind>) {
        self.machines().fail_networks_as = kind;
    }

    pub(crate) fn state_of(&self, run: &VmId) -> Option<VmState> {
        self.machines().running.get(run).map(|info| info.state)
    }

    pub(crate) fn snapshot_ids(&self) -> Vec<SnapshotId> {
        self.machines().snapshots.keys().cloned().collect()
    }

    /// A snapshot of somebody's; or the files of a recorded one, gone.
    pub(crate) fn put_snapshot(&self, id: &SnapshotId, of: &VmId) {
        let kept = Kept { info: snapshot_info(id.clone()), of: of.clone(), clones: Vec::new() };
        self.machines().snapshots.insert(id.clone(), kept);
    }

    pub(crate) fn lose_snapshot(&self, id: &SnapshotId) {
        self.machines().snapshots.remove(id);
    }

    pub(crate) fn snapshot_of(&self, id: &SnapshotId) -> Option<VmId> {
        self.machines().snapshots.get(id).map(|kept| kept.of.clone())
    }

    /// Lets the next `count` destroys fail and take nothing away.
    pub(crate) fn fail_destroys(&self, count: u32) {
        self.machines().failing_destroys = count;
    }

    pub(crate) fn hold_creates(&self) {
        self.creates.send_replace(Gate::Held);
    }

    pub(crate) fn release_creates(&self) {
        self.creates.send_replace(Gate::Open);
    }

    pub(crate) fn hold_destroys(&self) {
        self.destroys.send_replace(Gate::Held);
    }

    pub(crate) fn release_destroys(&self) {
        self.destroys.send_replace(Gate::Open);
    }

    pub(crate) fn start_unowned(&self, run: &str) {
        let run = VmId::parse(run).unwrap();
        self.machines().running.insert(run.clone(), info(run));
    }

    /// The machine's process ends by itself, and its node sees it.
    pub(crate) fn kill(&self, run: &VmId, cause: ExitCause) {
        self.vanish(run);
        self.tell_exit(run, cause);
    }

    /// The machine's process ends while nobody looks.
    pub(crate) fn vanish(&self, run: &VmId) {
        self.machines().running.remove(run);
        self.note_change();
    }

    pub(crate) fn tell_exit(&self, run: &VmId, cause: ExitCause) {
        let exit = Exit { cause, last_output: "last words".into() };
        let _ = self.exits.send(RunExit { run: run.clone(), exit });
    }

    /// Waits until the node looks as `wanted` says.
    pub(crate) async fn until(&self, wanted: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        while !wanted(self) {
            changed.changed().await.unwrap();
        }
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_change(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// What every pause, resume and snapshot does first.
    async fn stop_call(&self, run: &VmId) -> Result<()> {
        self.machines().stop_calls += 1;
        self.note_change();
        let mut gate = self.stops.subscribe();
        let _ = gate.wait_for(|gate| *gate == Gate::Open).await;
        self.inspect(run).await?;
        match self.machines().fail_stops_as {
            Some(kind) => Err(Error::new(kind, "run", run.as_str()).detail("as the test wants it")),
            None => Ok(()),
        }
    }

    fn set_state(&self, run: &VmId, state: VmState) -> Result<()> {
        let gone = || Error::new(ErrorKind::NotFound, "run", run.as_str());
        self.machines().running.get_mut(run).ok_or_else(gone)?.state = state;
        self.note_change();
        Ok(())
    }

    async fn boot(&self, request: &CreateVm) -> std::result::Result<(), CreateError> {
        let cancelled = CancellationToken::new();
        self.machines().creating.insert(request.run.clone(), cancelled.clone());
        let _creating = Creating { node: self, run: &request.run };
        self.note_change();
        if let Some((step, kind)) = self.machines().next_create_fails(request) {
            return Err(step.failed(Error::new(kind, "run", request.run.as_str())));
        }
        let mut gate = self.creates.subscribe();
        tokio::select! {
            _ = gate.wait_for(|gate| *gate == Gate::Open) => Ok(()),
            () = cancelled.cancelled() => {
                Err(CreateStep::Boot.failed(Error::new(ErrorKind::Conflict, "run", request.run.as_str())))
            }
        }
    }
}

impl Machines {
    fn next_create_fails(&mut self, request: &CreateVm) -> Option<(CreateStep, ErrorKind)> {
        self.created.push(request.clone());
        let known = match &request.from {
            StartFrom::Snapshot(id) => {
                self.snapshots.get_mut(id).map(|kept| kept.clones.push(request.run.clone()))
            }
            StartFrom::Template(_) => Some(()),
        };
        if known.is_none() {
            return Some((CreateStep::Template, ErrorKind::NotFound));
        }
        let kind = self.fail_creates_as.unwrap_or(ErrorKind::Unavailable);
        match &mut self.creates_until_failure {
            Some(0) => return Some((CreateStep::Boot, kind)),
            Some(left) => *left -= 1,
            None => {}
        }
        self.fail_creates_at.map(|step| (step, kind))
    }
}

/// Also when the create is dropped, nothing of it stays.
struct Creating<'a> {
    node: &'a FakeNode,
    run: &'a VmId,
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.node.machines().creating.remove(self.run);
        self.node.note_change();
    }
}

#[async_trait]
impl Node for FakeNode {
    async fn create(&self, request: CreateVm) -> std::result::Result<CreatedVm, CreateError> {
        self.boot(&request).await?;
        let info = info(request.run.clone());
        self.machines().running.insert(request.run.clone(), info.clone());
        self.machines().networks.insert(request.run.clone(), request.network);
        self.note_change();
        Ok(CreatedVm {
            run: request.run,
            path: BootPath::Cold,
            why: String::new(),
            timings: StageTimings::default(),
            facts: info.facts,
        })
    }

    async fn take_ready(&self, request: TakeReady) -> Option<CreatedVm> {
        let newcomer = {
            let mut machines = self.machines();
            machines.ready = machines.ready.checked_sub(1)?;
            machines.newcomers.as_ref()?.next(&request.template).ok()?
        };
        let info = info(newcomer.run.clone());
        let mut machines = self.machines();
        machines.networks.insert(newcomer.run.clone(), request.network.clone());
        machines.taken.push(request);
        machines.running.insert(newcomer.run.clone(), info.clone());
        drop(machines);
        self.note_change();
        Some(CreatedVm {
            run: newcomer.run,
            path: BootPath::Warm,
            why: String::new(),
            timings: StageTimings::default(),
            facts: info.facts,
        })
    }

    async fn destroy(&self, run: &VmId) -> Result<Exit> {
        self.machines().destroy_calls += 1;
        self.note_change();
        let mut gate = self.destroys.subscribe();
        let _ = gate.wait_for(|gate| *gate == Gate::Open).await;
        let gone = {
            let mut machines = self.machines();
            if machines.failing_destroys > 0 {
                machines.failing_destroys -= 1;
                return Err(Error::new(ErrorKind::Timeout, "run", run.as_str()));
            }
            if let Some(creating) = machines.creating.get(run) {
                creating.cancel();
            }
            machines.running.remove(run).is_some()
        };
        self.note_change();
        let cause = if gone { ExitCause::Stopped } else { ExitCause::Unknown };
        if gone {
            self.tell_exit(run, cause);
        }
        Ok(Exit { cause, last_output: String::new() })
    }

    async fn pause(&self, run: &VmId) -> Result<()> {
        self.stop_call(run).await?;
        self.set_state(run, VmState::Paused)
    }

    async fn resume(&self, run: &VmId) -> Result<()> {
        self.stop_call(run).await?;
        self.set_state(run, VmState::Running)
    }

    async fn snapshot(&self, run: &VmId, request: TakeSnapshot) -> Result<TakenSnapshot> {
        self.stop_call(run).await?;
        if let Some(kind) = self.machines().fail_snapshots_as {
            return Err(Error::new(kind, "snapshot", request.id.as_str()));
        }
        let info = SnapshotInfo { contents: request.contents, ..snapshot_info(request.id.clone()) };
        let kept = Kept { info: info.clone(), of: run.clone(), clones: Vec::new() };
        self.machines().snapshots.insert(request.id, kept);
        if request.then == AfterSnapshot::End {
            self.kill(run, ExitCause::Stopped);
        }
        self.note_change();
        let timings =
            SnapshotTimings { freeze_ms: 0.0, paused_ms: 3.0, memory_ms: 2.0, disk_ms: 1.0, seal_ms: 4.0 };
        Ok(TakenSnapshot { info, timings })
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let machines = self.machines();
        let infos = machines.snapshots.values().map(|kept| {
            let clones = kept.clones.iter().filter(|run| machines.running.contains_key(*run)).count();
            SnapshotInfo { clones, ..kept.info.clone() }
        });
        Ok(infos.collect())
    }

    async fn remove_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let removed = self.machines().snapshots.remove(id);
        self.note_change();
        removed.map(drop).ok_or_else(|| Error::new(ErrorKind::NotFound, "snapshot", id.as_str()))
    }

    async fn set_network(&self, run: &VmId, policy: EgressPolicy) -> Result<()> {
        self.inspect(run).await?;
        if let Some(kind) = self.machines().fail_networks_as {
            return Err(Error::new(kind, "network policy", run.as_str()).detail("as the test wants it"));
        }
        self.machines().networks.insert(run.clone(), policy);
        self.note_change();
        Ok(())
    }

    /// As much as there are rules: ten packets of a hundred bytes sent for each, one dropped.
    async fn traffic(&self, run: &VmId) -> Result<Traffic> {
        self.inspect(run).await?;
        let policy = self.network_of(run).unwrap_or_default();
        let rules = u64::try_from(policy.allow().len()).unwrap_or_default();
        let counted = |packets| flames_node::egress::Count { packets, bytes: packets * 100 };
        let counters =
            [("passed_out".to_owned(), counted(rules * 10)), ("drop_default".to_owned(), counted(rules))];
        Ok(Traffic::of(
            &policy,
            &flames_node::egress::Carried { counters: counters.into(), ..Default::default() },
        ))
    }

    async fn guest(&self, run: &VmId) -> Result<GuestClient> {
        self.inspect(run).await?;
        Ok(GuestClient::new(Arc::clone(&self.agent), AccessToken::new("token")))
    }

    async fn connect(&self, run: &VmId, _port: u16) -> Result<GuestStream> {
        self.inspect(run).await?;
        self.agent.dial().await
    }

    async fn console(&self, run: &VmId, limit: usize) -> Result<Console> {
        self.inspect(run).await?;
        let times = vec![LinesAt { lines: 1, at_ms: Some(1_700_000_000_000) }];
        Ok(Console { text: Bytes::from_static(b"Linux version 6\n"), times }.newest(limit))
    }

    async fn inspect(&self, run: &VmId) -> Result<RunInfo> {
        let found = self.machines().running.get(run).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "run", run.as_str()))
    }

    async fn list(&self) -> Vec<RunInfo> {
        self.machines().running.values().cloned().collect()
    }

    fn exits(&self) -> broadcast::Receiver<RunExit> {
        self.exits.subscribe()
    }

    async fn pools(&self) -> Vec<PoolStatus> {
        Vec::new()
    }

    async fn set_pool(&self, config: PoolConfig, newcomers: Arc<dyn Newcomers>) -> Result<()> {
        if config.template == "unknown" {
            return Err(Error::new(ErrorKind::NotFound, "template", config.template));
        }
        let mut machines = self.machines();
        machines.pools.insert(config.template.clone(), config);
        machines.newcomers = Some(newcomers);
        Ok(())
    }

    async fn remove_pool(&self, template: &TemplateName) -> Result<()> {
        let removed = self.machines().pools.remove(template.as_str());
        removed.map(drop).ok_or_else(|| Error::new(ErrorKind::NotFound, "pool", template.as_str()))
    }

    async fn templates(&self) -> Result<Vec<Template>> {
        Ok(vec![Template {
            name: TemplateName::parse("mini")?,
            origin: TemplateOrigin::BuiltIn,
            image: PathBuf::from("/images/mini.erofs"),
            size_bytes: 0,
            sha256: String::new(),
            created_unix: 0,
            built_from: String::new(),
            start_up: None,
        }])
    }

    async fn build_template(
        &self,
        request: BuildTemplate,
        _progress: mpsc::Sender<BuildProgress>,
    ) -> Result<Template> {
        Err(Error::new(ErrorKind::InvalidInput, "template", request.name.as_str()).detail("nothing to pack"))
    }

    async fn tag_template(&self, target: &TemplateName, _name: TemplateName) -> Result<Template> {
        Err(Error::new(ErrorKind::NotFound, "template", target.as_str()))
    }

    async fn remove_template(&self, name: &TemplateName) -> Result<()> {
        match name.as_str() {
            "removable" => Ok(()),
            other => Err(Error::new(ErrorKind::NotFound, "template", other)),
        }
    }

    async fn adopt(&self) -> Result<Adoption> {
        Ok(Adoption { adopted: self.list().await, ..Adoption::default() })
    }

    async fn reap(&self) -> Result<Reaped> {
        Ok(Reaped::default())
    }

    async fn leaks(&self) -> Result<Vec<Leak>> {
        Ok(Vec::new())
    }

    async fn capacity(&self) -> Capacity {
        Capacity {
            driver: "fake".into(),
            cpus: 2,
            memory_total: MiB(4096),
            memory_available: MiB(2048),
            disk_available_bytes: 1 << 30,
            runs: self.running().len(),
            max_vcpus: 8,
            max_memory: MiB(8192),
            namespaces: false,
            execution: flames_node::Execution::Emulated,
        }
    }

    async fn shutdown(&self) {}
}
