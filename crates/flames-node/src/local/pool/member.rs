//! A machine that waits in a pool: a creation that stopped after a step.

use super::Size;
use crate::error::{CreateError, CreateStep};
use crate::local::Inner;
use crate::local::create::{Creation, Handed};
use crate::local::give::Clock;
use crate::local::handshake::tell_time;
use crate::local::record::is_alive;
use crate::local::source::Source;
use crate::snapshot::Snapshot;
use crate::{
    AccessToken, BootLevel, CreateVm, EgressPolicy, Identity, Newcomer, Newcomers, StartFrom, TakeReady,
    TemplateName,
};
use flames_pool::{Health, MemberState, MemberView, Millis, Tier};
use flames_vmm::{Result, VmId};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the agent of a member may take to say that it is well.
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);

/// A member of a pool.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) view: MemberView,
    /// `None` while it is being made or ended: then a task has it.
    pub(super) machine: Option<Machine>,
}

/// A machine made ahead.
#[derive(Debug)]
pub(super) struct Machine {
    creation: Creation,
    tier: Tier,
}

impl Member {
    /// One that a task is about to make.
    pub(super) fn coming(id: String, slot: u32, tier: Tier, build: String, now: Millis) -> Self {
        let view = MemberView {
            id,
            slot,
            tier,
            state: MemberState::Prewarming,
            build,
            health: Health::Unchecked,
            started_at: now,
            ready_at: None,
            checked_at: None,
            boot_ms: 0.0,
        };
        Self { view, machine: None }
    }

    /// Makes it somebody's.
    pub(super) async fn give_to(self, whom: Whom, cancel: &CancellationToken) -> Result<Handed, CreateError> {
        let Some(Machine { creation, tier }) = self.machine else {
            let error = flames_vmm::Error::new(flames_vmm::ErrorKind::Internal, "pool member", self.view.id);
            return Err(CreateStep::Admit.failed(error.detail("is ready and has no machine")));
        };
        if tier == Tier::Paused
            && let Err(error) = creation.resume().await
        {
            creation.give_up().await;
            return Err(CreateStep::Boot.failed(error));
        }
        let clock = if tier == Tier::Paused { Clock::StoodStill } else { Clock::Ran };
        match whom {
            Whom::Other(request) => creation.give_to(*request, cancel).await,
            Whom::Itself(request) => creation.give_as_it_is(&request, clock, cancel).await,
        }
    }
}

/// Whose a member becomes.
#[derive(Debug)]
pub(super) enum Whom {
    /// Somebody's that has a name already: the guest is told everything anew.
    Other(Box<CreateVm>),
    /// The one's that it is.
    Itself(Box<TakeReady>),
}

impl Machine {
    /// Restores a machine as far as its tier is ahead.
    pub(super) async fn make(
        node: &Arc<Inner>,
        id: &VmId,
        tier: Tier,
        snapshot: Arc<Snapshot>,
        newcomers: &dyn Newcomers,
        cancel: &CancellationToken,
    ) -> Result<Self, CreateError> {
        let failed = |error| CreateStep::Admit.failed(error);
        let guest = &snapshot.manifest.guest;
        let size = Size { vcpus: guest.vcpus, memory: guest.memory, disk: guest.disk };
        let newcomer = newcomers.next(&guest.template).map_err(failed)?;
        let request = named(newcomer, node.placeholder(id, guest.template.clone(), size).map_err(failed)?);
        let source = Source::Snapshot(snapshot);
        let mut creation = Creation::new(Arc::clone(node), request, source, id.clone()).map_err(failed)?;
        let last = match tier {
            Tier::Prepared => CreateStep::VmmSpawn,
            Tier::Running | Tier::Paused => CreateStep::AgentInit,
        };
        creation.steps(CreateStep::Admit, last, cancel).await?;
        if tier != Tier::Prepared {
            // Under emulation code is slow when it runs for the first time.
            creation.warm_up().await;
        }
        if tier == Tier::Paused
            && let Err(error) = creation.pause().await
        {
            creation.give_up().await;
            return Err(CreateStep::AgentInit.failed(error));
        }
        Ok(Self { creation, tier })
    }

    /// Waits until its VMM is gone. For one that only waits to be restored nobody watches: its check finds out.
    pub(super) fn watch(&self) -> Option<Arc<dyn flames_vmm::RunningVm>> {
        self.creation.vm().cloned()
    }

    /// What to ask whether it is well.
    pub(super) fn probe(&self) -> Probe {
        match (self.tier, self.creation.guest()) {
            (Tier::Running, Some(guest)) => Probe::Agent(Box::new(guest.clone()), self.creation.control()),
            _ => Probe::Process(self.creation.dir().cloned()),
        }
    }

    pub(super) async fn end(self) {
        self.creation.give_up().await;
    }
}

/// How a member is asked whether it is well.
#[derive(Debug)]
pub(super) enum Probe {
    /// By telling it the time, with the node's own token: a clock that is emulated does not run as the host's does.
    Agent(Box<crate::GuestClient>, AccessToken),
    Process(Option<crate::paths::RunDir>),
}

impl Probe {
    pub(super) async fn ask(self) -> Health {
        let well = match self {
            Self::Agent(guest, control) => {
                let told = tell_time(&guest, &control);
                matches!(tokio::time::timeout(HEALTH_DEADLINE, told).await, Ok(Ok(())))
            }
            Self::Process(dir) => dir.is_some_and(|dir| is_alive(&dir)),
        };
        if well { Health::Healthy } else { Health::Unhealthy }
    }
}

/// The same create, for somebody.
fn named(newcomer: Newcomer, anonymous: CreateVm) -> CreateVm {
    CreateVm {
        run: newcomer.run,
        hostname: newcomer.hostname,
        access_token: newcomer.access_token,
        env: Some(newcomer.env),
        default_user: Some(newcomer.default_user),
        ..anonymous
    }
}

impl Inner {
    /// The create that a template's snapshot is made by: nobody's.
    pub(in crate::local) fn placeholder(
        &self,
        machine: &VmId,
        template: TemplateName,
        size: Size,
    ) -> Result<CreateVm> {
        Ok(CreateVm {
            run: machine.clone(),
            hostname: "warm".to_owned(),
            from: StartFrom::Template(template),
            level: BootLevel::Instant,
            identity: Identity::New,
            vcpus: size.vcpus,
            memory: size.memory,
            disk: size.disk,
            env: Some(Default::default()),
            access_token: crate::secret::new_token()?,
            default_user: Some("root".to_owned()),
            default_workdir: None,
            network: EgressPolicy::default(),
            boot_deadline: self.config.boot_deadline,
        })
    }
}

/// A name that no other machine has.
pub(in crate::local) fn machine_id(kind: &str) -> Result<VmId> {
    VmId::parse(format!("{kind}-{}", hex::encode(crate::secret::random_bytes::<8>()?)))
}
