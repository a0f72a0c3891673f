//! What outlives a daemon: the store and the machines. And a clock that the test turns.

use crate::fake_node::FakeNode;
use flames_core::clock::Clock;
use flames_core::sandbox::admit::{CreateSandbox, Limits, Timeout};
use flames_core::sandbox::record::Sandbox;
use flames_core::sandbox::room::MemoryLimit;
use flames_core::sandbox::state::State;
use flames_core::{ControlPlane, Providers, SandboxId};
use flames_node::MiB;
use flames_provider::decorate::FaultPlan;
use flames_state::decorate::WithFaults;
use flames_state::{Key, MemoryStateStore, StateStore, StateStoreExt};
use jiff::{SignedDuration, Timestamp};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A host and its state store.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) node: Arc<FakeNode>,
    pub(crate) store: MemoryStateStore,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { node: FakeNode::new(), store: MemoryStateStore::new() }
    }

    /// A daemon of this host.
    pub(crate) async fn plane(&self) -> Arc<ControlPlane> {
        self.plane_over(Arc::new(self.store.clone())).await
    }

    /// A daemon whose state store fails as `plan` says.
    pub(crate) async fn plane_with_faults(&self, plan: FaultPlan) -> Arc<ControlPlane> {
        self.plane_over(Arc::new(WithFaults::new(self.store.clone(), Arc::new(plan)))).await
    }

    async fn plane_over(&self, state: Arc<dyn StateStore>) -> Arc<ControlPlane> {
        self.plane_within(state, Limits::default()).await
    }

    /// A daemon that may give away this much memory, in MiB.
    pub(crate) async fn plane_with_memory(&self, mib: u32) -> Arc<ControlPlane> {
        let limits = Limits { memory: MemoryLimit::Fixed(MiB(mib)), ..Limits::default() };
        self.plane_within(Arc::new(self.store.clone()), limits).await
    }

    async fn plane_within(&self, state: Arc<dyn StateStore>, limits: Limits) -> Arc<ControlPlane> {
        let providers = Providers { state, ..Providers::memory() };
        let clock = Arc::new(TestClock::starting_now());
        ControlPlane::start(providers, self.node.clone(), clock, limits).await.unwrap()
    }

    /// Every sandbox record there is.
    pub(crate) async fn records(&self) -> Vec<Sandbox> {
        let page = self.store.list("sandbox/", None, 500).await.unwrap();
        page.records.iter().map(|record| serde_json::from_slice(&record.value).unwrap()).collect()
    }

    /// Writes a record as an earlier daemon could have left it.
    pub(crate) async fn put(&self, sandbox: &Sandbox) {
        let key = Key::parse(format!("sandbox/{}", sandbox.id)).unwrap();
        self.store.put(key, serde_json::to_vec(sandbox).unwrap().into()).await.unwrap();
    }

    pub(crate) async fn assert_nothing_left(&self) {
        assert_eq!(self.records().await, []);
        assert_eq!(self.node.running(), []);
        assert_eq!(self.node.creating(), 0);
        assert_eq!(self.node.snapshot_ids(), []);
        assert_eq!(self.snapshot_records().await, 0);
    }

    /// How many records of snapshots and of their names there are.
    pub(crate) async fn snapshot_records(&self) -> usize {
        self.store.list("snapshot", None, 500).await.unwrap().records.len()
    }
}

/// The wall clock of the test: it moves with the time of the runtime, which stands still but for sleeps.
#[derive(Debug)]
struct TestClock {
    started: Instant,
}

impl TestClock {
    fn starting_now() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        start + SignedDuration::try_from(self.started.elapsed()).unwrap()
    }
}

/// One life of a daemon: when it returns, everything that the daemon did is over, as after a SIGKILL.
pub(crate) fn life<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

pub(crate) fn mini() -> CreateSandbox {
    CreateSandbox { template: "mini".into(), ..CreateSandbox::default() }
}

pub(crate) fn ending_after(seconds: u64) -> CreateSandbox {
    CreateSandbox { timeout: Some(Timeout::After(Duration::from_secs(seconds))), ..mini() }
}

pub(crate) async fn state_of(plane: &ControlPlane, id: &SandboxId) -> Option<State> {
    plane.get(id).await.ok().map(|sandbox| sandbox.state)
}

pub(crate) async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
