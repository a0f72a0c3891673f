//! What is remembered of a snapshot that a user keeps.
//!
//! Two records: `snapshot/<id>`, and `snapshot-name/<name>` that holds the id and keeps the name unique. They
//! are written and removed in one commit.

use crate::SandboxId;
use crate::sandbox::error::{InvalidRequest, SnapshotError};
use crate::sandbox::record::Resources;
use flames_node::{Contents, EgressPolicy, SnapshotId, SnapshotTimings, TemplateName};
use flames_provider::{Error, ErrorKind, Result};
use flames_state::{Key, Precondition, Revision, StateStore, StateStoreExt, Write};
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A snapshot of a sandbox that was running, to create others from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name for ever.
    pub id: SnapshotId,
    /// What the user calls it, unique among snapshots.
    pub name: Option<SnapshotName>,
    /// What it holds.
    #[serde(default)]
    pub contents: Contents,
    /// Whether it can be used.
    pub status: SnapshotStatus,
    /// The template of the sandbox it was taken of; its image is still needed.
    pub template: TemplateName,
    /// What that sandbox may use, and so may its clones.
    pub resources: Resources,
    /// What that sandbox might reach, and so may its clones unless their creates say otherwise.
    #[serde(default)]
    pub network: EgressPolicy,
    /// That sandbox, which may be gone.
    pub source: SandboxId,
    /// When it was taken.
    pub created_at: Timestamp,
    /// What it takes on disk, in bytes.
    pub size_bytes: u64,
    /// How long it took to take it.
    pub timings: SnapshotTimings,
    /// Driver and exact version of the VMM that it belongs to.
    pub driver: String,
    /// See `driver`.
    pub vmm_version: String,
    /// VMs that map its memory right now.
    #[serde(skip)]
    pub clones: usize,
}

/// Whether a snapshot can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// It is being taken.
    Making,
    /// It can be created from.
    Ready,
    /// Its files are not on this node.
    Missing,
}

/// What a user calls a snapshot: a small letter or digit, then up to 62 of `a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// # Errors
    /// [`InvalidRequest`] for anything that does not match `[a-z0-9][a-z0-9._-]{0,62}`.
    pub fn parse(text: &str) -> std::result::Result<Self, InvalidRequest> {
        match TemplateName::parse(text) {
            Ok(name) if name.tag().is_some() => {
                Err(InvalidRequest::new("name", "a snapshot has no tags: leave out ':'"))
            }
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(InvalidRequest::new("name", error.detail_text().unwrap_or("not a name"))),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SnapshotStatus {
    /// As the API and the CLI show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Making => "making",
            Self::Ready => "ready",
            Self::Missing => "missing",
        }
    }
}

/// The snapshots' records.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotRecords {
    store: Arc<dyn StateStore>,
}

const PREFIX: &str = "snapshot/";

impl SnapshotRecords {
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store }
    }

    /// Writes a new record, and takes its name.
    pub(crate) async fn insert(&self, snapshot: &Snapshot) -> std::result::Result<Revision, SnapshotError> {
        let mut writes = vec![put(snapshot, Precondition::Absent)?];
        if let Some(name) = &snapshot.name {
            let id = snapshot.id.as_str().as_bytes().to_vec().into();
            writes.push(Write::Put { key: name_key(name)?, value: id, precondition: Precondition::Absent });
        }
        match self.store.commit(writes).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let name = snapshot.name.as_ref().map_or(snapshot.id.as_str(), SnapshotName::as_str);
                Err(SnapshotError::NameTaken(name.to_owned()))
            }
            written => Ok(written?),
        }
    }

    /// Replaces a record that nobody changed since.
    pub(crate) async fn replace(&self, snapshot: &Snapshot, since: Revision) -> Result<()> {
        self.store.commit(vec![put(snapshot, Precondition::Revision(since))?]).await.map(drop)
    }

    /// Removes a record and gives its name back.
    pub(crate) async fn remove(&self, snapshot: &Snapshot) -> Result<()> {
        let mut writes = vec![Write::Delete { key: key(&snapshot.id)?, precondition: Precondition::None }];
        if let Some(name) = &snapshot.name {
            writes.push(Write::Delete { key: name_key(name)?, precondition: Precondition::None });
        }
        self.store.commit(writes).await.map(drop)
    }

    /// The one with this id or this name.
    pub(crate) async fn find(&self, id_or_name: &str) -> Result<Option<Snapshot>> {
        if let Ok(id) = SnapshotId::parse(id_or_name)
            && let Some(found) = self.store.get_json(&key(&id)?).await?
        {
            return Ok(Some(found.value));
        }
        let Ok(name) = SnapshotName::parse(id_or_name) else { return Ok(None) };
        let Some(named) = self.store.get(&name_key(&name)?).await? else { return Ok(None) };
        let id = SnapshotId::parse(String::from_utf8_lossy(&named.value))?;
        Ok(self.store.get_json(&key(&id)?).await?.map(|found| found.value))
    }

    /// Every one, newest first.
    pub(crate) async fn all(&self) -> Result<Vec<Snapshot>> {
        let mut found: Vec<Snapshot> = Vec::new();
        let mut records = self.store.list_all(PREFIX);
        while let Some(record) = records.try_next().await? {
            found.push(serde_json::from_slice(&record.value).map_err(|error| {
                Error::new(ErrorKind::Corrupt, "record", record.key.as_str()).source(error)
            })?);
        }
        found.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(found)
    }
}

fn put(snapshot: &Snapshot, precondition: Precondition) -> Result<Write> {
    let value = serde_json::to_vec(snapshot)
        .map_err(|error| Error::new(ErrorKind::Internal, "record", snapshot.id.as_str()).source(error))?;
    Ok(Write::Put { key: key(&snapshot.id)?, value: value.into(), precondition })
}

fn key(id: &SnapshotId) -> Result<Key> {
    Key::parse(format!("{PREFIX}{id}"))
}

fn name_key(name: &SnapshotName) -> Result<Key> {
    Key::parse(format!("snapshot-name/{name}"))
}
