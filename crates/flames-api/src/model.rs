//! What goes over the wire. Shared with the CLI, which reads what the routes write.

mod lifecycle;
mod monitor;

pub use lifecycle::{
    CaptureTimings, ContentsView, ForkRequest, ForkTimings, ForkedView, PauseModeView, PauseRequest,
    PausedView, PoolList, ResumeRequest, ResumeTimings, ResumedView, SnapshotList, SnapshotRequest,
    SnapshotView,
};
pub use monitor::{AlertList, AlertRuleView, AlertView, RunUsageView, TopView};

use flames_core::sandbox::record::{Failure, OnTimeout, Origin, Sandbox, Timings};
use flames_egress::{PolicySpec, Traffic};
use flames_node::{Capacity, Entry, Leak, RunFacts, Template};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use utoipa::ToSchema;

/// A sandbox to make, from a template or from a snapshot. Everything else has a default.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// Name of the template; left out with `from_snapshot`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "mini")]
    pub template: String,
    /// Id or name of a snapshot to start from. The new sandbox has that snapshot's memory, processes, files and
    /// sizes, and an identity of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_snapshot: Option<String>,
    /// Virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Guest memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Writable disk in MiB. Sparse: only what is written takes room on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u32>,
    /// Labels of your own, to list by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Environment of every process in the sandbox.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Seconds until it ends by itself; 0 is never. Default: what the daemon is configured to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// What happens then.
    #[serde(default)]
    pub on_timeout: OnTimeoutView,
    /// Seconds that it may run unused before it ends in the same way: no request into it, no open stream, no command
    /// whose output somebody follows. Default: as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_s: Option<u64>,
    /// How fast it should be: `standard`, `fast`, `ultra-fast`, `sub2-second` or `instant`. Default: what the
    /// daemon is configured to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "instant")]
    pub level: Option<String>,
    /// Whom a process runs as when nobody is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where a process starts when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// What it may reach. Default: nothing; with `from_snapshot`, what the captured sandbox might reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<PolicySpec>,
}

/// What happens to a sandbox when its time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeoutView {
    /// It is destroyed.
    #[default]
    Kill,
    /// It is paused to disk.
    Pause,
    /// It is paused to disk without its memory.
    PauseDiskOnly,
}

/// A sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SandboxView {
    /// Its name for ever.
    #[schema(example = "i3k9vq0c8w2m1x7r5t6ya")]
    pub id: String,
    /// What it was created from.
    pub template: String,
    /// `starting`, `running`, `pausing`, `paused` (in memory), `snapshotted` (on disk), `resuming`, `stopping`,
    /// `failed`, …
    pub state: String,
    /// What it kept, while it is `snapshotted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<ContentsView>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub failure: Option<Failure>,
    /// Your labels.
    pub metadata: BTreeMap<String, String>,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Writable disk in MiB.
    pub disk_mib: u32,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was first handed out.
    pub started_at: Option<Timestamp>,
    /// When it ends by itself; `null` is never, and also while it is `snapshotted`: its clock stands still.
    pub ends_at: Option<Timestamp>,
    /// What happens then.
    #[serde(default)]
    pub on_timeout: OnTimeoutView,
    /// Seconds that it may run unused before it ends in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_s: Option<u64>,
    /// The snapshot it was created from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_snapshot: Option<String>,
    /// The sandbox it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    /// Its ports that the world may reach.
    #[serde(default)]
    pub ports: BTreeSet<u16>,
    /// What it may reach.
    #[serde(default)]
    pub network: PolicySpec,
    /// How fast its create was asked to be.
    #[serde(default)]
    pub level: String,
    /// The way that its present run was started: `warm`, `restored` or `cold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why that way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How long its create took.
    pub timings: TimingsView,
    /// What it has on its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub host: Option<RunFacts>,
}

/// What a sandbox may reach, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// What it may reach.
    pub policy: PolicySpec,
    /// What its present run sent and received, and what was dropped; absent while it has none, and on a host that runs
    /// without root and counts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

/// Duration of each stage of a create, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimingsView {
    /// To check the request.
    pub admit_ms: f64,
    /// To write the record.
    pub record_ms: f64,
    /// To take a network slot.
    pub network_ms: f64,
    /// To make the writable disk.
    pub disk_ms: f64,
    /// From the start of the VMM's process until only the guest was missing.
    pub vmm_spawn_ms: f64,
    /// From the first guest instruction until the agent reported.
    pub kernel_to_agent_ms: f64,
    /// To load a snapshot's device state and let the guest run; zero for a guest that was booted.
    #[serde(default)]
    pub restore_ms: f64,
    /// For the handshake with the agent.
    pub agent_init_ms: f64,
    /// For the template's start command; zero for a guest that was restored, and for a template without.
    #[serde(default)]
    pub start_up_ms: f64,
    /// From the request until it was handed out.
    pub create_ms: f64,
    /// From the first command's request to its first output, once there was one.
    pub first_command_ms: Option<f64>,
}

/// Some sandboxes, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SandboxPage {
    /// The sandboxes.
    pub sandboxes: Vec<SandboxView>,
    /// Hand it back as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// When a sandbox should end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutRequest {
    /// Seconds from now; 0 is never.
    pub timeout_s: u64,
}

/// A command to run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments. No shell is involved unless you name one.
    #[schema(example = json!(["/bin/echo", "hello"]))]
    pub command: Vec<String>,
    /// Environment on top of the sandbox's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it starts; default: the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Whom it runs as; default: the sandbox's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where its standard input comes from.
    #[serde(default)]
    pub stdin: StdinMode,
    /// Seconds until the agent kills it; 0 or absent is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// Runs it on a terminal of this size: what is posted to `…/processes/{pid}/terminal` is typed, and all its
    /// output is standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Width.
    #[schema(minimum = 1)]
    pub columns: u16,
    /// Height.
    #[schema(minimum = 1)]
    pub rows: u16,
}

/// Where a command's standard input comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StdinMode {
    /// It reads an end of file at once.
    #[default]
    Null,
    /// It reads what is posted to `…/processes/{pid}/stdin`, until that is deleted.
    Open,
}

/// One line of a command's stream (`application/x-ndjson`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecEvent {
    /// It runs. Always the first line.
    Started {
        /// Its process id inside the guest.
        pid: u32,
    },
    /// It wrote to its standard output.
    Stdout {
        /// The bytes in base64.
        data: String,
    },
    /// It wrote to its standard error.
    Stderr {
        /// The bytes in base64.
        data: String,
    },
    /// It ended. Always the last line, unless there is an error.
    Exit {
        /// Its exit code; -1 if a signal ended it.
        exit_code: i32,
        /// In words, for example `exit status 3` or `signal: killed`.
        status: String,
        /// From the request to the first output, or to the end if there was none, in milliseconds.
        first_output_ms: f64,
    },
    /// The stream broke: nobody knows how the command ended.
    Error {
        /// Why.
        problem: Box<crate::Problem>,
    },
}

/// A process that was started through the API and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessView {
    /// Its id inside the guest.
    pub pid: u32,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it was started, if that was said.
    pub cwd: Option<String>,
}

/// A signal to send.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Which one.
    pub signal: SignalName,
}

/// Signals the agent can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum SignalName {
    /// Asks it to end.
    #[serde(rename = "SIGTERM")]
    Term,
    /// Ends it.
    #[serde(rename = "SIGKILL")]
    Kill,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WrittenFile {
    /// Its absolute path in the sandbox.
    pub path: String,
}

/// A port that the world reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExposedPort {
    /// The port in the sandbox.
    pub port: u16,
    /// Where clients reach it.
    pub url: String,
}

/// A sandbox was created, changed or removed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SandboxEvent {
    /// Where to go on after a break.
    pub revision: u64,
    /// Which sandbox.
    pub id: String,
    /// What it is now; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxView>,
}

/// What is in a directory.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EntryList {
    /// In lexical order, depth first.
    #[schema(value_type = Vec<Object>)]
    pub entries: Vec<Entry>,
}

/// What sandboxes can be created from.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TemplateList {
    /// By name.
    #[schema(value_type = Vec<Object>)]
    pub templates: Vec<Template>,
}

/// What creates from a template get when they do not say otherwise.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateSettingsView {
    /// How fast a create is: `standard`, `fast`, `ultra-fast`, `sub2-second` or `instant`; without it, the daemon's
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

/// A template to build from what is on the node.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// The name to give.
    pub name: String,
    /// A directory tree on the node. Give this or `tar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// A tar archive on the node. Give this or `directory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tar: Option<String>,
    /// What its sandboxes run from the start: a command of `/bin/sh -lc` by root, without network. Clones of the
    /// template's snapshot find it running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_command: Option<String>,
    /// A command that succeeds once what `start_command` starts is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_command: Option<String>,
}

/// One line of a build's stream (`application/x-ndjson`).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BuildEvent {
    /// How far it is.
    Progress {
        /// `unpacking`, `packing` or `hashing`, with its numbers.
        #[schema(value_type = Object)]
        progress: serde_json::Value,
    },
    /// It is there. The last line.
    Done {
        /// The template.
        #[schema(value_type = Object)]
        template: Box<Template>,
    },
    /// It failed, and nothing changed. The last line.
    Error {
        /// Why.
        problem: Box<crate::Problem>,
    },
}

/// The host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// What it has and what is left.
    #[schema(value_type = Object)]
    pub capacity: Capacity,
    /// Resources by kind: owned, and left behind by somebody.
    #[schema(value_type = Vec<Object>)]
    pub resources: Vec<Leak>,
}

/// An API key to make.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// What to call it, 1 to 64 bytes.
    pub name: String,
}

/// An API key, without the key itself.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// To revoke it by.
    pub id: String,
    /// What its maker called it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A new API key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    /// To revoke it by.
    pub id: String,
    /// The key. It cannot be shown again.
    pub key: String,
}

impl From<Sandbox> for SandboxView {
    fn from(sandbox: Sandbox) -> Self {
        let (from_snapshot, forked_from) = match sandbox.origin {
            Some(Origin::Snapshot(id)) => (Some(id.to_string()), None),
            Some(Origin::Fork(id)) => (None, Some(id.to_string())),
            None => (None, None),
        };
        Self {
            on_timeout: sandbox.on_timeout.into(),
            idle_timeout_s: sandbox.idle_timeout_s.map(NonZeroU64::get),
            from_snapshot,
            forked_from,
            id: sandbox.id.into(),
            template: sandbox.template.into(),
            state: sandbox.state.as_str().to_owned(),
            kept: sandbox.snapshot.map(|_| sandbox.kept.into()),
            failure: sandbox.failure,
            metadata: sandbox.metadata,
            vcpus: sandbox.resources.vcpus,
            memory_mib: sandbox.resources.memory.0,
            disk_mib: sandbox.resources.disk.0,
            created_at: sandbox.created_at,
            started_at: sandbox.started_at,
            ends_at: sandbox.ends_at,
            ports: sandbox.ports,
            network: sandbox.network.into(),
            level: sandbox.level.name().to_owned(),
            path: sandbox.path.map(|path| path.name().to_owned()),
            why: sandbox.why,
            timings: sandbox.timings.into(),
            host: sandbox.facts,
        }
    }
}

impl From<OnTimeout> for OnTimeoutView {
    fn from(on_timeout: OnTimeout) -> Self {
        match on_timeout {
            OnTimeout::Kill => Self::Kill,
            OnTimeout::Pause => Self::Pause,
            OnTimeout::PauseDiskOnly => Self::PauseDiskOnly,
        }
    }
}

impl From<OnTimeoutView> for OnTimeout {
    fn from(on_timeout: OnTimeoutView) -> Self {
        match on_timeout {
            OnTimeoutView::Kill => Self::Kill,
            OnTimeoutView::Pause => Self::Pause,
            OnTimeoutView::PauseDiskOnly => Self::PauseDiskOnly,
        }
    }
}

impl From<Timings> for TimingsView {
    fn from(timings: Timings) -> Self {
        Self {
            admit_ms: timings.admit_ms,
            record_ms: timings.record_ms,
            network_ms: timings.node.network_ms,
            disk_ms: timings.node.disk_ms,
            vmm_spawn_ms: timings.node.vmm_spawn_ms,
            kernel_to_agent_ms: timings.node.kernel_to_agent_ms,
            restore_ms: timings.node.restore_ms,
            agent_init_ms: timings.node.agent_init_ms,
            start_up_ms: timings.node.start_up_ms,
            create_ms: timings.create_ms,
            first_command_ms: timings.first_command_ms,
        }
    }
}
