//! The node in this process: networks, disks, templates and one VMM driver of this machine.

mod adopt;
mod capture;
mod create;
mod give;
mod handshake;
mod limits;
mod machine;
mod name_server;
mod pool;
mod record;
mod run;
mod settle;
mod source;
mod strays;
mod tunnel;
mod ways;

pub use limits::{FailurePoint, Limits};

use crate::disk::{Disks, blocking};
use crate::net::{Dialer, NetworkMode, Networks, SlotNames, SlotPool, UplinkConfig};
use crate::paths::{Assets, DataDir, RunDir};
use crate::snapshot::{HostFacts, Snapshots};
use crate::template::TemplateStore;
use crate::{
    Adoption, BuildProgress, BuildTemplate, Capacity, Console, CreateError, CreateStep, CreateVm, CreatedVm,
    EgressPolicy, GuestClient, GuestStream, Leak, MiB, Newcomers, Node, PoolConfig, PoolStatus, Reaped,
    RunExit, RunInfo, SnapshotId, SnapshotInfo, TakeReady, TakeSnapshot, TakenSnapshot, Template,
    TemplateName, Traffic,
};
use async_trait::async_trait;
use flames_pool::{Execution, History};
use flames_vmm::{Capabilities, Error, ErrorKind, Exit, ExitCause, Result, StopDeadlines, VmId, VmmDriver};
use machine::Machines;
use pool::Pools;
use record::read_handle;
use run::Run;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many exits a slow receiver may be behind before it must compare with the list.
const EXIT_BACKLOG: usize = 1024;

/// A sandbox's id, a dash and its life's number.
const LONGEST_RUN_ID: usize = 27;

/// What a local node needs to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where runs, disks and built templates live; one daemon alone may use it.
    pub data_dir: PathBuf,
    /// Where empty disks and built templates are found and kept instead, for daemons that share them.
    pub shared_dir: Option<PathBuf>,
    /// Where kernel, agent and built-in images are.
    pub assets_dir: PathBuf,
    /// Which kind of network runs get.
    pub network: NetworkMode,
    /// The way out for runs whose policy allows something.
    pub uplink: UplinkConfig,
    /// Network slots to keep ready.
    pub ready_slots: usize,
    /// Bytes of the data directory's file system that a create must leave free.
    pub disk_reserve_bytes: u64,
    /// Bytes of console output kept per run.
    pub console_limit_bytes: u64,
    /// Further words of guests' kernel command line.
    pub kernel_args: Vec<String>,
    /// Names of what else the VMM is set to give each machine: a template's snapshot has them for good.
    pub extras: Vec<String>,
    /// How long a machine that nobody asked for yet may take to boot or to be restored.
    pub boot_deadline: Duration,
    /// When templates get snapshots of their own.
    pub template_snapshots: TemplateSnapshots,
    /// Virtual CPUs, memory and disk of a pool's members when its configuration does not say.
    pub usual_size: (u8, MiB, MiB),
    /// Fails creates on purpose, for tests.
    pub failure: FailurePoint,
}

/// When a template gets a snapshot of its own, without a pool that needs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateSnapshots {
    /// In the background, after the first create that had to boot.
    TakeAfterFirstUse,
    /// Never; those that are there are used.
    UseOnly,
}

impl NodeConfig {
    /// The usual settings: the best network there are rights for, four ready slots, 1 GiB in reserve,
    /// 1 MiB of console.
    pub fn new(data_dir: impl Into<PathBuf>, assets_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            shared_dir: None,
            assets_dir: assets_dir.into(),
            network: NetworkMode::detect(),
            uplink: UplinkConfig::default(),
            ready_slots: 4,
            disk_reserve_bytes: 1 << 30,
            console_limit_bytes: 1 << 20,
            kernel_args: Vec::new(),
            extras: Vec::new(),
            boot_deadline: Duration::from_secs(60),
            template_snapshots: TemplateSnapshots::UseOnly,
            usual_size: (1, MiB(256), MiB(1024)),
            failure: FailurePoint::none(),
        }
    }
}

/// The node in this process. Clones are the same node.
#[derive(Clone, Debug)]
pub struct LocalNode {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NodeConfig,
    driver: Arc<dyn VmmDriver>,
    data: DataDir,
    assets: Assets,
    disks: Disks,
    templates: TemplateStore,
    networks: Networks,
    dialer: Dialer,
    snapshots: Arc<Snapshots>,
    template_snapshots: Arc<Snapshots>,
    making_snapshot: tokio::sync::Mutex<()>,
    /// Boots and restores at once that somebody waits for.
    starts: tokio::sync::Semaphore,
    host: OnceCell<HostFacts>,
    history: Mutex<History>,
    pools: Pools,
    machines: Machines,
    background: TaskTracker,
    stop: CancellationToken,
    runs: Mutex<Runs>,
    exits: broadcast::Sender<RunExit>,
}

/// Who is here.
#[derive(Debug, Default)]
struct Runs {
    live: HashMap<VmId, Arc<Run>>,
    creating: HashMap<VmId, Pending>,
}

/// A create under way: how to end it, and how to wait for that.
#[derive(Clone, Debug)]
struct Pending {
    cancel: CancellationToken,
    over: CancellationToken,
}

/// A run id that a create has, until it has ended in whatever way.
#[derive(Debug)]
struct Claim {
    inner: Arc<Inner>,
    run: VmId,
    pending: Pending,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.inner.runs).creating.remove(&self.run);
        self.pending.over.cancel();
    }
}

/// Who waits for a create. A caller that goes away before it has heard of the run will never end it, so then
/// this does.
#[derive(Debug)]
struct Caller {
    inner: Option<Arc<Inner>>,
    run: VmId,
}

impl Caller {
    fn has_heard(mut self) {
        self.inner = None;
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let run = self.run.clone();
        // Without a runtime everything ends anyway; what is left is the next daemon's to reap.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = inner.destroy(&run).await {
                tracing::error!(%run, %error, "an abandoned run could not be ended");
            }
        });
    }
}

impl LocalNode {
    /// Opens the data directory and starts to fill the pool of network slots. Call [`Node::adopt`] next.
    ///
    /// # Errors
    /// `InvalidInput` or `PermissionDenied` for the data directory; `Unsupported` when the driver has no
    /// network for a node without root; `InvalidInput` or `Conflict` for a range of addresses that will not do
    /// or that the host knows already.
    pub fn open(config: NodeConfig, driver: Arc<dyn VmmDriver>) -> Result<Self> {
        let data = DataDir::open(&config.data_dir)?;
        data.run(&VmId::parse("0".repeat(LONGEST_RUN_ID))?)?; // too deep for sockets: say so now
        let shared = DataDir::open(config.shared_dir.as_ref().unwrap_or(&config.data_dir))?;
        let assets = Assets::at(&config.assets_dir);
        let networks = networks(&config, &data, driver.as_ref())?;
        let inner = Inner {
            disks: Disks::new(&shared, config.disk_reserve_bytes),
            templates: TemplateStore::new(&assets, &shared),
            dialer: Dialer::start()?,
            snapshots: Arc::new(Snapshots::open(data.snapshots())?),
            template_snapshots: Arc::new(Snapshots::open(shared.template_snapshots())?),
            making_snapshot: tokio::sync::Mutex::default(),
            starts: tokio::sync::Semaphore::new(starts_at_once()),
            host: OnceCell::new(),
            history: Mutex::default(),
            pools: Pools::default(),
            machines: Machines::default(),
            background: TaskTracker::new(),
            stop: CancellationToken::new(),
            runs: Mutex::default(),
            exits: broadcast::channel(EXIT_BACKLOG).0,
            networks,
            config,
            driver,
            data,
            assets,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Twice the processors: while one VMM waits for its disk another may run.
fn starts_at_once() -> usize {
    usize::try_from(limits::host_cpus().saturating_mul(2)).unwrap_or(usize::MAX).max(2)
}

fn networks(config: &NodeConfig, data: &DataDir, driver: &dyn VmmDriver) -> Result<Networks> {
    match config.network {
        NetworkMode::User if !driver.capabilities().user_network => {
            Err(Error::new(ErrorKind::Unsupported, "network", driver.name())
                .detail("this VMM needs network namespaces: run the daemon as root"))
        }
        NetworkMode::User => Ok(Networks::User),
        NetworkMode::Namespaces => {
            let names = SlotNames::with_uplink(data.root(), &config.uplink)?;
            let pool = SlotPool::new(names, config.ready_slots);
            pool.fill();
            Ok(Networks::Namespaces(pool))
        }
    }
}

#[async_trait]
impl Node for LocalNode {
    async fn create(&self, request: CreateVm) -> Result<CreatedVm, CreateError> {
        let admit = |error| CreateStep::Admit.failed(error);
        let claim = Inner::claim(&self.inner, &request.run).map_err(admit)?;
        let caller = Caller { inner: Some(Arc::clone(&self.inner)), run: request.run.clone() };
        let task =
            tokio::spawn(async move { Box::pin(claim.inner.create(request, &claim.pending.cancel)).await });
        let outcome = task.await;
        caller.has_heard();
        outcome.unwrap_or_else(|error| Err(admit(worker_died(error))))
    }

    async fn take_ready(&self, request: TakeReady) -> Option<CreatedVm> {
        let inner = Arc::clone(&self.inner);
        let (answer, waiting) = oneshot::channel();
        tokio::spawn(async move {
            let taken = inner.take_ready(&request).await;
            if let Err(Some(unwanted)) = answer.send(taken) {
                let run = unwanted.run;
                if let Err(error) = inner.destroy(&run).await {
                    tracing::error!(%run, %error, "an abandoned run could not be ended");
                }
            }
        });
        waiting.await.unwrap_or_default()
    }

    async fn destroy(&self, run: &VmId) -> Result<Exit> {
        let inner = Arc::clone(&self.inner);
        let run = run.clone();
        // A task of its own: a caller that goes away must not leave half a run.
        tokio::spawn(async move { inner.destroy(&run).await })
            .await
            .unwrap_or_else(|error| Err(worker_died(error)))
    }

    async fn pause(&self, run: &VmId) -> Result<()> {
        self.inner.find(run)?.pause().await
    }

    async fn resume(&self, run: &VmId) -> Result<()> {
        self.inner.find(run)?.resume().await
    }

    async fn snapshot(&self, run: &VmId, request: TakeSnapshot) -> Result<TakenSnapshot> {
        let (inner, run) = (Arc::clone(&self.inner), run.clone());
        // A task of its own: a caller that goes away must not leave a guest that stands still.
        tokio::spawn(async move { inner.snapshot(&run, request).await })
            .await
            .unwrap_or_else(|error| Err(worker_died(error)))
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let inner = Arc::clone(&self.inner);
        blocking("snapshots", move || inner.snapshots.list()).await
    }

    async fn remove_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        blocking("snapshot", move || inner.snapshots.remove(&id)).await
    }

    async fn set_network(&self, run: &VmId, policy: EgressPolicy) -> Result<()> {
        let run = self.inner.find(run)?;
        // A task of its own: a caller that goes away must not leave the record and the rules apart.
        tokio::spawn(async move { run.set_network(policy).await })
            .await
            .unwrap_or_else(|error| Err(worker_died(error)))
    }

    async fn traffic(&self, run: &VmId) -> Result<Traffic> {
        self.inner.find(run)?.traffic().await
    }

    async fn guest(&self, run: &VmId) -> Result<GuestClient> {
        Ok(self.inner.find(run)?.guest.clone())
    }

    async fn connect(&self, run: &VmId, port: u16) -> Result<GuestStream> {
        self.inner.find(run)?.connect(port).await
    }

    async fn console(&self, run: &VmId, limit: usize) -> Result<Console> {
        let dir = self.inner.find(run)?.dir.clone();
        blocking("console", move || Ok(Console::read(&dir.console(), limit))).await
    }

    async fn inspect(&self, run: &VmId) -> Result<RunInfo> {
        Ok(self.inner.find(run)?.info())
    }

    async fn list(&self) -> Vec<RunInfo> {
        let mut runs: Vec<_> = lock(&self.inner.runs).live.values().map(|run| run.info()).collect();
        runs.sort_by(|a, b| a.run.cmp(&b.run));
        runs
    }

    fn exits(&self) -> broadcast::Receiver<RunExit> {
        self.inner.exits.subscribe()
    }

    async fn pools(&self) -> Vec<PoolStatus> {
        self.inner.pool_status()
    }

    async fn set_pool(&self, config: PoolConfig, newcomers: Arc<dyn Newcomers>) -> Result<()> {
        self.inner.set_pool(config, newcomers).await
    }

    async fn remove_pool(&self, template: &TemplateName) -> Result<()> {
        self.inner.remove_pool(template).await
    }

    async fn templates(&self) -> Result<Vec<Template>> {
        self.inner.templates.list().await
    }

    async fn build_template(
        &self,
        request: BuildTemplate,
        progress: mpsc::Sender<BuildProgress>,
    ) -> Result<Template> {
        self.inner.templates.build(request, &progress).await
    }

    async fn tag_template(&self, target: &TemplateName, name: TemplateName) -> Result<Template> {
        self.inner.templates.tag(target, name).await
    }

    async fn remove_template(&self, name: &TemplateName) -> Result<()> {
        self.inner.templates.remove(name).await
    }

    async fn adopt(&self) -> Result<Adoption> {
        self.inner.adopt().await
    }

    async fn reap(&self) -> Result<Reaped> {
        self.inner.reap().await
    }

    async fn leaks(&self) -> Result<Vec<Leak>> {
        self.inner.leaks().await
    }

    async fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }

    async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.drain_pools().await;
        self.inner.background.close();
        self.inner.background.wait().await;
        if let Networks::Namespaces(pool) = &self.inner.networks
            && let Err(error) = pool.close().await
        {
            tracing::warn!(%error, "a ready network slot was left behind");
        }
    }
}

impl Inner {
    /// Takes a run id for a create: one at a time, and never one that is in use.
    fn claim(inner: &Arc<Self>, run: &VmId) -> Result<Claim> {
        let mut runs = lock(&inner.runs);
        if runs.live.contains_key(run) || runs.creating.contains_key(run) {
            return Err(Error::new(ErrorKind::AlreadyExists, "run", run.as_str()).operation("create"));
        }
        let pending = Pending { cancel: CancellationToken::new(), over: CancellationToken::new() };
        runs.creating.insert(run.clone(), pending.clone());
        drop(runs);
        Ok(Claim { inner: Arc::clone(inner), run: run.clone(), pending })
    }

    /// Takes a run into the list and watches for its end.
    fn own(self: &Arc<Self>, run: Arc<Run>) {
        lock(&self.runs).live.insert(run.record.run.clone(), Arc::clone(&run));
        let exits = self.exits.clone();
        tokio::spawn(async move {
            let exit = run.vm.exited().await;
            run.line.cut.cancel(); // nobody answers any more: break what still waits
            // No receiver is fine: then nobody wants to know.
            let _ = exits.send(RunExit { run: run.record.run.clone(), exit });
        });
    }

    async fn destroy(&self, run: &VmId) -> Result<Exit> {
        let pending = lock(&self.runs).creating.get(run).cloned();
        if let Some(pending) = pending {
            pending.cancel.cancel();
            pending.over.cancelled().await;
        }
        let live = lock(&self.runs).live.get(run).cloned();
        let Some(live) = live else { return Ok(never_seen()) };
        let exit = live.end().await?;
        lock(&self.runs).live.remove(run);
        Ok(exit)
    }

    fn find(&self, run: &VmId) -> Result<Arc<Run>> {
        let found = lock(&self.runs).live.get(run).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "run", run.as_str()))
    }

    /// Ends the VMM of a directory and waits until it is gone. Its handle may be missing, and a VMM that is being ended
    /// is nobody the driver would adopt and still has its network: so whoever writes to the directory is waited for.
    async fn end_vmm_of(&self, machine: &VmId, dir: &RunDir) -> Result<()> {
        if let Some(handle) = read_handle(dir)?
            && let Some(vm) = self.driver.adopt(&handle).await?
        {
            vm.stop(StopDeadlines::KILL).await?;
        }
        strays::end_of(self.data.vms(), machine.clone()).await
    }

    /// Creates under way for somebody who waits.
    fn busy(&self) -> u32 {
        u32::try_from(lock(&self.runs).creating.len()).unwrap_or(u32::MAX)
    }

    fn limits(&self) -> Limits {
        Limits::of(&self.driver.capabilities())
    }

    fn capacity(&self) -> Capacity {
        let limits = self.limits();
        let memory = limits::host_memory();
        Capacity {
            driver: self.driver.name().to_owned(),
            cpus: limits::host_cpus(),
            memory_total: memory.total,
            memory_available: memory.available,
            disk_available_bytes: self.disks.available_bytes().unwrap_or_default(),
            runs: lock(&self.runs).live.len(),
            max_vcpus: limits.max_vcpus,
            max_memory: limits.max_memory,
            namespaces: matches!(self.networks, Networks::Namespaces(_)),
            execution: execution(&self.driver.capabilities()),
        }
    }
}

fn execution(driver: &Capabilities) -> Execution {
    if driver.hardware_virtualisation { Execution::Hardware } else { Execution::Emulated }
}

/// The list; a panic while it was held cannot have left it half changed.
fn lock(runs: &Mutex<Runs>) -> MutexGuard<'_, Runs> {
    runs.lock().unwrap_or_else(PoisonError::into_inner)
}

fn never_seen() -> Exit {
    Exit { cause: ExitCause::Unknown, last_output: String::new() }
}

fn worker_died(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "run", "").detail("the worker failed").source(error)
}
