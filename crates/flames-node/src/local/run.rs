//! A run that was handed out, and its end.

use super::capture::{capture, capture_frozen};
use super::create::ms_since;
use super::handshake;
use super::machine::MachineName;
use super::name_server;
use super::record::{RunRecord, remove_run_dir};
use super::tunnel;
use crate::disk::blocking;
use crate::guest::{AGENT_PORT, Dial};
use crate::net::{Dialer, Egress, Lease, unsupported};
use crate::paths::RunDir;
use crate::snapshot::{Contents, GuestSettings, Partial, Snapshot};
use crate::{
    AccessToken, AfterSnapshot, EgressPolicy, GuestClient, GuestStream, RunInfo, SnapshotTimings, Traffic,
};
use async_trait::async_trait;
use flames_vmm::{Error, ErrorKind, Exit, Result, RunningVm, StopDeadlines, VmState};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
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
    #[expect(dead_code, reason = "held until the run is gone")]
    holds: Holds,
    state: Mutex<VmState>,
    /// What the guest may reach now; in the record it is as it was handed out or adopted.
    network: tokio::sync::Mutex<EgressPolicy>,
    /// Whether the guest has yet to hear whom it may ask for names: it stood still when that changed.
    untold: AtomicBool,
    /// One pause, resume or snapshot at a time: each must find the guest as it believes it to be.
    turn: tokio::sync::Mutex<()>,
    ended: OnceCell<Exit>,
}

/// What is a run's for as long as it lives.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(super) struct Holds {
    /// The name of its directory and its VMM.
    pub(super) machine: MachineName,
    /// The snapshot whose memory it maps: not removed meanwhile (hazard C7).
    pub(super) base: Option<Arc<Snapshot>>,
}

impl Run {
    pub(super) fn new(
        record: RunRecord,
        dir: RunDir,
        vm: Arc<dyn RunningVm>,
        line: Arc<Line>,
        guest: GuestClient,
        holds: Holds,
    ) -> Self {
        let network = tokio::sync::Mutex::new(record.network.clone());
        let state = Mutex::new(VmState::Running);
        let (turn, ended) = (tokio::sync::Mutex::default(), OnceCell::new());
        let untold = AtomicBool::default();
        Self { record, dir, vm, guest, line, holds, state, network, untold, turn, ended }
    }

    pub(super) fn info(&self) -> RunInfo {
        RunInfo {
            run: self.record.run.clone(),
            state: self.state(),
            vcpus: self.record.guest.vcpus,
            memory: self.record.guest.memory,
            disk: self.record.guest.disk,
            facts: self.record.facts(&self.dir, self.vm.handle().pid),
        }
    }

    /// Replaces what the guest may reach. Recorded first: after a daemon's death between the two, the next one applies what
    /// stands in the record.
    pub(super) async fn set_network(&self, policy: EgressPolicy) -> Result<()> {
        let mut network = self.network.lock().await;
        self.line.lease.check(&policy)?;
        self.write_network(&policy)?;
        match self.line.set_policy(&policy).await {
            Ok(()) => {
                *network = policy;
                self.untold.store(true, Ordering::Release);
                if self.state() == VmState::Running {
                    self.tell_name_server(&network).await;
                }
            }
            Err(error) => {
                self.write_network(&network)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tells the guest whom to ask for names, if it was not told since that may have changed.
    async fn tell_name_server(&self, policy: &EgressPolicy) {
        if self.untold.swap(false, Ordering::AcqRel) {
            name_server::tell(&self.guest, policy).await;
        }
    }

    fn write_network(&self, policy: &EgressPolicy) -> Result<()> {
        RunRecord { network: policy.clone(), ..self.record.clone() }.write(&self.dir)
    }

    /// What the guest sent and received, and what was dropped.
    pub(super) async fn traffic(&self) -> Result<Traffic> {
        self.line.traffic().await
    }

    pub(super) async fn pause(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.vm.pause().await.map(|()| self.set_state(VmState::Paused))
    }

    pub(super) async fn resume(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        if self.state() == VmState::Running {
            return Ok(());
        }
        self.wake().await
    }

    /// Lets the guest run again, and makes good what standing still did to it.
    async fn wake(&self) -> Result<()> {
        self.vm.resume().await?;
        self.set_state(VmState::Running);
        let init = handshake::wake_up()?;
        handshake::shake(&self.record.run, &self.guest, &self.record.control_token, &init).await?;
        self.tell_name_server(&self.line.policy()).await;
        Ok(())
    }

    /// Captures what was asked for inside one pause (hazard C6), and lets `seal` do its work with it. Afterwards the guest
    /// is as before, unless it is to end: then it stands still, if all went well.
    pub(super) async fn capture<T>(
        &self,
        into: Partial,
        (then, contents): (AfterSnapshot, Contents),
        seal: impl AsyncFnOnce(Partial, Option<GuestSettings>) -> Result<T>,
    ) -> Result<(T, SnapshotTimings)> {
        let _turn = self.turn.lock().await;
        let was = self.state();
        let captured = match contents {
            Contents::MemoryAndDisk => self.capture_all(&into).await.map(|timings| (timings, None)),
            Contents::DiskOnly => self.capture_disk(&into).await.map(|(timings, told)| (timings, Some(told))),
        };
        let outcome = match (captured, then) {
            (Err(error), _) => Err(error),
            (Ok((timings, told)), AfterSnapshot::End) => {
                seal(into, told).await.map(|sealed| (sealed, timings))
            }
            (Ok((timings, told)), AfterSnapshot::GoOn) => {
                self.go_on(was, contents).await?;
                return seal(into, told).await.map(|sealed| (sealed, timings));
            }
        };
        if outcome.is_err() {
            self.go_on(was, contents).await?;
        }
        outcome
    }

    async fn capture_all(&self, into: &Partial) -> Result<SnapshotTimings> {
        self.set_state(VmState::Paused);
        capture(self.vm.as_ref(), &self.dir.disk(), into).await
    }

    /// The guest must run to freeze its disk: also one that rests in memory.
    async fn capture_disk(&self, into: &Partial) -> Result<(SnapshotTimings, GuestSettings)> {
        if self.state() == VmState::Paused {
            self.wake().await?;
        }
        let start = Instant::now();
        let told = handshake::freeze(&self.record.run, &self.guest, &self.record.control_token).await?;
        let freeze_ms = ms_since(start);
        self.set_state(VmState::Paused);
        let timings = capture_frozen(self.vm.as_ref(), &self.dir.disk(), into).await?;
        Ok((SnapshotTimings { freeze_ms, ..timings }, told))
    }

    /// Brings a guest back to how it was before a capture.
    async fn go_on(&self, was: VmState, captured: Contents) -> Result<()> {
        if captured == Contents::DiskOnly {
            self.wake_frozen().await?;
        }
        match (was, self.state()) {
            (VmState::Running, VmState::Paused) => self.wake().await,
            (VmState::Paused, VmState::Running) => {
                self.vm.pause().await.map(|()| self.set_state(VmState::Paused))
            }
            _ => Ok(()),
        }
    }

    /// Lets a guest run and write to its disk.
    async fn wake_frozen(&self) -> Result<()> {
        if self.state() == VmState::Paused {
            self.wake().await?;
        }
        if let Err(error) = self.guest.thaw(&self.record.control_token).await {
            tracing::warn!(run = %self.record.run, %error, "a guest was not told to thaw its disk: it will by itself");
        }
        Ok(())
    }

    /// A port of the guest: straight, and where nobody listens or nothing leads, through the agent.
    pub(super) async fn connect(&self, port: u16) -> Result<GuestStream> {
        match self.line.connect(port).await {
            Err(error) if port != AGENT_PORT && leaves_the_agent(&error) => {
                tunnel::open(self.line.connect(AGENT_PORT).await?, &self.record.control_token, port).await
            }
            connected => connected,
        }
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

    fn state(&self) -> VmState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: VmState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Whether the agent may reach what we could not: something on its loopback, or anything on a node without root.
fn leaves_the_agent(error: &Error) -> bool {
    let refused = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::ConnectionRefused);
    refused || error.kind() == ErrorKind::Unsupported
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
    /// `None` where guests have no network of their own.
    egress: Option<Egress>,
}

impl Line {
    pub(super) fn new(dialer: Dialer, lease: Lease) -> Arc<Self> {
        let cut = CancellationToken::new();
        let slot = lease.namespace().cloned();
        let egress = slot.map(|slot| Egress::new(slot, dialer.clone(), cut.clone()));
        Arc::new(Self { dialer, lease, cut, egress })
    }

    /// A client of the agent at the other end.
    pub(super) fn client(self: &Arc<Self>, token: AccessToken) -> GuestClient {
        GuestClient::new(Arc::clone(self) as Arc<dyn Dial>, token)
    }

    /// Replaces what the guest may reach; before the first call that is nothing.
    pub(super) async fn set_policy(&self, policy: &EgressPolicy) -> Result<()> {
        self.lease.check(policy)?;
        match &self.egress {
            Some(egress) => egress.change(policy.clone()).await,
            None => Ok(()),
        }
    }

    /// What the guest may reach now.
    fn policy(&self) -> Arc<EgressPolicy> {
        self.egress.as_ref().map(Egress::policy).unwrap_or_default()
    }

    /// What passed and what was dropped.
    async fn traffic(&self) -> Result<Traffic> {
        match &self.egress {
            Some(egress) => Ok(Traffic::of(&egress.policy(), &egress.figures().await?)),
            None => Err(unsupported("a node without root counts no traffic: run the daemon as root")),
        }
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
