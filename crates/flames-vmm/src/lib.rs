//! The interface to virtual machine monitors (VMMs).
//!
//! A driver turns a [`VmSpec`] into a microVM in phases, and the phases are types: what cannot be done in a
//! phase cannot be written.
//!
//! ```text
//! VmmDriver::prepare ── PreparedVm ── boot ────> BootingVm ── ready ──> RunningVm ── stop ──> Exit
//!                            └─────── restore ─────────────────────────────^
//! VmmDriver::adopt(handle) ─────────────────────────────────────────────────^   after a daemon restart
//! ```
//!
//! Dropping a `PreparedVm` or `BootingVm` kills its process. Dropping a [`RunningVm`] does not: running VMs
//! outlive the daemon, and a restarted daemon adopts them by their [`VmHandle`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod boot;
mod check;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod end;
pub mod fake;
pub mod faults;
pub mod jail;
pub mod log;
mod parts;
pub mod process;
mod spec;

pub use parts::UnfinishedParts;
pub use spec::{
    AgentReady, BootChannel, Capabilities, Disk, DiskAccess, Exit, ExitCause, MacAddress, MiB, Network,
    PrepareFor, SnapshotParts, StopDeadlines, VmDescription, VmHandle, VmId, VmSpec, VmState,
};

/// File in a VM's run directory that holds its [`VmHandle`] as JSON while the VMM's process lives.
pub const HANDLE_FILE: &str = "vmm.json";

/// File in a VM's run directory that holds the newest output of the guest's console.
pub const CONSOLE_FILE: &str = "console.log";

pub use flames_provider::{Error, ErrorKind, Result, Retry};

use async_trait::async_trait;
use std::fmt::Debug;

/// Speaks to one kind of VMM.
#[async_trait]
pub trait VmmDriver: Debug + Send + Sync + 'static {
    /// Short name for errors, metrics and the API, for example `qemu`.
    fn name(&self) -> &'static str;

    /// What this driver can and cannot do. What it cannot do answers `Unsupported`.
    fn capabilities(&self) -> Capabilities;

    /// The exact version of the VMM, as snapshots must record it, for example `7.2.22`.
    ///
    /// # Errors
    /// `Unavailable` if the VMM is not installed.
    async fn version(&self) -> Result<String>;

    /// Starts the VMM's process up to the point where only the guest is missing.
    ///
    /// From then on and until the process is gone, the file [`HANDLE_FILE`] in the run directory holds the
    /// [`VmHandle`] as JSON: a daemon that died half way through a create finds what to end.
    ///
    /// # Errors
    /// `InvalidInput` for a spec that no VMM could run (missing kernel or disk file, memory out of range);
    /// `Unavailable` when the VMM is missing or does not start: the detail holds its last lines of output.
    ///
    /// For a restore also `Unsupported` without the capability, `Conflict` when another version of the VMM wrote
    /// the parts, and `Corrupt` when a part is missing, was cut short or altered, or does not fit the spec. The
    /// mend of these three is the same: boot.
    async fn prepare(&self, spec: VmSpec, purpose: PrepareFor) -> Result<Box<dyn PreparedVm>>;

    /// Takes over a VM that an earlier daemon started. `None` if that very process is gone: a process that
    /// merely has its pid is never adopted (start time and executable are compared).
    ///
    /// # Errors
    /// `Unavailable` when the process lives and its control socket does not answer.
    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>>;
}

/// A VMM process without a running guest.
#[async_trait]
pub trait PreparedVm: Debug + Send + Sync {
    /// Starts the guest from its kernel.
    ///
    /// # Errors
    /// `InvalidInput` if it was prepared for a restore; `Unavailable` when the VMM refuses or died.
    async fn boot(self: Box<Self>) -> Result<Box<dyn BootingVm>>;

    /// Continues a guest where the snapshot it was prepared for left it. All that takes time was done by
    /// `prepare`. The guest's clock, its random numbers and its secrets are those of the snapshot until its agent
    /// was told otherwise.
    ///
    /// # Errors
    /// `InvalidInput` if it was prepared for a boot; `Corrupt` when the VMM notices only now that the parts are
    /// of no use; `Unavailable` when it refuses or died.
    async fn restore(self: Box<Self>) -> Result<Box<dyn RunningVm>>;
}

/// A guest whose kernel runs and whose agent has not yet reported.
#[async_trait]
pub trait BootingVm: Debug + Send + Sync {
    /// Waits until the agent reports over the boot channel that it serves.
    ///
    /// # Errors
    /// `Unavailable` when the VMM exits or the agent reports an error, with the last lines of the console.
    /// The caller bounds the wait; dropping the future kills the VM.
    async fn ready(self: Box<Self>) -> Result<(Box<dyn RunningVm>, AgentReady)>;
}

/// A guest that runs or is paused.
#[async_trait]
pub trait RunningVm: Debug + Send + Sync {
    /// What to store so that a restarted daemon can adopt this VM.
    fn handle(&self) -> VmHandle;

    /// Stops the virtual CPUs. Pausing a paused VM changes nothing.
    ///
    /// # Errors
    /// `Unavailable` when the VMM is gone.
    async fn pause(&self) -> Result<()>;

    /// Lets the virtual CPUs run. Resuming a running VM changes nothing.
    ///
    /// # Errors
    /// `Unavailable` when the VMM is gone.
    async fn resume(&self) -> Result<()>;

    /// Writes memory and device state of a paused VM into the folder `into`, which must be private to the daemon: new
    /// files, not yet on stable storage, that a jailed VMM of another user may open. Disks are the caller's: it copies them inside the same pause.
    ///
    /// # Errors
    /// `Unsupported` without the capability; `Conflict` when the VM is not paused; `AlreadyExists` when `into`
    /// holds a part; `PermissionDenied` when the daemon may not read the VMM's memory; `Unavailable` when a part
    /// could not be written. In every case nothing is left in `into`, and the VM stays paused and usable.
    async fn snapshot(&self, into: &std::path::Path) -> Result<SnapshotParts>;

    /// What the VMM says of itself now.
    ///
    /// # Errors
    /// `Unavailable` when the VMM is gone.
    async fn describe(&self) -> Result<VmDescription>;

    /// Asks the guest to power off, then ends the VMM by force; each within its deadline. Idempotent.
    ///
    /// # Errors
    /// `Timeout` when the process outlives even `SIGKILL` by the deadline.
    async fn stop(&self, deadlines: StopDeadlines) -> Result<Exit>;

    /// Waits until the VMM's process is gone. Never misses an exit, also one before the call.
    async fn exited(&self) -> Exit;
}
