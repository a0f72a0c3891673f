//! Snapshots of runs, as the control plane sees them.

mod manifest;
mod store;

pub(crate) use manifest::{Captured, GuestFacts, GuestSettings, HostFacts, hash_file};
pub(crate) use store::{Partial, Snapshot, Snapshots, info};

use crate::TemplateName;
use flames_vmm::{Error, ErrorKind, MiB, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

pub(crate) const MEMORY: &str = "memory";
pub(crate) const DEVICE_STATE: &str = "device_state";
pub(crate) const DISK: &str = "disk.ext4";
/// The guest's read-only disks, kept as long as the snapshot is.
pub(crate) const AGENT_DISK: &str = "agent.erofs";
pub(crate) const IMAGE_DISK: &str = "image.erofs";

/// The name of a snapshot: 1 to 64 of `a-z 0-9 -`, safe in paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

impl SnapshotId {
    /// # Errors
    /// `InvalidInput` for anything but 1 to 64 of `a-z 0-9 -`.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text));
        }
        Err(Error::new(ErrorKind::InvalidInput, "snapshot id", text)
            .detail("must be 1 to 64 of a-z, 0-9 and -"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.0
    }
}

/// How to take a snapshot of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeSnapshot {
    /// Its name; never used twice.
    pub id: SnapshotId,
    /// What becomes of the run.
    pub then: AfterSnapshot,
    /// How long it must last.
    pub keep: Keep,
    /// What it holds of the run.
    pub contents: Contents,
}

/// What a snapshot holds of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contents {
    /// Everything: who starts from it goes on where the run was.
    #[default]
    MemoryAndDisk,
    /// Its files: who starts from it boots, on any host. The disk was synced and frozen before it was copied.
    DiskOnly,
}

impl Contents {
    /// The parts that a start reads, by file name. Of memory and disk the first two are the driver's.
    pub(crate) fn parts(self) -> &'static [&'static str] {
        match self {
            Self::MemoryAndDisk => &[MEMORY, DEVICE_STATE, DISK],
            Self::DiskOnly => &[DISK],
        }
    }

    /// As the API and the CLI show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryAndDisk => "memory_and_disk",
            Self::DiskOnly => "disk_only",
        }
    }
}

/// What becomes of a run after its snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterSnapshot {
    /// It goes on (or stays paused, if it was).
    GoOn,
    /// It ends once the snapshot is safe, and its VMM with it. When the snapshot fails, it goes on.
    End,
}

/// How long a snapshot must last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// On disk before the call returns, until it is removed.
    UntilRemoved,
    /// For forks that follow at once: may be lost with the machine.
    ForForks,
}

/// A snapshot on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its name.
    pub id: SnapshotId,
    /// What it holds.
    #[serde(default)]
    pub contents: Contents,
    /// The template of the run it was taken of.
    pub template: TemplateName,
    /// Virtual CPUs of that run.
    pub vcpus: u8,
    /// Guest memory of that run.
    pub memory: MiB,
    /// Size of its writable disk.
    pub disk: MiB,
    /// Bytes that its parts take on this node's disk.
    pub size_bytes: u64,
    /// When it was taken, in seconds since 1970.
    pub created_unix: u64,
    /// Driver and exact version of the VMM that it belongs to.
    pub driver: String,
    /// See `driver`.
    pub vmm_version: String,
    /// Runs on this node that map its memory.
    pub clones: usize,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TakenSnapshot {
    /// What there is now.
    pub info: SnapshotInfo,
    /// How long it took.
    pub timings: SnapshotTimings,
}

/// Duration of a snapshot's stages, each in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotTimings {
    /// To write out what the guest had not written yet, and to freeze its file system; of a disk alone.
    #[serde(default)]
    pub freeze_ms: f64,
    /// How long the guest stood still: memory, device state and disk were captured meanwhile.
    pub paused_ms: f64,
    /// Of that: to capture memory and device state.
    pub memory_ms: f64,
    /// Of that: to copy the disk.
    pub disk_ms: f64,
    /// To hash the parts and to bring them to stable storage, while the guest ran again.
    pub seal_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_id_cannot_leave_a_path() {
        for bad in ["", "A", "a/b", "..", "a b", &"a".repeat(65)] {
            assert_eq!(SnapshotId::parse(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        assert_eq!(SnapshotId::parse("s0a").unwrap().as_str(), "s0a");
    }
}
