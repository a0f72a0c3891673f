//! A run that was handed out, and its end.

use super::record::{RunRecord, remove_run_dir};
use crate::disk::blocking;
use crate::guest::{AGENT_PORT, Dial};
use crate::net::{Dialer, Lease};
use crate::paths::RunDir;
use crate::{AccessToken, GuestClient, GuestStream, RunInfo};
use async_trait::async_trait;
use flames_vmm::{Exit, Result, RunningVm, StopDeadlines, VmState};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// A run and everything it has on this host. It is ended by [`Run::end`] alone: dropping it lets the VM run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) record: RunRecord,
    pub(super) dir: RunDir,
    pub(super) vm: Arc<dyn RunningVm>,
    pub(super) guest: GuestClient,
    pub(super) line: Arc<Line>,
    state: Mutex<VmState>,
    ended: OnceCell<Exit>,
}

impl Run {
    pub(super) fn new(
        record: RunRecord,
        dir: RunDir,
        vm: Arc<dyn RunningVm>,
        line: Arc<Line>,
        guest: GuestClient,
    ) -> Self {
        let (state, ended) = (Mutex::new(VmState::Running), OnceCell::new());
        Self { record, dir, vm, guest, line, state, ended }
    }

    pub(super) fn info(&self) -> RunInfo {
        RunInfo {
            run: self.record.run.clone(),
            state: *self.state.lock().unwrap_or_else(PoisonError::into_inner),
            vcpus: self.record.vcpus,
            memory: self.record.memory,
            disk: self.record.disk,
            facts: self.record.facts(&self.dir, self.vm.handle().pid),
        }
    }

    pub(super) async fn pause(&self) -> Result<()> {
        self.vm.pause().await.map(|()| self.set_state(VmState::Paused))
    }

    pub(super) async fn resume(&self) -> Result<()> {
        self.vm.resume().await.map(|()| self.set_state(VmState::Running))
    }

    /// Ends the VM and removes what it had, once: whoever comes second gets the same answer.
    pub(super) async fn end(&self) -> Result<Exit> {
        self.ended.get_or_try_init(|| self.take_apart()).await.cloned()
    }

    /// The network goes only after the exit was observed (hazard C5).
    async fn take_apart(&self) -> Result<Exit> {
        self.line.cut.cancel();
        let exit = self.vm.stop(StopDeadlines::KILL).await?;
        release(Arc::clone(&self.line), self.dir.clone()).await?;
        Ok(exit)
    }

    fn set_state(&self, state: VmState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Removes network and directory of a run whose VM is gone.
async fn release(line: Arc<Line>, dir: RunDir) -> Result<()> {
    blocking("run", move || {
        line.lease.release()?;
        remove_run_dir(&dir)
    })
    .await
}

/// The way to one guest: its network, and the end of all connections over it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) dialer: Dialer,
    pub(super) lease: Lease,
    pub(super) cut: CancellationToken,
}

impl Line {
    pub(super) fn new(dialer: Dialer, lease: Lease) -> Arc<Self> {
        Arc::new(Self { dialer, lease, cut: CancellationToken::new() })
    }

    /// A client of the agent at the other end.
    pub(super) fn client(self: &Arc<Self>, token: AccessToken) -> GuestClient {
        GuestClient::new(Arc::clone(self) as Arc<dyn Dial>, token)
    }

    pub(super) async fn connect(&self, port: u16) -> Result<GuestStream> {
        let stream = self.dialer.connect(&self.lease, port, &self.cut).await?;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Dial for Line {
    async fn dial(&self) -> Result<GuestStream> {
        self.connect(AGENT_PORT).await
    }
}
