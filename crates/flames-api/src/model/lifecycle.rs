//! What goes over the wire for pause, resume, snapshots, forks and pools.

use super::SandboxView;
use flames_core::sandbox::fork::Forked;
use flames_core::sandbox::pause::{PauseMode, Paused};
use flames_core::sandbox::resume::Resumed;
use flames_core::snapshot::record::Snapshot;
use flames_node::{Contents, PoolStatus, SnapshotTimings};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How to pause a sandbox.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PauseRequest {
    /// Where it rests.
    pub mode: PauseModeView,
}

/// Where a paused sandbox rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PauseModeView {
    /// On disk: no VMM and no memory of the host. Its clock stands still.
    #[default]
    Disk,
    /// On disk without its memory: its files stay, its processes end, and it boots when it comes back.
    DiskOnly,
    /// In memory, with its virtual CPUs stopped. It still ends at its time.
    Memory,
}

/// A sandbox that rests.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PausedView {
    /// The sandbox.
    pub sandbox: SandboxView,
    /// How long it took.
    pub timings: CaptureTimings,
}

/// Duration of a capture's stages, in milliseconds; zero for what did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CaptureTimings {
    /// To write out what the guest had not written yet, and to freeze its file system; of a disk alone.
    #[serde(default)]
    pub freeze_ms: f64,
    /// How long the guest stood still while memory, devices and disk were captured.
    pub paused_ms: f64,
    /// Of that: for memory and device state.
    pub memory_ms: f64,
    /// Of that: for the disk.
    pub disk_ms: f64,
    /// To hash the parts and to bring them to stable storage.
    pub seal_ms: f64,
    /// From the request until it was done.
    pub total_ms: f64,
}

/// How to resume a sandbox.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResumeRequest {
    /// Seconds until it ends by itself; 0 is never. Default: what was left when it was paused, or the daemon's
    /// default if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// A sandbox that runs again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResumedView {
    /// The sandbox.
    pub sandbox: SandboxView,
    /// How long it took.
    pub timings: ResumeTimings,
}

/// Duration of a resume's stages, in milliseconds; all but the last are zero for one from memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResumeTimings {
    /// To take a network slot.
    pub network_ms: f64,
    /// To make the writable disk from the snapshot's.
    pub disk_ms: f64,
    /// To start the VMM's process.
    pub vmm_spawn_ms: f64,
    /// From the first guest instruction until the agent reported, of one whose disk alone was kept.
    #[serde(default)]
    pub kernel_to_agent_ms: f64,
    /// For what the template starts, of one that was booted.
    #[serde(default)]
    pub start_up_ms: f64,
    /// To load device state and let the guest run.
    pub restore_ms: f64,
    /// For the handshake with the agent: time, entropy, token.
    pub agent_init_ms: f64,
    /// From the request until its agent served.
    pub total_ms: f64,
}

/// How to call a snapshot, and what to put into it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotRequest {
    /// A name of your own, unique among snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "golden")]
    pub name: Option<String>,
    /// What it holds.
    #[serde(skip_serializing_if = "is_default")]
    pub contents: ContentsView,
}

/// What a snapshot holds of a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContentsView {
    /// Everything: memory, processes and files.
    #[default]
    MemoryAndDisk,
    /// Its files: who comes from it boots.
    DiskOnly,
}

fn is_default(contents: &ContentsView) -> bool {
    *contents == ContentsView::default()
}

/// A snapshot of a sandbox: memory, processes and files at one moment, or its files alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// Its name for ever.
    #[schema(example = "s3k9vq0c8w2m1x7r5t6ya")]
    pub id: String,
    /// Your name for it.
    pub name: Option<String>,
    /// What it holds.
    #[serde(default)]
    pub contents: ContentsView,
    /// `making`, `ready`, or `missing` when its files are not on this node.
    pub status: String,
    /// The template of the sandbox it was taken of.
    pub template: String,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Writable disk in MiB.
    pub disk_mib: u32,
    /// The sandbox it was taken of, which may be gone.
    pub source: String,
    /// When it was taken.
    pub created_at: Timestamp,
    /// What it takes on disk.
    pub size_bytes: u64,
    /// How long it took to take it; its `total_ms` is the sum.
    pub timings: CaptureTimings,
    /// The VMM it belongs to.
    pub driver: String,
    /// That VMM's exact version.
    pub vmm_version: String,
    /// Sandboxes that share its memory right now.
    pub clones: usize,
}

/// Snapshots, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<SnapshotView>,
}

/// Warm pools, by template.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    /// What was asked for, and how each does.
    #[schema(value_type = Vec<Object>)]
    pub pools: Vec<PoolStatus>,
}

/// How many forks to make.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkRequest {
    /// 1 to 20.
    #[serde(default = "one")]
    pub count: u32,
    /// Seconds until each of them ends by itself; 0 is never. Default: what the daemon is configured to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

fn one() -> u32 {
    1
}

/// Clones of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ForkedView {
    /// All of them, running.
    pub forks: Vec<SandboxView>,
    /// How long it took.
    pub timings: ForkTimings,
}

/// Duration of a fork's stages, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForkTimings {
    /// How long the source stood still.
    pub paused_ms: f64,
    /// Of that: for memory and device state.
    pub memory_ms: f64,
    /// Of that: for the disk.
    pub disk_ms: f64,
    /// From the request until the source was captured.
    pub capture_ms: f64,
    /// From then until the last fork ran.
    pub clone_ms: f64,
    /// All of it.
    pub total_ms: f64,
}

impl From<PauseModeView> for PauseMode {
    fn from(mode: PauseModeView) -> Self {
        match mode {
            PauseModeView::Disk => Self::Disk,
            PauseModeView::DiskOnly => Self::DiskOnly,
            PauseModeView::Memory => Self::Memory,
        }
    }
}

impl From<ContentsView> for Contents {
    fn from(contents: ContentsView) -> Self {
        match contents {
            ContentsView::MemoryAndDisk => Self::MemoryAndDisk,
            ContentsView::DiskOnly => Self::DiskOnly,
        }
    }
}

impl From<Contents> for ContentsView {
    fn from(contents: Contents) -> Self {
        match contents {
            Contents::MemoryAndDisk => Self::MemoryAndDisk,
            Contents::DiskOnly => Self::DiskOnly,
        }
    }
}

impl CaptureTimings {
    fn new(timings: SnapshotTimings, total_ms: f64) -> Self {
        let SnapshotTimings { freeze_ms, paused_ms, memory_ms, disk_ms, seal_ms } = timings;
        Self { freeze_ms, paused_ms, memory_ms, disk_ms, seal_ms, total_ms }
    }
}

impl From<Paused> for PausedView {
    fn from(paused: Paused) -> Self {
        let timings = CaptureTimings::new(paused.snapshot, paused.total_ms);
        Self { sandbox: paused.sandbox.into(), timings }
    }
}

impl From<Resumed> for ResumedView {
    fn from(resumed: Resumed) -> Self {
        let node = resumed.node;
        let timings = ResumeTimings {
            network_ms: node.network_ms,
            disk_ms: node.disk_ms,
            vmm_spawn_ms: node.vmm_spawn_ms,
            kernel_to_agent_ms: node.kernel_to_agent_ms,
            start_up_ms: node.start_up_ms,
            restore_ms: node.restore_ms,
            agent_init_ms: node.agent_init_ms,
            total_ms: resumed.total_ms,
        };
        Self { sandbox: resumed.sandbox.into(), timings }
    }
}

impl From<Forked> for ForkedView {
    fn from(forked: Forked) -> Self {
        let timings = ForkTimings {
            paused_ms: forked.snapshot.paused_ms,
            memory_ms: forked.snapshot.memory_ms,
            disk_ms: forked.snapshot.disk_ms,
            capture_ms: forked.capture_ms,
            clone_ms: forked.clone_ms,
            total_ms: forked.total_ms,
        };
        Self { forks: forked.forks.into_iter().map(SandboxView::from).collect(), timings }
    }
}

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> Self {
        let timings = snapshot.timings;
        Self {
            id: snapshot.id.into(),
            name: snapshot.name.map(|name| name.to_string()),
            contents: snapshot.contents.into(),
            status: snapshot.status.as_str().to_owned(),
            template: snapshot.template.into(),
            vcpus: snapshot.resources.vcpus,
            memory_mib: snapshot.resources.memory.0,
            disk_mib: snapshot.resources.disk.0,
            source: snapshot.source.into(),
            created_at: snapshot.created_at,
            size_bytes: snapshot.size_bytes,
            timings: CaptureTimings::new(timings, timings.freeze_ms + timings.paused_ms + timings.seal_ms),
            driver: snapshot.driver,
            vmm_version: snapshot.vmm_version,
            clones: snapshot.clones,
        }
    }
}
