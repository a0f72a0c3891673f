//! A VM in its phases. All three own the same [`Vm`]; what differs is what may be asked of it.

use crate::api::{
    ActionType, Api, ApiError, InstanceActionInfo, InstanceState, SnapshotCreateParams, SnapshotLoadParams,
    SnapshotType, Vm as VmTargetState, VmTarget,
};
use crate::boot::BootLine;
use crate::config::FirecrackerConfig;
use crate::console::{self, Kept, Times, Told};
use crate::driver::{NAME, unavailable};
use crate::faults::Handler;
use crate::files;
use crate::left::Resources;
use crate::live::{self, Change};
use crate::machine::Setting;
use crate::snapshot::{Inside, make_readable};
use async_trait::async_trait;
use flames_vmm::boot::BootError;
use flames_vmm::end::{Ending, GuestEnd};
use flames_vmm::log;
use flames_vmm::process::{Process, Status};
use flames_vmm::{
    AgentReady, BootingVm, CONSOLE_FILE, Error, ErrorKind, Exit, ExitCause, PreparedVm, Result, RunningVm,
    SnapshotParts, StopDeadlines, UnfinishedParts, VmDescription, VmHandle, VmId, VmState,
};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell, watch};

/// A Firecracker that waits to be told to run its guest.
#[derive(Debug)]
pub(crate) struct Prepared {
    vm: Vm,
    purpose: Purpose,
}

/// What it was prepared for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The machine is set up.
    Boot {
        greeting: String,
    },
    /// The snapshot of a guest that waits for its greeting stands for its kernel's boot.
    BootClone {
        load: SnapshotLoadParams,
        greeting: String,
    },
    Restore {
        load: SnapshotLoadParams,
        parts: SnapshotParts,
    },
}

/// A guest on its way to its agent.
#[derive(Debug)]
struct Booting {
    vm: Vm,
    greeting: String,
}

/// A Firecracker process and the lines to it.
#[derive(Debug)]
pub(crate) struct Vm {
    id: VmId,
    resources: Resources,
    process: Process,
    handler: Option<Handler>,
    version: String,
    config: Arc<FirecrackerConfig>,
    /// Where written pages are tracked.
    tracked: Option<Tracked>,
    lines: Lines,
    ending: Ending,
    exit: OnceCell<Exit>,
}

/// The snapshot from which this VM differs by the pages that were written since; none is known of one that booted, or
/// that an earlier daemon started.
#[derive(Debug, Default)]
pub(crate) struct Tracked(Mutex<Option<File>>);

impl Tracked {
    pub(crate) fn since(memory: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(Some(File::open(memory)?))))
    }
}

/// What a VM needs to be attached to.
#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) id: VmId,
    pub(crate) resources: Resources,
    pub(crate) handler: Option<Handler>,
    pub(crate) tracked: Option<Tracked>,
    pub(crate) version: String,
    pub(crate) console_limit: u64,
    pub(crate) config: Arc<FirecrackerConfig>,
}

/// The connections to a Firecracker.
#[derive(Debug)]
struct Lines {
    api: Api,
    boot: Mutex<BootLine>,
    console: Kept,
    log: Kept,
    told: watch::Receiver<Told>,
    _metrics: Kept,
}

/// With what a VMM is ended whose guest would hang.
const SIGKILL: i32 = 9;

/// How much of Firecracker's own log is kept, and as much of its metrics.
const LOG_LIMIT: u64 = 256 * 1024;

impl Prepared {
    pub(crate) fn new(vm: Vm, purpose: Purpose) -> Self {
        Self { vm, purpose }
    }
}

#[async_trait]
impl PreparedVm for Prepared {
    async fn boot(self: Box<Self>) -> Result<Box<dyn BootingVm>> {
        let Self { vm, purpose } = *self;
        let greeting = match purpose {
            Purpose::Boot { greeting } => {
                let start = InstanceActionInfo { action_type: ActionType::InstanceStart };
                vm.checked("boot", vm.lines.api.put("/actions", &start).await).await?;
                greeting
            }
            Purpose::BootClone { load, greeting } => {
                vm.checked("boot", vm.lines.api.put("/snapshot/load", &load).await).await?;
                vm.bring_up_to_date("boot").await?;
                greeting
            }
            Purpose::Restore { .. } => return Err(vm.misused("boot", "it was prepared for a restore")),
        };
        Ok(Box::new(Booting { vm, greeting }))
    }

    async fn restore(self: Box<Self>) -> Result<Box<dyn RunningVm>> {
        let Self { vm, purpose } = *self;
        let Purpose::Restore { load, parts } = purpose else {
            return Err(vm.misused("restore", "it was prepared for a boot"));
        };
        match vm.lines.api.put("/snapshot/load", &load).await {
            Err(ApiError::Refused { fault, .. }) => {
                let detail = format!("Firecracker cannot use it: {fault}; boot instead");
                let part = parts.device_state.display().to_string();
                Err(Error::new(ErrorKind::Corrupt, "snapshot part", part)
                    .adapter(NAME)
                    .operation("restore")
                    .detail(detail))
            }
            outcome => {
                vm.checked("restore", outcome).await?;
                vm.bring_up_to_date("restore").await?;
                vm.process.outlive_the_daemon();
                Ok(Box::new(vm))
            }
        }
    }
}

#[async_trait]
impl BootingVm for Booting {
    async fn ready(self: Box<Self>) -> Result<(Box<dyn RunningVm>, AgentReady)> {
        let Self { vm, greeting } = *self;
        let answered = vm.lines.boot.lock().await.greet(&greeting).await;
        match answered {
            Ok(ready) => {
                vm.process.outlive_the_daemon();
                Ok((Box::new(vm), ready))
            }
            Err(error) => Err(vm.never_ready(error).await),
        }
    }
}

impl Lines {
    /// Opens the pipes. The reading ends come first: from then on nothing that is written is lost.
    async fn open(with: &Attach) -> io::Result<OpenLines> {
        let Resources { run_dir, cage, .. } = &with.resources;
        let (pass, records) = console::records();
        let path = run_dir.join(CONSOLE_FILE);
        let console =
            Kept::attach(&run_dir.join(files::CONSOLE_OUT), path, with.console_limit, Times::Kept, pass)
                .await?;
        let (pass, told) = console::told();
        let path = run_dir.join(files::VMM_LOG);
        let log = Kept::attach(&cage.join(files::LOG_PIPE), path, LOG_LIMIT, Times::Not, pass).await?;
        let path = run_dir.join(files::METRICS_LOG);
        let metrics =
            Kept::attach(&cage.join(files::METRICS_PIPE), path, LOG_LIMIT, Times::Not, <[u8]>::to_vec)
                .await?;
        let boot = BootLine::open(&run_dir.join(files::CONSOLE_IN), records)?;
        Ok(OpenLines { boot, console, log, told, metrics })
    }
}

/// The connections but for the API, which takes a moment to be there.
struct OpenLines {
    boot: BootLine,
    console: Kept,
    log: Kept,
    told: watch::Receiver<Told>,
    metrics: Kept,
}

/// Why a Firecracker that was started cannot be spoken to.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error("cannot open its pipes")]
    Pipes(#[source] io::Error),
    #[error("it ended")]
    Ended,
    #[error("it did not serve its API within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl Vm {
    /// Waits for a Firecracker that was just started and connects to it. The error of one that could not start
    /// quotes what it printed.
    pub(crate) async fn attach(with: Attach, process: Process) -> Result<Self> {
        match Self::lines(&with, &process, Waiting::ForItsWord).await {
            Ok(lines) => Ok(Self::new(with, process, lines)),
            Err(error) => {
                process.kill();
                process.ended().await;
                let run_dir = &with.resources.run_dir;
                let said = log::tail(&run_dir.join(files::STDERR)).await;
                let logged = log::tail(&run_dir.join(files::VMM_LOG)).await;
                let what = format!("Firecracker does not start: {said} {logged}");
                Err(unavailable(with.id.as_str(), what.trim(), error))
            }
        }
    }

    /// Ends it, and waits for the end.
    pub(crate) async fn end(&self) {
        self.process.kill();
        self.process.ended().await;
    }

    /// Connects to a Firecracker that an earlier daemon started.
    pub(crate) async fn attach_again(with: Attach, process: Process) -> Result<Self> {
        let lines = Self::lines(&with, &process, Waiting::ForNothing)
            .await
            .map_err(|error| unavailable(with.id.as_str(), "its process lives and does not answer", error))?;
        let vm = Self::new(with, process, lines);
        if let Err(error) = vm.bring_up_to_date("adopt").await {
            tracing::warn!(vm = %vm.id, %error, "its limits stay those of an earlier daemon");
        }
        Ok(vm)
    }

    async fn lines(with: &Attach, process: &Process, waiting: Waiting) -> Result<Lines, AttachError> {
        let mut open = Lines::open(with).await.map_err(AttachError::Pipes)?;
        if waiting == Waiting::ForItsWord {
            let serving = open.told.wait_for(|told| told.serving);
            let timeout = with.config.command_timeout();
            let in_time = tokio::time::timeout(timeout, async {
                tokio::select! {
                    Ok(_) = serving => Ok(()),
                    _ended = process.ended() => Err(AttachError::Ended),
                }
            });
            in_time.await.map_err(|_| AttachError::Timeout(timeout))??;
        }
        let socket = with.resources.run_dir.join(files::API);
        let api = Api::connect(&socket, with.config.command_timeout()).await?;
        let OpenLines { boot, console, log, told, metrics } = open;
        Ok(Lines { api, boot: Mutex::new(boot), console, log, told, _metrics: metrics })
    }

    fn new(with: Attach, process: Process, lines: Lines) -> Self {
        let Attach { id, resources, handler, tracked, version, config, .. } = with;
        let (ending, exit) = (Ending::default(), OnceCell::new());
        if let Some(handler) = &handler {
            handler.guard(process.grip());
        }
        Self { id, resources, process, handler, version, config, tracked, lines, ending, exit }
    }

    /// Sets the machine up.
    pub(crate) async fn set(&self, settings: &[Setting]) -> Result<()> {
        for setting in settings {
            let outcome = self.lines.api.put(&setting.path, &setting.value).await;
            self.checked("prepare", outcome).await?;
        }
        Ok(())
    }

    /// Gives a guest that this daemon did not boot what today's settings ask for.
    async fn bring_up_to_date(&self, operation: &'static str) -> Result<()> {
        let in_force = self.checked(operation, self.lines.api.get("/vm/config").await).await?;
        let changes = live::changes(&in_force, &self.config).map_err(|error| {
            self.error(ErrorKind::Internal, operation).detail("its settings are no JSON").source(error)
        })?;
        for change in changes {
            let outcome = match change {
                Change::Patch(Setting { path, value }) => self.lines.api.patch(&path, &value).await,
                Change::Put(Setting { path, value }) => self.lines.api.put(&path, &value).await,
            };
            self.checked(operation, outcome).await?;
        }
        Ok(())
    }

    /// The guest failed before its agent served. Whatever it was, the VM ends here.
    async fn never_ready(&self, error: BootError) -> Error {
        let vmm_left = matches!(error, BootError::Closed | BootError::Broken(_));
        if !vmm_left {
            self.process.kill();
        }
        let exit = self.exited().await;
        let what = if vmm_left { format!("the VMM ended ({:?})", exit.cause) } else { error.to_string() };
        let detail = format!("{what}; its last lines: {}", exit.last_output);
        self.error(ErrorKind::Unavailable, "ready").detail(detail).source(error)
    }

    /// Asks the agent to end the guest and waits for as long as the caller does. A paused guest cannot hear.
    async fn end_gracefully(&self) {
        if self.state().await.ok() != Some(VmState::Running) {
            return;
        }
        let asked = self.lines.boot.lock().await.ask_to_shut_down().await;
        match asked {
            Ok(()) => {
                let _status = self.process.ended().await;
            }
            Err(error) => tracing::debug!(vm = %self.id, %error, "cannot ask the guest to shut down"),
        }
    }

    async fn state(&self) -> Result<VmState, ApiError> {
        Ok(match self.lines.api.instance().await?.state {
            InstanceState::Running => VmState::Running,
            InstanceState::Paused | InstanceState::NotStarted => VmState::Paused,
        })
    }

    async fn change_to(&self, operation: &'static str, state: VmTarget) -> Result<()> {
        let outcome = self.lines.api.patch("/vm", &VmTargetState { state }).await;
        self.checked(operation, outcome).await
    }

    /// Puts the story of an end together once, when all that could be said has arrived.
    async fn reconstruct_exit(&self) -> Exit {
        let status = self.process.ended().await;
        if let Some(handler) = &self.handler {
            handler.end().await;
        }
        self.lines.log.finished().await;
        self.lines.console.finished().await;
        let console_tail = self.lines.console.tail().await;
        let failed = self.handler.as_ref().and_then(Handler::failed);
        let cause = match failed {
            // Its guest would have hung; how it was ended is known also where nobody could see that.
            Some(_) => ExitCause::Crashed { code: None, signal: Some(SIGKILL) },
            None => self.ending.cause(self.guest_end(status), status, &console_tail),
        };
        let mut printed = log::tail(&self.resources.run_dir.join(files::STDERR)).await;
        if let Some(status) = failed {
            let said = log::tail(&self.resources.run_dir.join(files::FAULTS_LOG)).await;
            printed += &format!("\nits page-fault handler ended ({status:?}), and so it was ended: {said}");
        }
        Exit { cause, last_output: format!("{console_tail}\n{printed}").trim().to_owned() }
    }

    /// It logs that it ends because its guest did, which is known also of a process that was not our child.
    fn guest_end(&self, status: Status) -> GuestEnd {
        let told = self.lines.told.borrow().guest_ended;
        if told || status == Status::Exited(0) { GuestEnd::Ended } else { GuestEnd::Untold }
    }

    /// What the next snapshot is to hold: only what was written since the last one, where that is known. Until it is
    /// whole nothing is known: what fails half way may have taken note of pages that were never written.
    async fn lay_base(&self, inside: &Inside) -> SnapshotType {
        let Some(tracked) = &self.tracked else { return SnapshotType::Full };
        let Some(base) = tracked.0.lock().await.take() else { return SnapshotType::Full };
        match inside.lay_base(base).await {
            Ok(()) => SnapshotType::Diff,
            Err(error) => {
                tracing::warn!(vm = %self.id, %error, "cannot copy the last snapshot: all of the memory is written");
                SnapshotType::Full
            }
        }
    }

    async fn track_from(&self, memory: &Path) {
        if let Some(tracked) = &self.tracked {
            *tracked.0.lock().await = File::open(memory).ok();
        }
    }

    /// Puts a failed request into words: a VMM that is gone says why it went.
    async fn checked<T>(&self, operation: &'static str, outcome: Result<T, ApiError>) -> Result<T> {
        let error = match outcome {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        Err(match &error {
            ApiError::Closed(_) | ApiError::Connect(_) => {
                let exit = self.exited().await;
                let detail = format!("the VMM ended ({:?}): {}", exit.cause, exit.last_output);
                self.error(ErrorKind::Unavailable, operation).detail(detail).source(error)
            }
            ApiError::Timeout { .. } => self.error(ErrorKind::Timeout, operation).detail(error.to_string()),
            ApiError::Refused { .. } => {
                self.error(ErrorKind::Unavailable, operation).detail(error.to_string())
            }
            ApiError::Garbled { .. } => {
                self.error(ErrorKind::Internal, operation).detail(error.to_string()).source(error)
            }
        })
    }

    fn misused(&self, operation: &'static str, why: &str) -> Error {
        self.error(ErrorKind::InvalidInput, operation).detail(why)
    }

    fn error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        Error::new(kind, "vm", self.id.as_str()).adapter(NAME).operation(operation)
    }
}

/// What to wait for before the API is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    ForItsWord,
    ForNothing,
}

#[async_trait]
impl RunningVm for Vm {
    fn handle(&self) -> VmHandle {
        self.process.handle(NAME, &self.id, &self.resources.run_dir)
    }

    async fn pause(&self) -> Result<()> {
        self.change_to("pause", VmTarget::Paused).await
    }

    async fn resume(&self) -> Result<()> {
        self.change_to("resume", VmTarget::Resumed).await
    }

    async fn snapshot(&self, into: &Path) -> Result<SnapshotParts> {
        if self.checked("snapshot", self.state().await).await? != VmState::Paused {
            return Err(self.error(ErrorKind::Conflict, "snapshot").detail("the VM is not paused"));
        }
        let parts = UnfinishedParts::create(into)?;
        let inside = Inside::new(&self.resources.cage);
        let create = SnapshotCreateParams {
            snapshot_path: files::NEW_STATE.to_owned(),
            mem_file_path: files::NEW_MEMORY.to_owned(),
            snapshot_type: Some(self.lay_base(&inside).await),
        };
        match self.lines.api.put_within("/snapshot/create", &create, self.config.snapshot_timeout()).await {
            Err(ApiError::Refused { fault, .. }) => Err(UnfinishedParts::cannot_write(parts.memory(), fault)),
            outcome => {
                self.checked("snapshot", outcome).await?;
                let parts = inside.take_out(parts, &self.version).await?;
                self.track_from(&parts.memory).await;
                if self.resources.held.claim.is_some() {
                    // Now and not when the first clone is made: whoever keeps a hash of it watches for changes.
                    let shared = make_readable(&parts);
                    shared.map_err(|error| UnfinishedParts::cannot_write(&parts.memory, error))?;
                }
                Ok(parts)
            }
        }
    }

    async fn describe(&self) -> Result<VmDescription> {
        let state = self.checked("describe", self.state().await).await?;
        Ok(VmDescription { state, pid: self.process.pid(), vmm_version: self.version.clone() })
    }

    async fn stop(&self, deadlines: StopDeadlines) -> Result<Exit> {
        let stopped = self.ending.stop(&self.process, deadlines, self.end_gracefully()).await;
        stopped.map_err(|error| self.error(ErrorKind::Timeout, "stop").detail(error.to_string()))?;
        Ok(self.exited().await)
    }

    async fn exited(&self) -> Exit {
        self.exit.get_or_init(|| self.reconstruct_exit()).await.clone()
    }
}
