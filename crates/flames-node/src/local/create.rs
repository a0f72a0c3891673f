//! A create: a table of steps, each with its undo.
//!
//! ```text
//! admit -> template -> network -> disk -> vmm_spawn -> boot -> agent_init -> handed out
//! ```
//!
//! It runs in a task of its own, so that a caller that goes away cancels it between two awaits and the undo
//! still runs to its end. The undo of the step that failed runs too: it may have got half way.

use super::Inner;
use super::record::{Phase, RunRecord, remove_run_dir};
use super::run::{Line, Run};
use crate::disk::blocking;
use crate::error::{CreateError, CreateStep};
use crate::net::{GUEST_IP, HOST_IP, PREFIX};
use crate::paths::{RunDir, make_private_dir};
use crate::{
    AccessToken, BootPath, CreateVm, CreatedVm, GuestClient, GuestError, GuestErrorKind, Identity,
    StageTimings, StartFrom, Template,
};
use flames_guest::control::{Greeting, InitRequest};
use flames_vmm::{
    AgentReady, BootChannel, Disk, DiskAccess, Error, ErrorKind, PrepareFor, PreparedVm, Result, RunningVm,
    StopDeadlines, VmSpec,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
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

const STEPS: [Step; 7] = [
    Step { name: CreateStep::Admit, wait: Wait::Short, run: |c| c.admit().boxed(), undo: nothing },
    Step { name: CreateStep::Template, wait: Wait::Short, run: |c| c.find_template().boxed(), undo: nothing },
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
    // What these two make lives in the VM, and ends with it.
    Step { name: CreateStep::Boot, wait: Wait::Long, run: |c| c.boot().boxed(), undo: nothing },
    Step { name: CreateStep::AgentInit, wait: Wait::Long, run: |c| c.init_agent().boxed(), undo: nothing },
];

/// Nothing was made, or it goes with what an earlier step made.
fn nothing(_: &mut Creation) -> BoxFuture<'_, Result<()>> {
    std::future::ready(Ok(())).boxed()
}

/// A create under way: what was asked for, and what was made so far.
pub(super) struct Creation {
    node: Arc<Inner>,
    request: CreateVm,
    control: AccessToken,
    timings: StageTimings,
    template: Option<Template>,
    line: Option<Arc<Line>>,
    dir: Option<RunDir>,
    prepared: Option<Box<dyn PreparedVm>>,
    running: Option<(Arc<dyn RunningVm>, AgentReady)>,
    guest: Option<GuestClient>,
}

impl Creation {
    pub(super) fn new(node: Arc<Inner>, request: CreateVm) -> Result<Self> {
        Ok(Self {
            control: crate::secret::new_token()?,
            node,
            request,
            timings: StageTimings::default(),
            template: None,
            line: None,
            dir: None,
            prepared: None,
            running: None,
            guest: None,
        })
    }

    /// Runs the steps; after a failure or a cancel, undoes what was done, last first.
    pub(super) async fn run(mut self, cancel: &CancellationToken) -> Result<CreatedVm, CreateError> {
        for (index, step) in STEPS.iter().enumerate() {
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
        self.hand_out().map_err(|error| CreateStep::AgentInit.failed(error))
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
        self.node.assets.check()?;
        self.node.disks.admit(self.request.disk)
    }

    async fn find_template(&mut self) -> Result<()> {
        let StartFrom::Template(name) = &self.request.from else {
            return Err(Error::new(ErrorKind::Unsupported, "snapshot", "").detail("this node takes none yet"));
        };
        self.template = Some(self.node.templates.find(name).await?);
        Ok(())
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
        let dir = self.node.data.run(&self.request.run)?;
        if dir.path().exists() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "run directory",
                dir.path().display().to_string(),
            ));
        }
        make_private_dir(dir.path())?;
        self.dir = Some(dir.clone());
        self.record(Phase::Creating)?.write(&dir)?;
        self.node.disks.create(&dir.disk(), self.request.disk).await?;
        self.timings.disk_ms = ms_since(start);
        Ok(())
    }

    async fn remove_run_dir(&mut self) -> Result<()> {
        let Some(dir) = self.dir.take() else { return Ok(()) };
        blocking("run directory", move || remove_run_dir(&dir)).await
    }

    async fn spawn_vmm(&mut self) -> Result<()> {
        let start = Instant::now();
        let spec = self.spec()?;
        self.prepared = Some(self.node.driver.prepare(spec, PrepareFor::Boot).await?);
        self.timings.vmm_spawn_ms = ms_since(start);
        Ok(())
    }

    /// Ends the VMM in whatever phase it is and waits until it is gone: the network behind it is taken
    /// apart next (hazard C5).
    async fn end_vmm(&mut self) -> Result<()> {
        drop(self.prepared.take()); // kills it, or leaves it to the handle
        if let Some((vm, _)) = self.running.take() {
            return vm.stop(StopDeadlines::KILL).await.map(drop);
        }
        match &self.dir {
            Some(dir) => self.node.end_by_handle(dir).await,
            None => Ok(()),
        }
    }

    async fn boot(&mut self) -> Result<()> {
        let start = Instant::now();
        let prepared = self.prepared.take().ok_or_else(|| missing("prepared VM"))?;
        let work = async { prepared.boot().await?.ready().await };
        let deadline = self.request.boot_deadline;
        let (vm, ready) = match tokio::time::timeout(deadline, work).await {
            Ok(booted) => booted?,
            Err(_) => return Err(self.boot_timeout()),
        };
        self.running = Some((Arc::from(vm), ready));
        self.timings.kernel_to_agent_ms = ms_since(start);
        Ok(())
    }

    fn boot_timeout(&self) -> Error {
        let console = self.dir.as_ref().map(|dir| super::console_tail(dir, 2048)).unwrap_or_default();
        Error::new(ErrorKind::Timeout, "guest", self.request.run.as_str()).operation("boot").detail(format!(
            "the agent did not report within {} s; the console ends with: {}",
            self.request.boot_deadline.as_secs_f64(),
            String::from_utf8_lossy(&console).trim()
        ))
    }

    async fn init_agent(&mut self) -> Result<()> {
        let start = Instant::now();
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        let guest = line.client(self.request.access_token.clone());
        let init = self.init_request()?;
        let answer =
            guest.init(&self.control, &init).await.map_err(|error| init_error(&self.request, error))?;
        if !answer.entropy_credited {
            // Hazard C1: a guest whose generator did not take the host's entropy is never handed out.
            return Err(Error::new(ErrorKind::Internal, "guest", self.request.run.as_str())
                .detail("the guest's kernel did not take the entropy"));
        }
        self.guest = Some(guest); // with its open connection: the first command need not wait for one
        self.timings.agent_init_ms = ms_since(start);
        let dir = self.dir.as_ref().ok_or_else(|| missing("run directory"))?;
        self.record(Phase::HandedOut)?.write(dir)
    }

    fn init_request(&self) -> Result<InitRequest> {
        Ok(InitRequest {
            entropy: Some(crate::secret::random_bytes::<32>()?.to_vec()),
            access_token: Some(self.request.access_token.expose().to_owned()),
            env_vars: self.request.env.clone(),
            hostname: Some(self.request.hostname.clone()),
            default_user: self.request.default_user.clone(),
            default_workdir: self.request.default_workdir.clone(),
            renew_machine_id: self.request.identity == Identity::New,
            time_unix_nanos: unix_nanos(), // last: every microsecond before the call is skew
            ..InitRequest::default()
        })
    }

    /// The run is the node's from here on.
    fn hand_out(mut self) -> Result<CreatedVm, Error> {
        let record = self.record(Phase::HandedOut)?;
        let line = self.line.take().ok_or_else(|| missing("network"))?;
        let dir = self.dir.take().ok_or_else(|| missing("run directory"))?;
        let guest = self.guest.take().ok_or_else(|| missing("guest client"))?;
        let (vm, _) = self.running.take().ok_or_else(|| missing("running VM"))?;
        let facts = record.facts(&dir, vm.handle().pid);
        self.node.own(Arc::new(Run::new(record, dir, vm, line, guest)));
        let (path, why) = (BootPath::Cold, String::new());
        Ok(CreatedVm { run: self.request.run, path, why, timings: self.timings, facts })
    }

    fn record(&self, phase: Phase) -> Result<RunRecord> {
        let template = self.template.as_ref().ok_or_else(|| missing("template"))?;
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        Ok(RunRecord {
            run: self.request.run.clone(),
            phase,
            driver: self.node.driver.name().to_owned(),
            vcpus: self.request.vcpus,
            memory: self.request.memory,
            disk: self.request.disk,
            template: template.name.clone(),
            template_sha256: template.sha256.clone(),
            agent_version: self.running.as_ref().map(|(_, ready)| ready.version.clone()).unwrap_or_default(),
            lease: line.lease.record(),
            access_token: self.request.access_token.clone(),
            control_token: self.control.clone(),
        })
    }

    fn spec(&self) -> Result<VmSpec> {
        let template = self.template.as_ref().ok_or_else(|| missing("template"))?;
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        let dir = self.dir.as_ref().ok_or_else(|| missing("run directory"))?;
        let greeting = Greeting { control_token: self.control.expose().to_owned() };
        let greeting = serde_json::to_string(&greeting).map_err(|error| missing("greeting").source(error))?;
        let disk = |path, access| Disk { path, access };
        Ok(VmSpec {
            id: self.request.run.clone(),
            run_dir: dir.path().to_owned(),
            vcpus: self.request.vcpus,
            memory: self.request.memory,
            kernel: self.node.assets.kernel(),
            kernel_args: kernel_args(),
            // The guest's order: the agent's disk is the kernel's root, then the image, then what is its own.
            disks: vec![
                disk(self.node.assets.agent(), DiskAccess::ReadOnly),
                disk(template.image.clone(), DiskAccess::ReadOnly),
                disk(dir.disk(), DiskAccess::ReadWrite),
            ],
            network: line.lease.network(),
            boot_channel: BootChannel { greeting },
            console_limit_bytes: self.node.config.console_limit_bytes,
        })
    }
}

/// What the guest's user space wants on the kernel command line.
fn kernel_args() -> Vec<String> {
    let mut arguments: Vec<String> =
        ["root=/dev/vda", "rootfstype=erofs", "ro", "init=/flames-guest"].map(str::to_owned).into();
    arguments.push(format!("flames.net={GUEST_IP}/{PREFIX},{HOST_IP}"));
    arguments
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or_default()
}

fn cancelled(request: &CreateVm) -> Error {
    Error::new(ErrorKind::Conflict, "run", request.run.as_str()).operation("create").detail("was cancelled")
}

/// A step that finds nothing of the step before it: a fault of this file.
fn missing(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what, "").operation("create").detail("was not made by the step before")
}

fn init_error(request: &CreateVm, error: GuestError) -> Error {
    let kind = match error.kind() {
        GuestErrorKind::InvalidArgument | GuestErrorKind::NotFound => ErrorKind::InvalidInput,
        GuestErrorKind::Unavailable => ErrorKind::Unavailable,
        GuestErrorKind::DeadlineExceeded => ErrorKind::Timeout,
        _ => ErrorKind::Internal,
    };
    let detail = error.message().to_owned();
    Error::new(kind, "guest", request.run.as_str()).operation("init").detail(detail).source(error)
}
