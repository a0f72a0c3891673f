//! A VM in its phases. All three own the same [`Vm`]; what differs is what may be asked of it.

use crate::boot::BootSocket;
use crate::console::Console;
use crate::driver::{NAME, unavailable};
use crate::exit::guest_end;
use crate::files;
use crate::qmp::{Qmp, QmpError, RunState};
use async_trait::async_trait;
use flames_vmm::boot::BootError;
use flames_vmm::end::Ending;
use flames_vmm::jail::Access;
use flames_vmm::log;
use flames_vmm::process::Process;
use flames_vmm::{
    AgentReady, BootingVm, Error, ErrorKind, Exit, PreparedVm, Result, RunningVm, SnapshotParts,
    StopDeadlines, VmDescription, VmHandle, VmId, VmState,
};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};

/// A QEMU process that waits to be told to run its guest.
#[derive(Debug)]
pub(crate) struct Prepared {
    vm: Vm,
    then: Then,
}

/// What a prepared VM waits for.
#[derive(Debug)]
pub(crate) enum Then {
    /// To be told to boot; its agent is greeted so.
    Boot {
        greeting: String,
    },
    Restore,
}

/// A guest on its way to its agent.
#[derive(Debug)]
struct Booting {
    vm: Vm,
    greeting: String,
}

/// A QEMU process and the three lines to it.
#[derive(Debug)]
pub(crate) struct Vm {
    id: VmId,
    run_dir: PathBuf,
    /// What clones that have a user of their own do with the memory of a snapshot.
    pub(crate) clones: Option<Access>,
    pub(crate) process: Process,
    pub(crate) qmp: Qmp,
    /// Held by whoever switches the virtual CPUs on or off, or needs them to stay as they are.
    pub(crate) switch: Mutex<()>,
    boot: Mutex<BootSocket>,
    console: Console,
    ending: Ending,
    exit: OnceCell<Exit>,
}

/// What is to be known of a VM beside its process.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    pub(crate) id: VmId,
    pub(crate) console_limit: u64,
    /// For one answer of QEMU's.
    pub(crate) timeout: Duration,
    /// What clones that have a user of their own do with the memory of a snapshot.
    pub(crate) clones: Option<Access>,
}

impl Prepared {
    pub(crate) fn new(vm: Vm, then: Then) -> Self {
        Self { vm, then }
    }
}

#[async_trait]
impl PreparedVm for Prepared {
    async fn boot(self: Box<Self>) -> Result<Box<dyn BootingVm>> {
        let Self { vm, then } = *self;
        let Then::Boot { greeting } = then else {
            return Err(vm.error(ErrorKind::InvalidInput, "boot").detail("it was prepared for a restore"));
        };
        vm.checked("boot", vm.qmp.cont().await).await?;
        Ok(Box::new(Booting { vm, greeting }))
    }

    async fn restore(self: Box<Self>) -> Result<Box<dyn RunningVm>> {
        let Self { vm, then } = *self;
        if !matches!(then, Then::Restore) {
            return Err(vm.error(ErrorKind::InvalidInput, "restore").detail("it was prepared for a boot"));
        }
        vm.checked("restore", vm.qmp.cont().await).await?;
        vm.process.outlive_the_daemon();
        Ok(Box::new(vm))
    }
}

#[async_trait]
impl BootingVm for Booting {
    async fn ready(self: Box<Self>) -> Result<(Box<dyn RunningVm>, AgentReady)> {
        let Self { vm, greeting } = *self;
        let answered = vm.boot.lock().await.greet(&greeting).await;
        match answered {
            Ok(ready) => {
                vm.process.outlive_the_daemon();
                Ok((Box::new(vm), ready))
            }
            Err(error) => Err(vm.never_ready(error).await),
        }
    }
}

impl Vm {
    /// Connects to a QEMU that was just started. A QEMU that could not start has closed its sockets, and the
    /// error quotes what it printed.
    pub(crate) async fn attach(run_dir: &Path, process: Process, with: Attach) -> Result<Self> {
        match Self::connect(run_dir, &with).await {
            Ok(lines) => Ok(Self::new(run_dir, process, lines, with)),
            Err(error) => {
                process.kill();
                process.ended().await;
                // Once more: it may have ended before its handle was written.
                files::remove_live_files(run_dir);
                let said = log::tail(&run_dir.join(files::VMM_LOG)).await;
                Err(unavailable(with.id.as_str(), &format!("QEMU does not start: {said}"), error))
            }
        }
    }

    /// Connects to a QEMU that an earlier daemon started.
    pub(crate) async fn attach_again(run_dir: &Path, process: Process, with: Attach) -> Result<Self> {
        let lines = Self::connect(run_dir, &with)
            .await
            .map_err(|error| unavailable(with.id.as_str(), "its process lives and does not answer", error))?;
        Ok(Self::new(run_dir, process, lines, with))
    }

    async fn connect(run_dir: &Path, with: &Attach) -> Result<Lines, QmpError> {
        let (qmp, boot) = (run_dir.join(files::QMP), run_dir.join(files::BOOT));
        let console = Console::attach(run_dir, with.console_limit).await.map_err(QmpError::Connect)?;
        let boot = BootSocket::connect(&boot).await.map_err(QmpError::Connect)?;
        Ok(Lines { qmp: Qmp::connect(&qmp, with.timeout).await?, boot, console })
    }

    fn new(run_dir: &Path, process: Process, lines: Lines, with: Attach) -> Self {
        let Lines { qmp, boot, console } = lines;
        Self {
            id: with.id,
            run_dir: run_dir.to_owned(),
            clones: with.clones,
            process,
            qmp,
            switch: Mutex::default(),
            boot: Mutex::new(boot),
            console,
            ending: Ending::default(),
            exit: OnceCell::new(),
        }
    }

    /// Ends it, and waits for the end.
    pub(crate) async fn end(&self) {
        self.process.kill();
        self.process.ended().await;
    }

    pub(crate) fn run_dir(&self) -> &Path {
        &self.run_dir
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
        if self.qmp.run_state().await.ok() != Some(RunState::Running) {
            return;
        }
        let asked = self.boot.lock().await.ask_to_shut_down().await;
        match asked {
            Ok(()) => {
                let _status = self.process.ended().await;
            }
            Err(error) => tracing::debug!(vm = %self.id, %error, "cannot ask the guest to shut down"),
        }
    }

    /// Puts the story of an end together once, when all that could be said has arrived.
    async fn reconstruct_exit(&self) -> Exit {
        let status = self.process.ended().await;
        let seen = self.qmp.seen_to_the_end().await;
        self.console.finished().await;
        let console_tail = self.console.tail().await;
        let cause = self.ending.cause(guest_end(seen.shutdown_reason.as_deref()), status, &console_tail);
        let vmm_said = log::tail(&self.run_dir.join(files::VMM_LOG)).await;
        Exit { cause, last_output: format!("{console_tail}\n{vmm_said}").trim().to_owned() }
    }

    /// Puts a failed command into words: a VMM that is gone says why it went.
    pub(crate) async fn checked<T>(
        &self,
        operation: &'static str,
        outcome: Result<T, QmpError>,
    ) -> Result<T> {
        let error = match outcome {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        Err(match error {
            QmpError::Closed | QmpError::Connect(_) => {
                let exit = self.exited().await;
                let detail = format!("the VMM ended ({:?}): {}", exit.cause, exit.last_output);
                self.error(ErrorKind::Unavailable, operation).detail(detail)
            }
            QmpError::Timeout { .. } => self.error(ErrorKind::Timeout, operation).detail(error.to_string()),
            QmpError::Refused { .. } => {
                self.error(ErrorKind::Unavailable, operation).detail(error.to_string())
            }
            QmpError::Protocol(_) => self.error(ErrorKind::Internal, operation).detail(error.to_string()),
        })
    }

    pub(crate) fn error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        Error::new(kind, "vm", self.id.as_str()).adapter(NAME).operation(operation)
    }
}

#[async_trait]
impl RunningVm for Vm {
    fn handle(&self) -> VmHandle {
        self.process.handle(NAME, &self.id, &self.run_dir)
    }

    async fn pause(&self) -> Result<()> {
        let _alone = self.switch.lock().await;
        self.checked("pause", self.qmp.stop().await).await
    }

    async fn resume(&self) -> Result<()> {
        let _alone = self.switch.lock().await;
        self.checked("resume", self.qmp.cont().await).await
    }

    async fn snapshot(&self, into: &Path) -> Result<SnapshotParts> {
        self.write_snapshot(into).await.map_err(|error| error.adapter(NAME).operation("snapshot"))
    }

    async fn describe(&self) -> Result<VmDescription> {
        let state = match self.checked("describe", self.qmp.run_state().await).await? {
            RunState::Running => VmState::Running,
            RunState::Paused | RunState::Other => VmState::Paused,
        };
        let vmm_version = self.qmp.version().to_owned();
        Ok(VmDescription { state, pid: self.process.pid(), vmm_version })
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

/// The connections to a QEMU process.
struct Lines {
    qmp: Qmp,
    boot: BootSocket,
    console: Console,
}
