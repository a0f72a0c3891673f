//! A VMM without guests, for tests of everything above a driver and for simulation.
//!
//! A [`FakeWorld`] is the host: it holds the machines, so they outlive the [`FakeVmm`] that started them, as
//! real ones outlive a daemon. Latencies and faults are set on the world, per [`Phase`]; time is tokio's, so a
//! paused clock runs a thousand boots in no time.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! use flames_vmm::{ErrorKind, PrepareFor, VmmDriver, fake::{FakeWorld, Fault, Phase}};
//! let world = FakeWorld::without_files();
//! world.inject(Phase::Boot, Fault::Refuse(ErrorKind::Unavailable));
//! let prepared = world.driver().prepare(world.any_spec("a"), PrepareFor::Boot).await.unwrap();
//! assert_eq!(prepared.boot().await.unwrap_err().kind(), ErrorKind::Unavailable);
//! assert!(world.alive().is_empty());
//! # });
//! ```

mod driver;
mod guest;
mod machine;
mod snapshot;

pub use driver::FakeVmm;
pub use guest::FakeGuest;

use crate::spec::{BootChannel, ExitCause, MiB, Network, SnapshotParts, VmHandle, VmId, VmSpec};
use flames_provider::{Error, ErrorKind, Result};
use machine::Machine;
use snapshot::{GuestState, Space};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The host of fake machines. Clones are the same world.
#[derive(Clone, Debug, Default)]
pub struct FakeWorld(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Files,
    machines: HashMap<u32, Arc<Machine>>,
    faults: HashMap<Phase, VecDeque<Fault>>,
    latencies: HashMap<Phase, Duration>,
    /// Snapshots in a world without files, by the path of their memory.
    snapshots: HashMap<PathBuf, GuestState>,
    full_folders: Vec<PathBuf>,
    last_pid: u32,
}

/// Whether kernel and disks of a spec must exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Files {
    #[default]
    MustExist,
    AreNotLookedAt,
}

/// A step in a machine's life that can be slow or fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// [`crate::VmmDriver::prepare`].
    Prepare,
    /// [`crate::PreparedVm::boot`].
    Boot,
    /// [`crate::BootingVm::ready`].
    Ready,
    /// [`crate::PreparedVm::restore`].
    Restore,
    /// [`crate::RunningVm::pause`].
    Pause,
    /// [`crate::RunningVm::resume`].
    Resume,
    /// [`crate::RunningVm::snapshot`].
    Snapshot,
    /// [`crate::RunningVm::describe`].
    Describe,
    /// [`crate::RunningVm::stop`]; a refusal leaves the machine running.
    Stop,
    /// [`crate::VmmDriver::adopt`].
    Adopt,
}

/// What goes wrong in a phase, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this kind.
    Refuse(ErrorKind),
    /// The call never returns.
    Hang,
    /// The VMM's process ends first, for this cause; the call then fails as on a VMM that is gone.
    Die(ExitCause),
}

impl FakeWorld {
    /// A world whose drivers check that kernel and disks exist, as real ones do.
    pub fn new() -> Self {
        Self::default()
    }

    /// A world whose drivers look at no file: for simulations.
    pub fn without_files() -> Self {
        let world = Self::default();
        world.state().files = Files::AreNotLookedAt;
        world
    }

    /// A driver. Another one is what a restarted daemon has.
    pub fn driver(&self) -> FakeVmm {
        FakeVmm::new(self.clone())
    }

    /// The next call of `phase`, by whichever machine, meets `fault`. Faults of a phase queue up.
    pub fn inject(&self, phase: Phase, fault: Fault) {
        self.state().faults.entry(phase).or_default().push_back(fault);
    }

    /// Every call of `phase` takes this long from now on.
    pub fn set_latency(&self, phase: Phase, latency: Duration) {
        self.state().latencies.insert(phase, latency);
    }

    /// From now on there is no space for a snapshot's memory in `folder`.
    pub fn set_full(&self, folder: impl Into<PathBuf>) {
        self.state().full_folders.push(folder.into());
    }

    /// Ends a machine from outside, as a crash or the kernel would. False if there is none of that name.
    pub fn kill(&self, id: &VmId, cause: ExitCause) -> bool {
        let found = self.state().machines.values().find(|machine| machine.id() == id).cloned();
        found.inspect(|machine| self.end(machine, cause)).is_some()
    }

    /// The machines whose process lives, in the order of their names.
    pub fn alive(&self) -> Vec<VmId> {
        let mut ids: Vec<_> = self.state().machines.values().map(|machine| machine.id().clone()).collect();
        ids.sort();
        ids
    }

    /// A spec that this world boots, with one CPU and 128 MiB.
    ///
    /// # Panics
    /// If `id` is no [`VmId`].
    #[allow(clippy::expect_used, reason = "a test writes the id down")]
    pub fn any_spec(&self, id: &str) -> VmSpec {
        VmSpec {
            id: VmId::parse(id).expect("a legal vm id"),
            run_dir: PathBuf::from("/nonexistent").join(id),
            vcpus: 1,
            memory: MiB(128),
            kernel: "/nonexistent/vmlinux".into(),
            kernel_args: Vec::new(),
            disks: Vec::new(),
            network: Network::None,
            boot_channel: BootChannel { greeting: "{}".into() },
            console_limit_bytes: 64 * 1024,
        }
    }

    /// True while the process that `handle` names lives.
    pub fn is_alive(&self, handle: &VmHandle) -> bool {
        self.find(handle).is_some()
    }

    fn files(&self) -> Files {
        self.state().files
    }

    fn space_in(&self, folder: &Path) -> Space {
        let full = self.state().full_folders.iter().any(|full| full == folder);
        if full { Space::None } else { Space::Enough }
    }

    /// Keeps a snapshot in a world without files.
    fn remember(&self, into: &Path, state: GuestState, version: &str) -> SnapshotParts {
        let (memory, device_state) = (into.join("memory"), into.join("device_state"));
        self.state().snapshots.insert(memory.clone(), state);
        SnapshotParts { memory, device_state, vmm_version: version.to_owned() }
    }

    /// Finds a snapshot in a world without files.
    fn recall(&self, parts: &SnapshotParts, version: &str) -> Result<GuestState> {
        parts.check_version(version)?;
        self.state().snapshots.get(&parts.memory).cloned().ok_or_else(|| {
            let id = parts.memory.display().to_string();
            Error::new(ErrorKind::Corrupt, "snapshot part", id).detail("there is no such snapshot")
        })
    }

    /// Starts a machine's process.
    fn start(&self, spec: &VmSpec) -> Arc<Machine> {
        let mut state = self.state();
        state.last_pid += 1;
        let pid = state.last_pid;
        let machine = Arc::new(Machine::new(spec, pid));
        state.machines.insert(pid, machine.clone());
        machine
    }

    fn find(&self, handle: &VmHandle) -> Option<Arc<Machine>> {
        let state = self.state();
        state.machines.get(&handle.pid).filter(|machine| machine.handle() == *handle).cloned()
    }

    /// Ends a machine once; a second cause changes nothing.
    fn end(&self, machine: &Machine, cause: ExitCause) {
        self.state().machines.remove(&machine.pid());
        machine.end(cause);
    }

    /// Takes as long as `phase` takes and meets what was injected into it.
    async fn pass(&self, phase: Phase, machine: &Machine) -> Result<()> {
        let (latency, fault) = self.plan(phase);
        tokio::time::sleep(latency).await;
        match fault {
            None if machine.has_ended() => Err(machine.error(ErrorKind::Unavailable, "the VMM is gone")),
            None => Ok(()),
            Some(Fault::Refuse(kind)) => Err(machine.error(kind, "injected")),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Die(cause)) => {
                self.end(machine, cause);
                Err(machine.error(ErrorKind::Unavailable, &format!("the VMM ended ({cause:?})")))
            }
        }
    }

    fn plan(&self, phase: Phase) -> (Duration, Option<Fault>) {
        let mut state = self.state();
        let latency = state.latencies.get(&phase).copied().unwrap_or_default();
        (latency, state.faults.get_mut(&phase).and_then(VecDeque::pop_front))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    fn error(&self, kind: ErrorKind, detail: &str) -> Error {
        Error::new(kind, "vm", self.id().as_str()).adapter(driver::NAME).detail(detail)
    }
}
