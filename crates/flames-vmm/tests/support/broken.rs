//! A driver that breaks one promise, to prove that the suite notices.

use super::FakeFactory;
use async_trait::async_trait;
use flames_vmm::conformance::{Factory, Guest};
use flames_vmm::{
    AgentReady, BootingVm, Capabilities, Error, ErrorKind, Exit, ExitCause, HANDLE_FILE, PrepareFor,
    PreparedVm, Result, RunningVm, SnapshotParts, StopDeadlines, UnfinishedParts, VmDescription, VmHandle,
    VmSpec, VmState, VmmDriver,
};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What is broken. Each is caught by the case of the suite that `tests/broken.rs` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    DescribesAnotherPid,
    PauseDoesNothing,
    SecondPauseFails,
    StopDoesNotAsk,
    StopNeverForces,
    StopWaitsForAPausedGuest,
    SecondStopDiffers,
    LateExitIsMissed,
    SecondWaiterIsTold,
    PanicLooksLikeShutdown,
    CrashHasNoOutput,
    ConsoleIsNotLimited,
    AnyFileIsAccepted,
    AnySizeIsAccepted,
    NoReasonIsGiven,
    AgentIsNotQuoted,
    ReadyWaitsForTheDead,
    NoHandleIsWritten,
    DroppedPreparedLives,
    DroppedBootingLives,
    DroppedRunningDies,
    AdoptedIsNotAsked,
    AdoptFailsForTheDead,
    AdoptsAnyPid,
    OnePidForAll,
    LeavesASocket,
    GoneAnswersOk,
    SnapshotWithoutCapability,
    SnapshotsWhatRuns,
    SnapshotEndsItsSource,
    SnapshotOverwrites,
    SnapshotLeavesAHalf,
    SnapshotOfACloneIsItsBase,
    RestoreBoots,
    RestoreWritesToTheMemory,
    RestoreTakesAnyParts,
}

#[derive(Debug)]
pub(crate) struct BrokenFactory {
    pub(crate) honest: Arc<FakeFactory>,
    pub(crate) breach: Breach,
}

#[async_trait]
impl Factory for BrokenFactory {
    fn driver(&self) -> Arc<dyn VmmDriver> {
        Arc::new(Broken { factory: self.honest.clone(), driver: self.honest.driver(), breach: self.breach })
    }

    async fn spec(&self, guest: Guest) -> VmSpec {
        self.honest.spec(guest).await
    }

    async fn crash(&self, handle: &VmHandle) {
        self.honest.crash(handle).await;
    }

    async fn is_alive(&self, handle: &VmHandle) -> bool {
        self.honest.is_alive(handle).await
    }

    async fn small_disk(&self) -> Option<PathBuf> {
        self.honest.small_disk().await
    }
}

#[derive(Debug)]
struct Broken {
    factory: Arc<FakeFactory>,
    driver: Arc<dyn VmmDriver>,
    breach: Breach,
}

#[derive(Debug)]
struct BrokenPrepared {
    inner: Option<Box<dyn PreparedVm>>,
    base: Option<SnapshotParts>,
    factory: Arc<FakeFactory>,
    breach: Breach,
}

#[derive(Debug)]
struct BrokenBooting {
    inner: Box<dyn BootingVm>,
    factory: Arc<FakeFactory>,
    breach: Breach,
}

#[derive(Debug)]
struct BrokenRunning {
    inner: Box<dyn RunningVm>,
    /// The parts it was restored from.
    base: Option<SnapshotParts>,
    factory: Arc<FakeFactory>,
    breach: Breach,
    calls: AtomicU32,
}

#[async_trait]
impl VmmDriver for Broken {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn capabilities(&self) -> Capabilities {
        let snapshots = self.breach != Breach::SnapshotWithoutCapability;
        Capabilities { snapshots, ..self.driver.capabilities() }
    }

    async fn version(&self) -> Result<String> {
        self.driver.version().await
    }

    async fn prepare(&self, mut spec: VmSpec, purpose: PrepareFor) -> Result<Box<dyn PreparedVm>> {
        let run_dir = spec.run_dir.clone();
        match self.breach {
            Breach::ConsoleIsNotLimited => spec.console_limit_bytes = u64::MAX,
            Breach::AnySizeIsAccepted => (spec.vcpus, spec.memory) = (1, flames_vmm::MiB(128)),
            Breach::AnyFileIsAccepted => {
                spec.kernel = self.factory.folder.path().join("vmlinux");
                spec.disks.clear();
            }
            _ => {}
        }
        let base = match &purpose {
            PrepareFor::Restore(parts) => Some(parts.clone()),
            PrepareFor::Boot => None,
        };
        let mut prepared = match self.breach {
            Breach::RestoreBoots => self.driver.prepare(spec.clone(), PrepareFor::Boot).await,
            _ => self.driver.prepare(spec.clone(), purpose).await,
        };
        if self.breach == Breach::RestoreTakesAnyParts && base.is_some() {
            prepared = self.driver.prepare(spec, PrepareFor::Boot).await;
        }
        let inner = prepared.map_err(|error| match self.breach {
            Breach::NoReasonIsGiven => Error::new(error.kind(), "vm", "x"),
            _ => error,
        })?;
        if self.breach == Breach::NoHandleIsWritten {
            std::fs::remove_file(run_dir.join(HANDLE_FILE)).unwrap();
        }
        Ok(Box::new(BrokenPrepared {
            inner: Some(inner),
            base,
            factory: self.factory.clone(),
            breach: self.breach,
        }))
    }

    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        let mut handle = handle.clone();
        if self.breach == Breach::AdoptsAnyPid {
            handle.start_ticks = u64::from(handle.pid) * 100;
            handle.executable = "/usr/bin/fake-vmm".into();
        }
        let adopted = self.driver.adopt(&handle).await?;
        if adopted.is_none() && self.breach == Breach::AdoptFailsForTheDead {
            return Err(Error::new(ErrorKind::NotFound, "vm", handle.id.as_str()));
        }
        Ok(adopted.map(|inner| running(inner, None, &self.factory, self.breach)))
    }
}

fn running(
    inner: Box<dyn RunningVm>,
    base: Option<SnapshotParts>,
    factory: &Arc<FakeFactory>,
    breach: Breach,
) -> Box<dyn RunningVm> {
    Box::new(BrokenRunning { inner, base, factory: factory.clone(), breach, calls: AtomicU32::new(0) })
}

#[async_trait]
impl PreparedVm for BrokenPrepared {
    async fn boot(mut self: Box<Self>) -> Result<Box<dyn BootingVm>> {
        let inner = self.inner.take().unwrap().boot().await?;
        Ok(Box::new(BrokenBooting { inner, factory: self.factory.clone(), breach: self.breach }))
    }

    async fn restore(mut self: Box<Self>) -> Result<Box<dyn RunningVm>> {
        let prepared = self.inner.take().unwrap();
        let vm = match self.breach {
            Breach::RestoreBoots | Breach::RestoreTakesAnyParts => prepared.boot().await?.ready().await?.0,
            _ => prepared.restore().await?,
        };
        if let (Some(base), Breach::RestoreWritesToTheMemory) = (&self.base, self.breach) {
            let memory = std::fs::File::options().write(true).open(&base.memory).unwrap();
            memory.write_all_at(b"!", base.memory.metadata().unwrap().len() - 1).unwrap();
        }
        Ok(running(vm, self.base.take(), &self.factory, self.breach))
    }
}

impl Drop for BrokenPrepared {
    fn drop(&mut self) {
        if self.breach == Breach::DroppedPreparedLives {
            std::mem::forget(self.inner.take());
        }
    }
}

#[async_trait]
impl BootingVm for BrokenBooting {
    async fn ready(self: Box<Self>) -> Result<(Box<dyn RunningVm>, AgentReady)> {
        let Self { inner, factory, breach } = *self;
        let outcome = match breach {
            // The task goes on when this future is dropped.
            Breach::DroppedBootingLives => tokio::spawn(inner.ready()).await.unwrap(),
            _ => inner.ready().await,
        };
        match (outcome, breach) {
            (Ok((vm, ready)), _) => Ok((running(vm, None, &factory, breach), ready)),
            (Err(_), Breach::ReadyWaitsForTheDead) => std::future::pending().await,
            (Err(_), Breach::AgentIsNotQuoted) => Err(Error::new(ErrorKind::Unavailable, "vm", "x")),
            (Err(error), _) => Err(error),
        }
    }
}

#[async_trait]
impl RunningVm for BrokenRunning {
    fn handle(&self) -> VmHandle {
        match self.breach {
            Breach::OnePidForAll => VmHandle { pid: 1, ..self.inner.handle() },
            _ => self.inner.handle(),
        }
    }

    async fn pause(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.breach {
            Breach::PauseDoesNothing | Breach::GoneAnswersOk => Ok(()),
            Breach::SecondPauseFails if call > 0 => Err(Error::new(ErrorKind::Conflict, "vm", "x")),
            _ => self.inner.pause().await,
        }
    }

    async fn resume(&self) -> Result<()> {
        self.inner.resume().await
    }

    async fn snapshot(&self, into: &Path) -> Result<SnapshotParts> {
        match (self.breach, &self.base) {
            (Breach::GoneAnswersOk, _) => return Ok(UnfinishedParts::create(into)?.finish("1.0.0")),
            (Breach::SnapshotOfACloneIsItsBase, Some(base)) => return Ok(base.clone()),
            (Breach::SnapshotsWhatRuns, _) => self.inner.pause().await?,
            (Breach::SnapshotOverwrites, _) => {
                std::fs::remove_dir_all(into).unwrap();
                std::fs::create_dir(into).unwrap();
            }
            _ => {}
        }
        let outcome = self.inner.snapshot(into).await;
        match self.breach {
            Breach::SnapshotEndsItsSource => {
                self.factory.world.kill(&self.inner.handle().id, ExitCause::Stopped);
            }
            Breach::SnapshotLeavesAHalf => std::fs::write(into.join("half"), "").unwrap(),
            _ => {}
        }
        outcome
    }

    async fn describe(&self) -> Result<VmDescription> {
        let description = self.inner.describe().await?;
        Ok(match self.breach {
            Breach::DescribesAnotherPid => VmDescription { pid: description.pid + 1, ..description },
            Breach::PauseDoesNothing => VmDescription { state: VmState::Paused, ..description },
            _ => description,
        })
    }

    async fn stop(&self, mut deadlines: StopDeadlines) -> Result<Exit> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.breach {
            Breach::StopDoesNotAsk | Breach::AdoptedIsNotAsked => deadlines.graceful = Duration::ZERO,
            Breach::StopNeverForces if !deadlines.graceful.is_zero() => deadlines.graceful = Duration::MAX,
            Breach::StopWaitsForAPausedGuest if self.is_paused().await => deadlines.graceful = Duration::MAX,
            Breach::SecondStopDiffers if call > 0 => {
                return Ok(Exit { cause: ExitCause::Unknown, last_output: String::new() });
            }
            _ => {}
        }
        let run_dir = self.inner.handle().run_dir;
        let exit = self.inner.stop(deadlines).await?;
        if self.breach == Breach::LeavesASocket {
            std::fs::write(run_dir.join("forgotten.sock"), "").unwrap();
        }
        Ok(exit)
    }

    async fn exited(&self) -> Exit {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let ended = !self.factory.world.is_alive(&self.inner.handle());
        if self.breach == Breach::LateExitIsMissed && ended {
            return std::future::pending().await;
        }
        let exit = self.inner.exited().await;
        match (self.breach, exit.cause) {
            (Breach::PanicLooksLikeShutdown, _) => Exit { cause: ExitCause::GuestShutdown, ..exit },
            (Breach::CrashHasNoOutput, _) => Exit { last_output: String::new(), ..exit },
            (Breach::SecondWaiterIsTold, _) if call == 0 => Exit { cause: ExitCause::Unknown, ..exit },
            _ => exit,
        }
    }
}

impl BrokenRunning {
    async fn is_paused(&self) -> bool {
        self.inner.describe().await.is_ok_and(|description| description.state == VmState::Paused)
    }
}

impl Drop for BrokenRunning {
    fn drop(&mut self) {
        if self.breach == Breach::DroppedRunningDies {
            self.factory.world.kill(&self.inner.handle().id, ExitCause::Stopped);
        }
    }
}
