//! Everything on a host that is not the VMM: networks, disks, templates, the channel to the guest.
//!
//! The control plane knows a machine as a [`Node`]; [`LocalNode`] is the one in this process, and a remote
//! one speaks the same trait over the wire. A run is one life of a sandbox in a microVM, named by its run
//! id; the node never learns which sandbox it belongs to.
//!
//! ```text
//! create: template -> network -> disk -> VMM prepare -> boot -> agent ready -> handshake     each with its undo
//! destroy: VMM gone (observed) -> network -> run directory
//! ```

#![warn(missing_docs)]

mod ahead;
mod console;
mod disk;
pub mod doctor;
mod error;
pub mod faults;
mod guest;
mod local;
mod net;
mod paths;
mod secret;
mod snapshot;
mod template;
pub mod usage;
mod values;

pub use ahead::{Newcomer, Newcomers, TakeReady};
pub use console::{Console, LinesAt};
pub use error::{CreateError, CreateStep};
pub use flames_egress as egress;
pub use flames_egress::{EgressPolicy, Traffic};
pub use flames_guest::control::{InitRequest, InitResponse};
pub use flames_pool::{BootLevel, BootPath, Execution, PoolConfig, PoolStatus};
pub use flames_vmm::{
    Capabilities, Error, ErrorKind, Exit, ExitCause, MiB, Result, Retry, StopDeadlines, VmId, VmState,
};
pub use guest::{
    AGENT_PORT, ByteStream, Dial, Entry, EntryKind, FileDownload, GuestClient, GuestError, GuestErrorKind,
    GuestMetrics, GuestResult, Operation, ProcessEnd, ProcessEvent, ProcessEvents, ProcessInfo, Signal,
    Signed, StartProcess, Stdin, TerminalSize, WriteFile, signature,
};
pub use local::{FailurePoint, Limits, LocalNode, NodeConfig, TemplateSnapshots};
pub use net::{NetworkMode, UplinkConfig};
pub use paths::{Assets, DataDir, RunDir};
pub use snapshot::{
    AfterSnapshot, Contents, Keep, SnapshotId, SnapshotInfo, SnapshotTimings, TakeSnapshot, TakenSnapshot,
};
pub use template::TemplateStore;
pub use values::{
    AccessToken, Adoption, BuildProgress, BuildTemplate, Capacity, CreateVm, CreatedVm, Duplex, GuestStream,
    Identity, Leak, LeakKind, Reaped, RunExit, RunFacts, RunInfo, StageTimings, StartFrom, StartUp, Template,
    TemplateName, TemplateOrigin, TemplateSource,
};

use async_trait::async_trait;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};

/// A machine that runs microVMs.
#[async_trait]
pub trait Node: Debug + Send + Sync + 'static {
    /// Makes a microVM from a template and hands it out once its agent took the handshake. From a snapshot of a disk alone
    /// it boots, and is told what the captured guest had been told.
    ///
    /// Whatever fails, and also when this future is dropped, nothing stays behind.
    ///
    /// # Errors
    /// A variant per step, with a kind: [`CreateError::kind`].
    async fn create(&self, request: CreateVm) -> Result<CreatedVm, CreateError>;

    /// Hands out a machine of a warm pool under the run id that it has already; `None` when none is ready. Nothing
    /// that fails here is final: what was taken is ended, and [`Node::create`] goes another way.
    async fn take_ready(&self, request: TakeReady) -> Option<CreatedVm>;

    /// Ends a run and removes everything it had. Idempotent: a run that is not there (any more) answers
    /// [`ExitCause::Unknown`] with no output. A network slot is given back only after the exit was observed.
    ///
    /// # Errors
    /// `Timeout` when the process outlives even `SIGKILL`; nothing that it could still use is taken away.
    async fn destroy(&self, run: &VmId) -> Result<Exit>;

    /// Stops the virtual CPUs. Pausing a paused run changes nothing.
    ///
    /// # Errors
    /// `NotFound` without such a run; `Unavailable` when its VMM is gone.
    async fn pause(&self, run: &VmId) -> Result<()>;

    /// Lets the virtual CPUs run, and gives the guest time and entropy (hazards C1, C3). Resuming a running run
    /// changes nothing.
    ///
    /// # Errors
    /// `NotFound` without such a run; `Unavailable` when its VMM is gone or its agent does not answer.
    async fn resume(&self, run: &VmId) -> Result<()>;

    /// Captures memory, device state and disk of a run inside one pause (hazard C6); or its disk alone, which its agent
    /// syncs and freezes first.
    ///
    /// # Errors
    /// `NotFound` without such a run; `AlreadyExists` for an id in use; `Unsupported` when the driver takes
    /// none (a disk alone every driver lets take); `Unavailable` when a part could not be written. After an error nothing is left of the snapshot
    /// and the run is as it was.
    async fn snapshot(&self, run: &VmId, request: TakeSnapshot) -> Result<TakenSnapshot>;

    /// The snapshots taken by [`Node::snapshot`] that were not removed, by id.
    ///
    /// # Errors
    /// `Unavailable` when the folder cannot be read.
    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>>;

    /// Removes a snapshot: nothing starts from it any more. Its files go when no run maps them (hazard C7).
    ///
    /// # Errors
    /// `NotFound` without such a snapshot.
    async fn remove_snapshot(&self, id: &SnapshotId) -> Result<()>;

    /// Replaces what a run may reach, at once and without touching connections that stay allowed; those that are not any
    /// more are cut.
    ///
    /// # Errors
    /// `NotFound` without such a run; `Unsupported` where runs have no network of their own; `Unavailable` when the rules
    /// could not be applied: then the earlier ones hold.
    async fn set_network(&self, run: &VmId, policy: EgressPolicy) -> Result<()>;

    /// What a run sent and received, and what its rules dropped.
    ///
    /// # Errors
    /// `NotFound` without such a run; `Unsupported` where runs have no network of their own.
    async fn traffic(&self, run: &VmId) -> Result<Traffic>;

    /// The client of the agent inside a run; cheap, connections are shared.
    ///
    /// # Errors
    /// `NotFound` without such a run.
    async fn guest(&self, run: &VmId) -> Result<GuestClient>;

    /// A connection to a TCP port of the guest, opened from within its network; what listens on the guest's
    /// loopback alone is reached through the agent.
    ///
    /// # Errors
    /// `NotFound` without such a run; `Unavailable` when nothing listens there.
    async fn connect(&self, run: &VmId, port: u16) -> Result<GuestStream>;

    /// The newest of the console, at most `limit` bytes.
    ///
    /// # Errors
    /// `NotFound` without such a run.
    async fn console(&self, run: &VmId, limit: usize) -> Result<Console>;

    /// What a run has on this host.
    ///
    /// # Errors
    /// `NotFound` without such a run.
    async fn inspect(&self, run: &VmId) -> Result<RunInfo>;

    /// All runs on this node, by run id.
    async fn list(&self) -> Vec<RunInfo>;

    /// What the VMM of each run uses at this moment; one that just ended is left out.
    async fn usage(&self) -> Vec<usage::RunUsage> {
        usage::of_runs(&self.list().await)
    }

    /// Exits of VMMs from now on, asked for or not. A receiver that lags compares with [`Node::list`].
    fn exits(&self) -> broadcast::Receiver<RunExit>;

    /// The warm pools of this node, by template.
    async fn pools(&self) -> Vec<PoolStatus>;

    /// Keeps a pool of a template as it is asked for, instead of what was asked before. It fills in the background,
    /// with machines that `newcomers` names.
    ///
    /// # Errors
    /// `InvalidInput` naming every mistake; `NotFound` for an unknown template; `Unsupported` when the driver takes
    /// no snapshots.
    async fn set_pool(&self, config: PoolConfig, newcomers: Arc<dyn Newcomers>) -> Result<()>;

    /// Empties a pool and forgets it; what was handed out stays.
    ///
    /// # Errors
    /// `NotFound` without such a pool.
    async fn remove_pool(&self, template: &TemplateName) -> Result<()>;

    /// The templates that can be created from, by name.
    ///
    /// # Errors
    /// `Unavailable` when the folders cannot be read.
    async fn templates(&self) -> Result<Vec<Template>>;

    /// Builds a template and makes it visible in one step. What was built before under the name is
    /// replaced; runs that use it keep their file.
    ///
    /// # Errors
    /// `InvalidInput` for a source that is not there or not usable; `Unavailable` without `mkfs.erofs` or
    /// space; `Conflict` for the name of a built-in template.
    async fn build_template(
        &self,
        request: BuildTemplate,
        progress: mpsc::Sender<BuildProgress>,
    ) -> Result<Template>;

    /// Gives the build that `target` names a further name. What had that name before keeps its runs, no more.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a built-in target or name.
    async fn tag_template(&self, target: &TemplateName, name: TemplateName) -> Result<Template>;

    /// Removes a template that was built here.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a built-in one.
    async fn remove_template(&self, name: &TemplateName) -> Result<()>;

    /// Takes over what an earlier daemon left: adopts VMs that live, reaps everything else. Called once,
    /// before the first create.
    ///
    /// # Errors
    /// `Unavailable` when the data directory cannot be read.
    async fn adopt(&self) -> Result<Adoption>;

    /// Removes what has no owner.
    ///
    /// # Errors
    /// `Unavailable` when a resource resists; the others were still tried.
    async fn reap(&self) -> Result<Reaped>;

    /// How many resources of each kind are owned by a run or a ready slot, and how many by nobody.
    ///
    /// # Errors
    /// `Unavailable` when the host does not tell.
    async fn leaks(&self) -> Result<Vec<Leak>>;

    /// What the machine has, and what is left of it.
    async fn capacity(&self) -> Capacity;

    /// Gives back what was prepared ahead (ready slots). Runs stay: they outlive the daemon.
    async fn shutdown(&self);
}
