//! A create: a table of steps, each with its undo.
//!
//! ```text
//! admit -> template -> network -> disk -> vmm_spawn -> boot -> agent_init -> egress -> handed out
//! ```
//!
//! `boot` is a restore when the machine starts from a snapshot. It runs in a task of its own, so that a caller that
//! goes away cancels it between two awaits and the undo still runs to its end. The undo of the step that failed runs
//! too: it may have got half way.
//!
//! A member of a warm pool is a creation that stopped after a step; handing it out runs the rest (`give.rs`).

use super::Inner;
use super::capture::capture;
use super::handshake::{self, Inherited};
use super::machine::MachineName;
use super::name_server;
use super::record::{Phase, RunRecord, remove_run_dir};
use super::run::{Holds, Line, Run};
use super::source::{Images, Source};
use crate::disk::blocking;
use crate::error::{CreateError, CreateStep};
use crate::net::{GUEST_IP, HOST_IP, PREFIX};
use crate::paths::{RunDir, io_error, make_private_dir};
use crate::snapshot::{GuestFacts, Partial};
use crate::{
    AccessToken, Console, CreateVm, GuestClient, RunFacts, SnapshotTimings, StageTimings, StartProcess,
};
use flames_guest::control::Greeting;
use flames_vmm::{
    BootChannel, Disk, DiskAccess, Error, ErrorKind, PrepareFor, PreparedVm, Result, RunningVm,
    StopDeadlines, VmId, VmSpec,
};
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

const STEPS: [Step; 8] = [
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

    async fn admit(&mut self) -> Result<()> {
        let limits = self.node.limits();
        limits.check(&self.request)?;
        self.node.networks.check(&self.request.network)?;
        self.node.assets.check()?;
        self.node.disks.admit(self.request.disk)
    }

    /// The image was found before; a snapshot must fit this host, be what was written, and be of the size asked for.
    async fn check_source(&mut self) -> Result<()> {
        let Source::Snapshot(snapshot) = &self.source else { return Ok(()) };
        let asked = (self.request.vcpus, self.request.memory, self.request.disk);
        let guest = &snapshot.manifest.guest;
        if asked != (guest.vcpus, guest.memory, guest.disk) {
            return Err(Error::new(ErrorKind::InvalidInput, "snapshot", snapshot.id().as_str()).detail(
                format!(
                    "was taken with {} vcpus, {} memory and {} disk: a clone has the same",
                    guest.vcpus, guest.memory, guest.disk
                ),
            ));
        }
        let host = self.node.host_facts().await?.clone();
        let snapshot = Arc::clone(snapshot);
        blocking("snapshot", move || snapshot.check(&host)).await
    }

    async fn lease_network(&mut self) -> Result<()> {
        let start = Instant::now();
        let lease = self.node.networks.lease().await?;
        self.line = Some(Line::new(self.node.dialer.clone(), lease));
        self.timings.network_ms = ms_since(start);
        Ok(())
    }

    async fn release_network(&mut self) -> Result<()> {
        let Some(line) = self.line.take() else { return Ok(()) };
        line.cut.cancel();
        blocking("network", move || line.lease.release()).await
    }

    async fn make_disk(&mut self) -> Result<()> {
        let start = Instant::now();
        let dir = self.node.data.run(self.machine.id())?;
        if dir.path().exists() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "run directory",
                dir.path().display().to_string(),
            ));
        }
        make_private_dir(dir.path())?;
        self.dir = Some(dir.clone());
        self.keep_image(&dir)?;
        self.write_record(Phase::Creating)?;
        match &self.source {
            Source::Image(_) => self.node.disks.create(&dir.disk(), self.request.disk).await?,
            Source::Snapshot(snapshot) => self.node.disks.copy(&snapshot.disk(), &dir.disk()).await?,
        }
        self.timings.disk_ms = ms_since(start);
        Ok(())
    }

    /// Keeps the template's image for as long as the run lives: the template may be built anew under its name meanwhile.
    /// A snapshot keeps its own; an image on another file system belongs to the installation and stays.
    fn keep_image(&mut self, dir: &RunDir) -> Result<()> {
        let Source::Image(image) = &self.source else { return Ok(()) };
        let (image, link) = (&image.template.image, dir.image());
        let file = std::fs::canonicalize(image).map_err(|error| io_error("image", image, "find", error))?;
        match std::fs::hard_link(&file, &link) {
            Ok(()) => self.image = Some(link),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(io_error("image", file, "link", error));
            }
            Err(_) => {}
        }
        Ok(())
    }

    async fn remove_run_dir(&mut self) -> Result<()> {
        let Some(dir) = self.dir.take() else { return Ok(()) };
        blocking("run directory", move || remove_run_dir(&dir)).await
    }

    async fn spawn_vmm(&mut self) -> Result<()> {
        let start = Instant::now();
        let spec = self.spec()?;
        let purpose = match &self.source {
            Source::Image(_) => PrepareFor::Boot,
            Source::Snapshot(snapshot) => PrepareFor::Restore(snapshot.parts()),
        };
        self.prepared = Some(self.node.driver.prepare(spec, purpose).await?);
        self.timings.vmm_spawn_ms = ms_since(start);
        Ok(())
    }

    /// Ends the VMM in whatever phase it is and waits until it is gone: the network behind it is taken
    /// apart next (hazard C5).
    async fn end_vmm(&mut self) -> Result<()> {
        drop(self.prepared.take()); // kills it, or leaves it to the handle
        if let Some(running) = self.running.take() {
            return running.vm.stop(StopDeadlines::KILL).await.map(drop);
        }
        match &self.dir {
            Some(dir) => self.node.end_vmm_of(self.machine.id(), dir).await,
            None => Ok(()),
        }
    }

    async fn boot(&mut self) -> Result<()> {
        let start = Instant::now();
        let prepared = self.prepared.take().ok_or_else(|| missing("prepared VM"))?;
        let deadline = self.request.boot_deadline;
        let work = tokio::time::timeout(deadline, start_guest(prepared, &self.source, &self.control));
        self.running = Some(match work.await {
            Ok(running) => running?,
            Err(_) => return Err(self.boot_timeout()),
        });
        match &self.source {
            Source::Image(_) => self.timings.kernel_to_agent_ms = ms_since(start),
            Source::Snapshot(_) => self.timings.restore_ms = ms_since(start),
        }
        Ok(())
    }

    fn boot_timeout(&self) -> Error {
        let console = self.dir.as_ref().map(|dir| Console::read(&dir.console(), 2048)).unwrap_or_default();
        Error::new(ErrorKind::Timeout, "guest", self.request.run.as_str()).operation("boot").detail(format!(
            "the agent did not report within {} s; the console ends with: {}",
            self.request.boot_deadline.as_secs_f64(),
            String::from_utf8_lossy(&console.text).trim()
        ))
    }

    /// The handshake: whatever it does not acknowledge, the machine is not handed out.
    async fn init_agent(&mut self) -> Result<()> {
        let start = Instant::now();
        let running = self.running.as_mut().ok_or_else(|| missing("running VM"))?;
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        let guest = self.guest.take().unwrap_or_else(|| line.client(self.request.access_token.clone()));
        let init = handshake::request(&self.request, &self.control, running.inherited)?;
        handshake::shake(&self.request.run, &guest, &running.control, &init).await?;
        running.control = self.control.clone();
        running.inherited = Inherited::Nothing;
        self.guest = Some(guest); // with its open connection: the first command need not wait for one
        self.timings.agent_init_ms = ms_since(start);
        Ok(())
    }

    /// Tells a guest that has its own token already something more, and makes sure that it took it in.
    pub(super) async fn tell(&mut self, init: &flames_guest::control::InitRequest) -> Result<()> {
        let start = Instant::now();
        let running = self.running.as_ref().ok_or_else(|| missing("running VM"))?;
        let guest = self.guest.as_ref().ok_or_else(|| missing("guest client"))?;
        handshake::shake(&self.request.run, guest, &running.control, init).await?;
        self.timings.agent_init_ms = ms_since(start);
        Ok(())
    }

    /// Last of all: a guest that was restored must not speak to anybody before it has time and entropy of its own.
    async fn open_network(&mut self) -> Result<()> {
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        line.set_policy(&self.request.network).await?;
        let guest = self.guest.as_ref().ok_or_else(|| missing("guest client"))?;
        name_server::tell(guest, &self.request.network).await;
        Ok(())
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

    /// Lets the guest read what commands need, so that its clones find it in memory. What an image does not have
    /// is left out.
    pub(super) async fn warm_up(&self) {
        let Some(guest) = &self.guest else { return };
        for (command, args) in
            [("true", &[][..]), ("/bin/sh", &["-lc", "true"]), ("/bin/bash", &["-lc", "true"])]
        {
            let args = args.iter().map(|&argument| argument.to_owned()).collect();
            let process = StartProcess { command: command.to_owned(), args, ..StartProcess::default() };
            let Ok(mut events) = guest.start(&process).await else { continue };
            while let Some(Ok(_)) = events.next().await {}
        }
    }

    /// Lets the guest finish what the warm-up left behind.
    pub(super) async fn settle(&self) -> Result<()> {
        match &self.running {
            Some(running) => super::settle::settle(running.vm.as_ref()).await,
            None => Ok(()),
        }
    }

    /// Captures the guest, which stands still afterwards.
    pub(super) async fn capture(&self, into: &Partial) -> Result<SnapshotTimings> {
        let running = self.running.as_ref().ok_or_else(|| missing("running VM"))?;
        let dir = self.dir.as_ref().ok_or_else(|| missing("run directory"))?;
        capture(running.vm.as_ref(), &dir.disk(), into).await
    }

    /// Stops the virtual CPUs of a machine that waits.
    pub(super) async fn pause(&self) -> Result<()> {
        self.running.as_ref().ok_or_else(|| missing("running VM"))?.vm.pause().await
    }

    /// Lets them run again.
    pub(super) async fn resume(&self) -> Result<()> {
        self.running.as_ref().ok_or_else(|| missing("running VM"))?.vm.resume().await
    }

    /// The run directory, once it was made.
    pub(super) fn dir(&self) -> Option<&RunDir> {
        self.dir.as_ref()
    }

    /// The guest's agent; `None` before it served.
    pub(super) fn guest(&self) -> Option<&GuestClient> {
        self.guest.as_ref()
    }

    /// The VM; `None` before it ran.
    pub(super) fn vm(&self) -> Option<&Arc<dyn RunningVm>> {
        self.running.as_ref().map(|running| &running.vm)
    }

    fn spec(&self) -> Result<VmSpec> {
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        let dir = self.dir.as_ref().ok_or_else(|| missing("run directory"))?;
        let greeting = Greeting { control_token: self.control.expose().to_owned() };
        let greeting = serde_json::to_string(&greeting).map_err(|error| missing("greeting").source(error))?;
        let disk = |path, access| Disk { path, access };
        let images = self.images();
        Ok(VmSpec {
            id: self.machine.id().clone(),
            run_dir: dir.path().to_owned(),
            vcpus: self.request.vcpus,
            memory: self.request.memory,
            kernel: self.node.assets.kernel(),
            kernel_args: kernel_args(),
            // The guest's order: the agent's disk is the kernel's root, then the image, then what is its own.
            disks: vec![
                disk(images.agent, DiskAccess::ReadOnly),
                disk(images.image, DiskAccess::ReadOnly),
                disk(dir.disk(), DiskAccess::ReadWrite),
            ],
            network: line.lease.network(),
            boot_channel: BootChannel { greeting },
            console_limit_bytes: self.node.config.console_limit_bytes,
        })
    }
}

/// Boots or restores, until the agent serves.
async fn start_guest(
    prepared: Box<dyn PreparedVm>,
    source: &Source,
    fresh_control: &AccessToken,
) -> Result<Running> {
    match source {
        Source::Image(_) => {
            let (vm, ready) = prepared.boot().await?.ready().await?;
            let (agent_version, control) = (ready.version, fresh_control.clone());
            Ok(Running { vm: Arc::from(vm), agent_version, control, inherited: Inherited::Nothing })
        }
        Source::Snapshot(snapshot) => {
            let vm = Arc::from(prepared.restore().await?);
            let manifest = &snapshot.manifest;
            let (agent_version, control) =
                (manifest.guest.agent_version.clone(), manifest.control_token.clone());
            Ok(Running { vm, agent_version, control, inherited: Inherited::Connections })
        }
    }
}

/// What the guest's user space wants on the kernel command line.
pub(super) fn kernel_args() -> Vec<String> {
    let mut arguments: Vec<String> =
        ["root=/dev/vda", "rootfstype=erofs", "ro", "init=/flames-guest"].map(str::to_owned).into();
    arguments.push(format!("flames.net={GUEST_IP}/{PREFIX},{HOST_IP}"));
    arguments
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
