//! What is remembered of a sandbox, and how it changes: by compare-and-swap only.

use crate::SandboxId;
use crate::sandbox::error::LifecycleError;
use crate::sandbox::room::expected_use;
use crate::sandbox::state::{Event, State, next};
use flames_node::{
    BootLevel, BootPath, Contents, EgressPolicy, Exit, MiB, RunFacts, SnapshotId, StageTimings, TemplateName,
    VmId,
};
use flames_provider::{Error, ErrorKind};
use flames_state::{Key, Precondition, Record, Revision, StateStore, StateStoreExt, Write};
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

/// A sandbox as the store keeps it. Holds no secret: tokens are derived, environments live in the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its name for ever.
    pub id: SandboxId,
    /// Its present life in a microVM. Events of another run are ignored (hazard L3).
    pub run: VmId,
    /// What it was created from.
    pub template: TemplateName,
    /// Where it is in its life.
    pub state: State,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// The user's own labels.
    pub metadata: BTreeMap<String, String>,
    /// What it may use.
    pub resources: Resources,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its agent first took the handshake.
    pub started_at: Option<Timestamp>,
    /// When the present state began.
    pub changed_at: Timestamp,
    /// When it ends by itself; `None` is never, and also while it rests in a snapshot: its clock stands still.
    pub ends_at: Option<Timestamp>,
    /// What happens at that moment.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// For how many seconds it may run unused before it ends so; `None` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_s: Option<NonZeroU64>,
    /// What was left of its time when it came to rest in a snapshot, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// The snapshot that it rests in, or is being brought back from. Belongs to it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// What that snapshot holds.
    #[serde(default)]
    pub kept: Contents,
    /// The pause or resume that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passing: Option<Passing>,
    /// Where it came from, if not from a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// How requests are led into it.
    #[serde(default)]
    pub entrance: Entrance,
    /// What it may reach.
    #[serde(default)]
    pub network: EgressPolicy,
    /// Its ports that the world may reach.
    #[serde(default)]
    pub ports: BTreeSet<u16>,
    /// How fast its create was asked to be.
    #[serde(default)]
    pub level: BootLevel,
    /// The way that its present run was started.
    #[serde(default)]
    pub path: Option<BootPath>,
    /// Why that way, for people.
    #[serde(default)]
    pub why: String,
    /// How long its create took, by stage.
    pub timings: Timings,
    /// What it has on its host.
    pub facts: Option<RunFacts>,
}

/// How requests from outside are led into a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entrance {
    /// What a request does to a sandbox that rests.
    pub on_request: OnRequest,
    /// Who may reach its servers.
    pub traffic: Traffic,
    /// What its servers see as the host that was asked for; `${PORT}` stands for their port.
    pub host_mask: Option<String>,
}

/// What a request does to a sandbox that rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRequest {
    /// It is answered that there is no such sandbox.
    #[default]
    Refuse,
    /// It waits until the sandbox is back.
    Resume,
}

/// Who may reach the servers in a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Whoever knows its id.
    #[default]
    Open,
    /// Whoever shows its traffic token.
    WithToken,
}

/// What happens to a sandbox at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It is destroyed.
    #[default]
    Kill,
    /// It is paused to disk.
    Pause,
    /// The same without its memory: it boots when it comes back.
    PauseDiskOnly,
}

/// What a pause or a resume began with: to be undone to that if nobody finishes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passing {
    /// The state before.
    pub from: State,
    /// The snapshot that a pause to disk writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<SnapshotId>,
    /// What that snapshot holds.
    #[serde(default)]
    pub contents: Contents,
}

/// Where a sandbox came from, if not from a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", content = "id", rename_all = "snake_case")]
pub enum Origin {
    /// A snapshot by this id.
    Snapshot(SnapshotId),
    /// A running sandbox.
    Fork(SandboxId),
}

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Guest memory.
    pub memory: MiB,
    /// Writable disk.
    pub disk: MiB,
}

/// Why a sandbox ended without being asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Failure {
    /// Its VMM ended by itself.
    VmExited {
        /// What the VMM and the console said last.
        exit: Exit,
    },
    /// Its VMM was gone when the daemon came back.
    LostWhileDown,
    /// Its VMM ended while it was being paused or resumed.
    LostWhile {
        /// Which of the two.
        state: State,
    },
    /// A state that should pass did not pass in time.
    Stuck {
        /// That state.
        state: State,
    },
}

/// Duration of each stage of a create, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// To check the request.
    pub admit_ms: f64,
    /// To write the record.
    pub record_ms: f64,
    /// The node's stages.
    #[serde(flatten)]
    pub node: StageTimings,
    /// From the request until it was handed out.
    pub create_ms: f64,
    /// From the first command's request to its first output, once there was one.
    pub first_command_ms: Option<f64>,
}

/// A record with the revision that a change must name.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) sandbox: Sandbox,
    pub(crate) revision: Revision,
}

/// The sandboxes' records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    store: Arc<dyn StateStore>,
}

/// What the keys of all sandboxes' records start with.
pub(crate) const PREFIX: &str = "sandbox/";
/// So many take about a millisecond to parse.
const PARSED_AT_ONCE: usize = 256;

impl Records {
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store }
    }

    /// Writes a record that must not exist yet.
    pub(crate) async fn insert(&self, sandbox: Sandbox) -> Result<Stored, LifecycleError> {
        let value = encode(&sandbox)?;
        let revision = self.store.create(key(&sandbox.id)?, value).await?;
        Ok(Stored { sandbox, revision })
    }

    pub(crate) async fn load(&self, id: &SandboxId) -> Result<Stored, LifecycleError> {
        match self.store.get(&key(id)?).await? {
            Some(record) => stored(&record),
            None => Err(LifecycleError::NotFound(id.clone())),
        }
    }

    /// Replaces a record if nobody else did since it was read.
    pub(crate) async fn replace(&self, from: &Stored, sandbox: Sandbox) -> Result<Stored, LifecycleError> {
        let value = encode(&sandbox)?;
        let revision = self.store.compare_and_swap(key(&sandbox.id)?, value, from.revision).await?;
        Ok(Stored { sandbox, revision })
    }

    /// Applies `change` to the newest record until nobody else was faster. `change` decides on what it is
    /// given, so a lost race is decided anew and not overwritten.
    pub(crate) async fn update(
        &self,
        id: &SandboxId,
        change: impl FnMut(&mut Sandbox) -> Result<(), LifecycleError>,
    ) -> Result<Stored, LifecycleError> {
        self.update_from(self.load(id).await?, change).await
    }

    /// The same, beginning with a record that was read a moment ago.
    pub(crate) async fn update_from(
        &self,
        mut stored: Stored,
        mut change: impl FnMut(&mut Sandbox) -> Result<(), LifecycleError>,
    ) -> Result<Stored, LifecycleError> {
        loop {
            let mut changed = stored.sandbox.clone();
            change(&mut changed)?;
            match self.replace(&stored, changed).await {
                Err(LifecycleError::Store(error)) if error.kind() == ErrorKind::Conflict => {
                    stored = self.load(&stored.sandbox.id).await?;
                }
                settled => return settled,
            }
        }
    }

    /// Removes a record if nobody changed it since it was read.
    pub(crate) async fn remove(&self, stored: &Stored) -> Result<(), LifecycleError> {
        let write = Write::Delete {
            key: key(&stored.sandbox.id)?,
            precondition: Precondition::Revision(stored.revision),
        };
        self.store.commit(vec![write]).await?;
        Ok(())
    }

    /// Removes the record of a sandbox of which nothing is left, whatever was noted in it meanwhile. One that
    /// is gone already is fine: the first of two callers has removed it.
    pub(crate) async fn forget(&self, id: &SandboxId) -> Result<(), LifecycleError> {
        self.store.delete(key(id)?, Precondition::None).await?;
        Ok(())
    }

    /// Every record, in no promised order. They are parsed beside the runtime: of ten thousand that is a tenth of a
    /// second, for which no request shall wait.
    pub(crate) async fn all(&self) -> Result<Vec<Stored>, LifecycleError> {
        let mut found = Vec::new();
        let mut pages = self.store.list_all(PREFIX).try_chunks(PARSED_AT_ONCE);
        while let Some(page) = pages.try_next().await.map_err(|error| error.1)? {
            let parse = move || page.iter().map(stored).collect::<Result<Vec<_>, _>>();
            found.append(&mut tokio::task::spawn_blocking(parse).await.map_err(not_parsed)??);
        }
        Ok(found)
    }
}

impl Sandbox {
    /// Takes an event: the new state, and since when.
    pub(crate) fn take(&mut self, event: Event, now: Timestamp) -> Result<(), LifecycleError> {
        self.state = next(self.state, event)?;
        self.changed_at = now;
        if !matches!(self.state, State::Pausing | State::Resuming) {
            self.settle_passing();
        }
        Ok(())
    }

    /// A pause that came to its end leaves its snapshot to the sandbox, for resting in or for removing; one
    /// that was undone has none.
    fn settle_passing(&mut self) {
        let Some(Passing { writes: Some(writes), contents, .. }) = self.passing.take() else { return };
        if !matches!(self.state, State::Running | State::Paused) && self.snapshot.is_none() {
            self.snapshot = Some(writes);
            self.kept = contents;
        }
    }

    /// What the snapshot holds that it rests in or is about to rest in.
    pub fn keeps(&self) -> Contents {
        let writing = self.passing.as_ref().filter(|passing| passing.writes.is_some());
        writing.map_or(self.kept, |passing| passing.contents)
    }

    /// What it is expected to use of the machine's memory, in MiB.
    pub(crate) fn expected_use(&self) -> u64 {
        expected_use(&self.resources, self.path.unwrap_or(BootPath::Cold))
    }

    /// True while it does work or could at once: commands, ports, timeouts.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }
}

fn key(id: &SandboxId) -> Result<Key, LifecycleError> {
    Ok(Key::parse(format!("{PREFIX}{id}"))?)
}

fn stored(record: &Record) -> Result<Stored, LifecycleError> {
    Ok(Stored { sandbox: decode(&record.value)?, revision: record.revision })
}

/// The runtime shuts down.
fn not_parsed(source: tokio::task::JoinError) -> LifecycleError {
    LifecycleError::Store(
        Error::new(ErrorKind::Unavailable, "record", PREFIX).operation("list").source(source),
    )
}

fn encode(sandbox: &Sandbox) -> Result<bytes::Bytes, LifecycleError> {
    Ok(serde_json::to_vec(sandbox)?.into())
}

fn decode(value: &[u8]) -> Result<Sandbox, LifecycleError> {
    Ok(serde_json::from_slice(value)?)
}
