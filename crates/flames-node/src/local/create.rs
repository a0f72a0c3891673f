//! A create: a table of steps, each with its undo.
//!
//! ```text
//! admit -> template -> network -> disk -> vmm_spawn -> boot -> agent_init -> start_up -> egress -> handed out
//! ```
//!
//! `boot` is a restore when the machine starts from a snapshot. It runs in a task of its own, so that a caller that
//! goes away cancels it between two awaits and the undo still runs to its end. The undo of the step that failed runs
//! too: it may have got half way.
//!
//! A member of a warm pool is a creation that stopped after a step; handing it out runs the rest (`give.rs`).

mod start_up;
mod steps;
mod waiting;

use super::Inner;
use super::handshake::Inherited;
use super::machine::MachineName;
use super::record::{Phase, RunRecord};
use super::run::{Holds, Line, Run};
use super::source::{Images, Source};
use crate::error::{CreateError, CreateStep};
use crate::net::{GUEST_IP, HOST_IP, PREFIX};
use crate::paths::RunDir;
use crate::snapshot::GuestFacts;
use crate::{AccessToken, CreateVm, GuestClient, RunFacts, StageTimings};
use flames_vmm::{Error, ErrorKind, PreparedVm, Result, RunningVm, VmId};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// One step of a create.
struct Step {
    name: CreateStep,
    wait: Wait,
    run: for<'a> fn(&'a mut Creation) -> BoxFuture<'a, Result<()>>,
    undo: for<'a> fn(&'a mut Creation) -> BoxFuture<'a, Result<()>>,
}

/// Whether a cancel interrupts a step or waits for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Milliseconds of work that must not be left half done.
    Short,
    /// May take seconds; dropping it is safe, its undo knows what it left.
    Long,
}

const STEPS: [Step; 9] = [
    Step { name: CreateStep::Admit, wait: Wait::Short, run: |c| c.admit().boxed(), undo: nothing },
    Step { name: CreateStep::Template, wait: Wait::Short, run: |c| c.check_source().boxed(), undo: nothing },
    Step {
        name: CreateStep::Network,
        wait: Wait::Short,
        run: |c| c.lease_network().boxed(),
        undo: |c| c.release_network().boxed(),
    },
    Step {
        name: CreateStep::Disk,
        wait: Wait::Short,
        run: |c| c.make_disk().boxed(),
        undo: |c| c.remove_run_dir().boxed(),
    },
    Step {
        name: CreateStep::VmmSpawn,
        wait: Wait::Long,
        run: |c| c.spawn_vmm().boxed(),
        undo: |c| c.end_vmm().boxed(),
    },
    // What these make lives in the VM and its network, and ends with them.
    Step { name: CreateStep::Boot, wait: Wait::Long, run: |c| c.boot().boxed(), undo: nothing },
    Step { name: CreateStep::AgentInit, wait: Wait::Long, run: |c| c.init_agent().boxed(), undo: nothing },
    Step { name: CreateStep::StartUp, wait: Wait::Long, run: |c| c.start_up().boxed(), undo: nothing },
    Step { name: CreateStep::Egress, wait: Wait::Short, run: |c| c.open_network().boxed(), undo: nothing },
];

/// Nothing was made, or it goes with what an earlier step made.
fn nothing(_: &mut Creation) -> BoxFuture<'_, Result<()>> {
    std::future::ready(Ok(())).boxed()
}

impl fmt::Debug for Creation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Creation").field("machine", self.machine.id()).finish_non_exhaustive()
    }
}

/// A create under way: what was asked for, and what was made so far.
pub(super) struct Creation {
    node: Arc<Inner>,
    pub(super) request: CreateVm,
    source: Source,
    machine: MachineName,
    /// What the agent takes as the node's own token from its next handshake on.
    pub(super) control: AccessToken,
    pub(super) timings: StageTimings,
    line: Option<Arc<Line>>,
    dir: Option<RunDir>,
    /// The run's own link to the image.
    image: Option<PathBuf>,
    prepared: Option<Box<dyn PreparedVm>>,
    pub(super) running: Option<Running>,
    pub(super) guest: Option<GuestClient>,
}

/// A run that was handed out, before it is told which way it went.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) run: VmId,
    pub(super) timings: StageTimings,
    pub(super) facts: RunFacts,
}

/// A guest whose agent serves.
pub(super) struct Running {
    vm: Arc<dyn RunningVm>,
    agent_version: String,
    /// What the agent takes as the node's own token now.
    control: AccessToken,
    inherited: Inherited,
}

impl Creation {
    /// A create of the machine `machine`. For one that is handed out at once that is the run's own name.
    pub(super) fn new(node: Arc<Inner>, request: CreateVm, source: Source, machine: VmId) -> Result<Self> {
        Ok(Self {
            control: crate::secret::new_token()?,
            machine: node.machines.claim(machine)?,
            node,
            request,
            source,
            timings: StageTimings::default(),
            line: None,
            dir: None,
            image: None,
            prepared: None,
            running: None,
            guest: None,
        })
    }

    /// Runs all steps and hands out; after a failure or a cancel, undoes what was done, last first.
    pub(super) async fn run(mut self, cancel: &CancellationToken) -> Result<Handed, CreateError> {
        self.steps(CreateStep::Admit, CreateStep::Egress, cancel).await?;
        self.finish().await
    }

    /// Runs the steps from one to another, both included; after a failure or a cancel, undoes everything that was
    /// ever done, last first.
    pub(super) async fn steps(
        &mut self,
        from: CreateStep,
        to: CreateStep,
        cancel: &CancellationToken,
    ) -> Result<(), CreateError> {
        for (index, step) in STEPS.iter().enumerate() {
            if step.name < from || step.name > to {
                continue;
            }
            let outcome = match step.wait {
                _ if cancel.is_cancelled() => Err(cancelled(&self.request)),
                Wait::Short => self.run_step(step).await,
                Wait::Long => tokio::select! {
                    () = cancel.cancelled() => Err(cancelled(&self.request)),
                    outcome = self.run_step(step) => outcome,
                },
            };
            if let Err(error) = outcome {
                self.undo(&STEPS[..=index]).await;
                return Err(step.name.failed(error));
            }
        }
        Ok(())
    }

    /// Takes everything apart again.
    pub(super) async fn give_up(mut self) {
        self.undo(&STEPS).await;
    }

    /// Writes that the run is handed out, and hands it out.
    pub(super) async fn finish(mut self) -> Result<Handed, CreateError> {
        let failed = |error| CreateStep::Egress.failed(error);
        if let Err(error) = self.write_record(Phase::HandedOut) {
            self.undo(&STEPS).await;
            return Err(failed(error));
        }
        self.hand_out().map_err(failed)
    }

    fn write_record(&self, phase: Phase) -> Result<()> {
        self.record(phase)?.write(self.dir.as_ref().ok_or_else(|| missing("run directory"))?)
    }

    async fn run_step(&mut self, step: &Step) -> Result<()> {
        (step.run)(self).await?;
        self.node.config.failure.check(step.name)
    }

    async fn undo(&mut self, done: &[Step]) {
        for step in done.iter().rev() {
            if let Err(error) = (step.undo)(self).await {
                // The reaper finds it by its name; the caller gets the error that began all this.
                tracing::error!(run = %self.request.run, step = %step.name, %error, "an undo failed");
            }
        }
    }

    /// The run is the node's from here on, and a restarted daemon's.
    fn hand_out(mut self) -> Result<Handed, Error> {
        let record = self.record(Phase::HandedOut)?;
        let line = self.line.take().ok_or_else(|| missing("network"))?;
        let dir = self.dir.take().ok_or_else(|| missing("run directory"))?;
        let guest = self.guest.take().ok_or_else(|| missing("guest client"))?;
        let running = self.running.take().ok_or_else(|| missing("running VM"))?;
        let facts = record.facts(&dir, running.vm.handle().pid);
        let holds = Holds { machine: self.machine, base: self.source.into_base() };
        let run = Run::new(record, dir, running.vm, line, guest, holds);
        self.node.own(Arc::new(run));
        Ok(Handed { run: self.request.run, timings: self.timings, facts })
    }

    fn record(&self, phase: Phase) -> Result<RunRecord> {
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        let agent_version = self.running.as_ref().map(|vm| vm.agent_version.clone()).unwrap_or_default();
        let (vcpus, memory, disk) = (self.request.vcpus, self.request.memory, self.request.disk);
        Ok(RunRecord {
            run: self.request.run.clone(),
            phase,
            driver: self.node.driver.name().to_owned(),
            guest: GuestFacts { agent_version, vcpus, memory, disk, ..self.source.guest_facts() },
            lease: line.lease.record(),
            network: self.request.network.clone(),
            access_token: self.request.access_token.clone(),
            control_token: self.control.clone(),
            images: self.images(),
            base: self.source.base(),
        })
    }

    pub(super) fn images(&self) -> Images {
        let images = self.source.images();
        Images { image: self.image.clone().unwrap_or(images.image), ..images }
    }

    pub(super) fn guest_facts(&self) -> Result<GuestFacts> {
        self.record(Phase::Creating).map(|record| record.guest)
    }

    /// What the agent takes as the node's own token.
    pub(super) fn control(&self) -> AccessToken {
        self.control.clone()
    }
}

impl Inner {
    /// What the guest's user space wants of the kernel command line.
    pub(super) fn kernel_args(&self) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["root=/dev/vda", "rootfstype=erofs", "ro", "init=/flames-guest"].map(str::to_owned).into();
        arguments.push(format!("flames.net={GUEST_IP}/{PREFIX},{HOST_IP}"));
        arguments.extend(self.config.kernel_args.iter().cloned());
        arguments
    }
}

pub(super) fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

pub(super) fn cancelled(request: &CreateVm) -> Error {
    Error::new(ErrorKind::Conflict, "run", request.run.as_str()).operation("create").detail("was cancelled")
}

/// A step that finds nothing of the step before it: a fault of this file.
fn missing(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what, "").operation("create").detail("was not made by the step before")
}
