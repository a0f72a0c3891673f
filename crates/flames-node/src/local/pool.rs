//! Warm pools: carries out on real machines what `flames_pool` decides.
//!
//! A pool has one keeper, a task that looks at what there is, asks for a plan, begins everything in it, and waits for
//! the next event. Making, checking and ending a member are tasks of their own. A member that is handed out leaves the
//! pool for good (hazard L5).

mod keeper;
mod member;

use super::Inner;
use super::create::Handed;
use crate::error::CreateError;
use crate::{BootPath, CreateVm, CreatedVm, Newcomers, StartFrom, TakeReady, TemplateName};
use flames_pool::{
    ArrivalRate, Candidate, Choice, Cursor, Failures, Load, MemberState, Millis, Phase, Plan, PoolConfig,
    PoolStatus, PoolView, Reason, Scale, Tally, choose,
};
use flames_vmm::{Error, ErrorKind, MiB, Result};
pub(super) use member::machine_id;
use member::{Member, Whom};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The pools of a node, by template.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<BTreeMap<String, Arc<Pool>>>);

/// One pool.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    /// Something happened: plan anew.
    changed: Notify,
    /// Cancelled when the pool is to be emptied: what is being made is given up.
    stop: CancellationToken,
    tasks: TaskTracker,
    began: Instant,
}

/// What a pool's members are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) vcpus: u8,
    pub(super) memory: MiB,
    pub(super) disk: MiB,
}

#[derive(Debug)]
struct State {
    config: PoolConfig,
    size: Size,
    /// Names the members.
    newcomers: Arc<dyn Newcomers>,
    members: BTreeMap<String, Member>,
    made: u64,
    /// The name of the template's present snapshot; empty while the template cannot be found.
    build: String,
    phase: Phase,
    cursor: Cursor,
    failures: Failures,
    rate: ArrivalRate,
    scale: Scale,
    tally: Tally,
    plan: Plan,
}

impl Pools {
    /// Members that a create of this kind could have.
    pub(super) fn ready_for(&self, request: &CreateVm) -> u32 {
        self.fitting(request).map_or(0, |pool| pool.ready())
    }

    /// A create came; the pool that it could have been served from learns which way it goes.
    pub(super) fn note_arrival(&self, request: &CreateVm, path: BootPath) {
        let Some(pool) = self.fitting(request) else { return };
        if !request.level.parts().warm {
            return;
        }
        let now = pool.now();
        let mut state = pool.state();
        state.rate.arrived(now);
        if path != BootPath::Warm {
            state.tally.missed();
        }
        drop(state);
        if path != BootPath::Warm {
            pool.changed.notify_one();
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Pool>> {
        self.lock().values().cloned().collect()
    }

    fn fitting(&self, request: &CreateVm) -> Option<Arc<Pool>> {
        let StartFrom::Template(template) = &request.from else { return None };
        self.of(template, Size::of(request))
    }

    fn of(&self, template: &TemplateName, size: Size) -> Option<Arc<Pool>> {
        let pool = self.lock().get(template.as_str()).cloned()?;
        let has = pool.state().size;
        (has == size).then_some(pool)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Size {
    pub(super) fn of(request: &CreateVm) -> Self {
        Self { vcpus: request.vcpus, memory: request.memory, disk: request.disk }
    }
}

impl Inner {
    /// Hands a member out under another name than its own; `None` if none is left.
    pub(super) async fn take_warm(
        &self,
        request: &CreateVm,
        cancel: &CancellationToken,
    ) -> Result<Option<Handed>, CreateError> {
        let Some(pool) = self.pools.fitting(request) else { return Ok(None) };
        let Some(member) = pool.take() else {
            pool.state().tally.missed();
            return Ok(None);
        };
        let whom = Whom::Other(Box::new(request.clone()));
        pool.give(member, whom, cancel).await.map(Some)
    }

    /// See [`crate::Node::take_ready`].
    pub(super) async fn take_ready(&self, request: &TakeReady) -> Option<CreatedVm> {
        let size = Size { vcpus: request.vcpus, memory: request.memory, disk: request.disk };
        let pool = self.pools.of(&request.template, size)?;
        self.networks.check(&request.network).ok()?; // the way without a pool tells
        let asked = Instant::now();
        let member = pool.take()?;
        pool.state().rate.arrived(pool.now());
        match pool.give(member, Whom::Itself(Box::new(request.clone())), &CancellationToken::new()).await {
            Ok(handed) => {
                let why = "a warm VM was ready".to_owned();
                Some(self.done(asked, handed, Choice { path: BootPath::Warm, why }))
            }
            Err(error) => {
                tracing::warn!(template = %request.template, %error, cause = %error.cause(), "a warm VM failed");
                None
            }
        }
    }

    /// See [`crate::Node::set_pool`].
    pub(super) async fn set_pool(
        self: &Arc<Self>,
        config: PoolConfig,
        newcomers: Arc<dyn Newcomers>,
    ) -> Result<()> {
        let name = TemplateName::parse(config.template.clone())?;
        if let Err(mistakes) = config.validate() {
            let list: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            return Err(Error::new(ErrorKind::InvalidInput, "pool", config.template).detail(list.join("; ")));
        }
        if !self.driver.capabilities().snapshots {
            return Err(Error::new(ErrorKind::Unsupported, "pool", config.template)
                .detail(format!("the VMM `{}` takes no snapshots", self.driver.name())));
        }
        self.templates.find(&name).await?;
        let size = self.pool_size(&config);
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(&config.template) {
            pool.reconfigure(config, size, newcomers);
            return Ok(());
        }
        let pool = Arc::new(Pool::new(config.clone(), size, newcomers));
        pools.insert(config.template, Arc::clone(&pool));
        drop(pools);
        keeper::keep(Arc::clone(self), pool);
        Ok(())
    }

    fn pool_size(&self, config: &PoolConfig) -> Size {
        let usual = self.config.usual_size;
        Size {
            vcpus: config.vcpus.unwrap_or(usual.0),
            memory: config.memory_mib.map_or(usual.1, MiB),
            disk: config.disk_mib.map_or(usual.2, MiB),
        }
    }

    /// See [`crate::Node::remove_pool`].
    pub(super) async fn remove_pool(&self, template: &TemplateName) -> Result<()> {
        let pool = self.pools.lock().remove(template.as_str());
        let pool = pool.ok_or_else(|| Error::new(ErrorKind::NotFound, "pool", template.as_str()))?;
        pool.drain().await;
        Ok(())
    }

    /// Empties all pools and waits until nothing is left of them.
    pub(super) async fn drain_pools(&self) {
        let pools = std::mem::take(&mut *self.pools.lock());
        futures::future::join_all(pools.values().map(|pool| pool.drain())).await;
    }

    pub(super) fn pool_status(&self) -> Vec<PoolStatus> {
        self.pools.all().iter().map(|pool| pool.status(self)).collect()
    }

    /// Runs of this kind that were handed out and have not ended.
    fn live_of(&self, template: &str, size: Size) -> u32 {
        let runs = super::lock(&self.runs);
        let of_it = runs.live.values().filter(|run| {
            let guest = &run.record.guest;
            guest.template.as_str() == template
                && (guest.vcpus, guest.memory, guest.disk) == (size.vcpus, size.memory, size.disk)
        });
        u32::try_from(of_it.count()).unwrap_or(u32::MAX)
    }

    /// Members of this memory that the host has room for: what is available now, each at its full size.
    fn room_for(&self, memory: MiB) -> u32 {
        super::limits::host_memory().available.0 / memory.0.max(1)
    }
}

impl Pool {
    fn new(config: PoolConfig, size: Size, newcomers: Arc<dyn Newcomers>) -> Self {
        let now = Millis(0);
        let scale = Scale::at_base(&config, now);
        let state = State {
            size,
            newcomers,
            members: BTreeMap::new(),
            made: 0,
            build: String::new(),
            phase: Phase::Open,
            cursor: Cursor::default(),
            failures: Failures::default(),
            rate: ArrivalRate::of(&config),
            plan: Plan { start: vec![], retire: vec![], check: vec![], target: config.tiers, scale },
            scale,
            tally: Tally::default(),
            config,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            began: Instant::now(),
        }
    }

    /// Members of another size than the new one count as outdated, and are replaced.
    fn reconfigure(&self, config: PoolConfig, size: Size, newcomers: Arc<dyn Newcomers>) {
        let now = self.now();
        let mut state = self.state();
        state.scale = Scale::at_base(&config, now);
        state.rate = ArrivalRate::of(&config);
        state.config = config;
        state.newcomers = newcomers;
        if state.size != size {
            state.size = size;
            state.build = String::new();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Takes a member out, by the pool's strategy.
    fn take(&self) -> Option<Member> {
        let random = crate::secret::random_bytes::<8>().map(u64::from_le_bytes).unwrap_or_default();
        let mut guard = self.state();
        let state = &mut *guard;
        let (ids, candidates): (Vec<&String>, Vec<Candidate>) = state
            .members
            .iter()
            .filter_map(|(id, member)| Some((id, Candidate::of(&member.view, &state.build)?)))
            .unzip();
        let chosen = choose(state.config.strategy, &candidates, &mut state.cursor, random)?;
        let id = ids[chosen].clone();
        let mut member = state.members.remove(&id)?;
        member.view.state = MemberState::Allocating;
        Some(member)
    }

    /// Hands out a member that was taken.
    async fn give(
        &self,
        member: Member,
        whom: Whom,
        cancel: &CancellationToken,
    ) -> Result<Handed, CreateError> {
        let asked = Instant::now();
        let age = self.now().since(member.view.started_at);
        let given = Box::pin(member.give_to(whom, cancel)).await;
        match &given {
            Ok(_) => self.state().tally.hit(asked.elapsed(), age),
            Err(_) => self.state().tally.retired(Reason::Unhealthy),
        }
        if self.is_low() {
            self.changed.notify_one();
        }
        given
    }

    fn ready(&self) -> u32 {
        let state = self.state();
        let fitting = state.members.values().filter(|one| Candidate::of(&one.view, &state.build).is_some());
        u32::try_from(fitting.count()).unwrap_or(u32::MAX)
    }

    /// Fewer than half of what is wanted is ready. Before that the refill waits for the keeper's next look: begun at
    /// once, it would take the processor from the first command of the sandbox that was just handed out.
    fn is_low(&self) -> bool {
        self.ready() * 2 < self.state().plan.target.total()
    }

    fn view(&self, state: &State, node: &Inner) -> PoolView {
        PoolView {
            members: state.members.values().map(|member| member.view.clone()).collect(),
            build: state.build.clone(),
            phase: state.phase,
            load: Load {
                live: node.live_of(&state.config.template, state.size),
                arrivals_per_second: state.rate.per_second(self.now()),
            },
            scale: state.scale,
            failures: state.failures,
            busy: node.busy(),
            room: node.room_for(state.size.memory),
        }
    }

    fn status(&self, node: &Inner) -> PoolStatus {
        let state = self.state();
        state.tally.status(self.now(), &state.config, &self.view(&state, node), &state.plan)
    }

    /// Lets the keeper empty the pool, and waits until it is.
    async fn drain(&self) {
        self.state().phase = Phase::Draining;
        self.stop.cancel();
        self.changed.notify_one();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn now(&self) -> Millis {
        self.began.elapsed().into()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
