//! The driver of fake machines.

use super::machine::{Machine, Power};
use super::snapshot::{self, GuestState};
use super::{FakeWorld, Files, Phase, guest};
use crate::spec::{
    AgentReady, Capabilities, Exit, ExitCause, MiB, PrepareFor, SnapshotParts, StopDeadlines, VmDescription,
    VmHandle, VmSpec, VmState,
};
use crate::{BootingVm, PreparedVm, RunningVm, VmmDriver};
use async_trait::async_trait;
use flames_provider::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;

pub(crate) const NAME: &str = "fake";
const VERSION: &str = "1.0.0";
/// Stands at the end of a kernel that no VMM loads.
const NO_KERNEL: &[u8] = b"not a kernel";

/// Starts machines in a [`FakeWorld`].
#[derive(Clone, Debug)]
pub struct FakeVmm {
    world: FakeWorld,
}

#[derive(Debug)]
struct Prepared {
    vm: Vm,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Boot,
    Restore(GuestState),
}

#[derive(Debug)]
struct Booting(Vm);

#[derive(Debug)]
struct Vm {
    world: FakeWorld,
    machine: Arc<Machine>,
    when_dropped: WhenDropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenDropped {
    Kill,
    LeaveRunning,
}

impl FakeVmm {
    pub(crate) fn new(world: FakeWorld) -> Self {
        Self { world }
    }

    async fn load(&self, parts: &SnapshotParts, spec: &VmSpec) -> Result<GuestState> {
        let loaded = match self.world.files() {
            Files::MustExist => snapshot::read(parts, spec.memory, VERSION).await,
            Files::AreNotLookedAt => self.world.recall(parts, VERSION),
        };
        loaded.map_err(|error| error.adapter(NAME).operation("prepare"))
    }

    async fn check(&self, spec: &VmSpec) -> Result<()> {
        match self.world.files() {
            Files::MustExist => spec.check(&self.capabilities()).await,
            Files::AreNotLookedAt => spec.check_values(&self.capabilities()),
        }
    }
}

#[async_trait]
impl VmmDriver for FakeVmm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            snapshots: true,
            hardware_virtualisation: false,
            user_network: true,
            max_vcpus: 32,
            max_memory: MiB(64 * 1024),
        }
    }

    async fn version(&self) -> Result<String> {
        Ok(VERSION.to_owned())
    }

    async fn prepare(&self, spec: VmSpec, purpose: PrepareFor) -> Result<Box<dyn PreparedVm>> {
        self.check(&spec).await.map_err(|error| error.adapter(NAME).operation("prepare"))?;
        let machine = self.world.start(&spec);
        let vm = Vm { world: self.world.clone(), machine, when_dropped: WhenDropped::Kill };
        vm.pass("prepare", Phase::Prepare).await?;
        if is_no_kernel(&spec.kernel) {
            return Err(vm.error(ErrorKind::Unavailable, "prepare", "not a kernel"));
        }
        let then = match purpose {
            PrepareFor::Boot => Then::Boot,
            PrepareFor::Restore(parts) => Then::Restore(self.load(&parts, &spec).await?),
        };
        Ok(Box::new(Prepared { vm, then }))
    }

    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        let Some(machine) = self.world.find(handle) else { return Ok(None) };
        let vm = Vm { world: self.world.clone(), machine, when_dropped: WhenDropped::LeaveRunning };
        vm.pass("adopt", Phase::Adopt).await?;
        Ok(Some(Box::new(vm)))
    }
}

fn is_no_kernel(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|content| content.ends_with(NO_KERNEL))
}

#[async_trait]
impl PreparedVm for Prepared {
    async fn boot(self: Box<Self>) -> Result<Box<dyn BootingVm>> {
        let Self { vm, then } = *self;
        if !matches!(then, Then::Boot) {
            return Err(vm.error(ErrorKind::InvalidInput, "boot", "it was prepared for a restore"));
        }
        vm.pass("boot", Phase::Boot).await?;
        vm.run_guest();
        Ok(Box::new(Booting(vm)))
    }

    async fn restore(self: Box<Self>) -> Result<Box<dyn RunningVm>> {
        let Self { mut vm, then } = *self;
        let Then::Restore(state) = then else {
            return Err(vm.error(ErrorKind::InvalidInput, "restore", "it was prepared for a boot"));
        };
        vm.pass("restore", Phase::Restore).await?;
        vm.machine.continue_from(state);
        vm.run_guest();
        vm.when_dropped = WhenDropped::LeaveRunning;
        Ok(Box::new(vm))
    }
}

#[async_trait]
impl BootingVm for Booting {
    async fn ready(self: Box<Self>) -> Result<(Box<dyn RunningVm>, AgentReady)> {
        let Self(mut vm) = *self;
        vm.pass("ready", Phase::Ready).await?;
        if !vm.machine.guest().reports() {
            return Err(vm.never_ready().await);
        }
        vm.when_dropped = WhenDropped::LeaveRunning;
        Ok((Box::new(vm), AgentReady { version: "0.0.0-fake".to_owned() }))
    }
}

impl Vm {
    async fn pass(&self, operation: &'static str, phase: Phase) -> Result<()> {
        self.world.pass(phase, &self.machine).await.map_err(|error| error.operation(operation))
    }

    fn run_guest(&self) {
        self.machine.switch(Power::Running);
        tokio::spawn(guest::run(self.world.clone(), self.machine.clone()));
    }

    async fn never_ready(&self) -> Error {
        let detail = match self.machine.guest() {
            guest::FakeGuest::Refuses => "the agent cannot start: the test guest refuses".to_owned(),
            _ => format!("the VMM ended ({:?})", self.machine.ended().await.cause),
        };
        self.error(ErrorKind::Unavailable, "ready", &detail)
    }

    fn error(&self, kind: ErrorKind, operation: &'static str, detail: &str) -> Error {
        self.machine.error(kind, detail).operation(operation)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if self.when_dropped == WhenDropped::Kill {
            self.world.end(&self.machine, ExitCause::Stopped);
        }
    }
}

#[async_trait]
impl RunningVm for Vm {
    fn handle(&self) -> VmHandle {
        self.machine.handle()
    }

    async fn pause(&self) -> Result<()> {
        self.pass("pause", Phase::Pause).await?;
        self.machine.switch(Power::Paused);
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.pass("resume", Phase::Resume).await?;
        self.machine.switch(Power::Running);
        Ok(())
    }

    async fn snapshot(&self, into: &Path) -> Result<SnapshotParts> {
        if self.machine.power() == Power::Running {
            return Err(self.error(ErrorKind::Conflict, "snapshot", "it is not paused; pause it first"));
        }
        self.pass("snapshot", Phase::Snapshot).await?;
        let state = self.machine.state();
        let written = match self.world.files() {
            Files::MustExist => {
                let (memory, space) = (self.machine.memory(), self.world.space_in(into));
                snapshot::write(into, memory, &state, VERSION, space)
            }
            Files::AreNotLookedAt => Ok(self.world.remember(into, state, VERSION)),
        };
        written.map_err(|error| error.adapter(NAME).operation("snapshot"))
    }

    async fn describe(&self) -> Result<VmDescription> {
        self.pass("describe", Phase::Describe).await?;
        let state = match self.machine.power() {
            Power::Running => VmState::Running,
            Power::Prepared | Power::Paused => VmState::Paused,
        };
        Ok(VmDescription { state, pid: self.machine.pid(), vmm_version: VERSION.to_owned() })
    }

    async fn stop(&self, deadlines: StopDeadlines) -> Result<Exit> {
        if self.machine.has_ended() {
            return Ok(self.exited().await);
        }
        match self.pass("stop", Phase::Stop).await {
            Err(_) if self.machine.has_ended() => return Ok(self.exited().await),
            passed => passed?,
        }
        if !deadlines.graceful.is_zero() {
            self.machine.ask_to_stop();
            let _in_time = tokio::time::timeout(deadlines.graceful, self.machine.ended()).await;
        }
        self.world.end(&self.machine, ExitCause::Stopped);
        Ok(self.exited().await)
    }

    async fn exited(&self) -> Exit {
        self.machine.ended().await
    }
}
