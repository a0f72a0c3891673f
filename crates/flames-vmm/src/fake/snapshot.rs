//! Snapshots of fake machines: a sparse file as large as the memory, and what the guest was about as JSON.

use super::guest::FakeGuest;
use crate::parts::UnfinishedParts;
use crate::spec::{MiB, SnapshotParts};
use flames_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// What survives a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuestState {
    pub(crate) guest: FakeGuest,
    pub(crate) ticks: u64,
}

/// Content of the device state: a fake has no devices, but a state that was altered must be noticed.
const DEVICES: &[u8] = b"FAKE";

/// Whether there is space for a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Enough,
    None,
}

pub(crate) fn write(
    into: &Path,
    memory: MiB,
    state: &GuestState,
    version: &str,
    space: Space,
) -> Result<SnapshotParts> {
    let parts = UnfinishedParts::create(into)?;
    let broken = |path: &Path, error: io::Error| UnfinishedParts::cannot_write(path, &error).source(error);
    std::fs::write(parts.device_state(), DEVICES).map_err(|error| broken(parts.device_state(), error))?;
    if space == Space::None {
        return Err(broken(parts.memory(), io::ErrorKind::StorageFull.into()));
    }
    write_memory(parts.memory(), memory, state).map_err(|error| broken(parts.memory(), error))?;
    Ok(parts.finish(version))
}

fn write_memory(path: &Path, size: MiB, state: &GuestState) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.set_len(size.bytes())
}

pub(crate) async fn read(parts: &SnapshotParts, memory: MiB, version: &str) -> Result<GuestState> {
    parts.check(memory, version).await?;
    let corrupt = |path: &Path, detail: String| {
        Error::new(ErrorKind::Corrupt, "snapshot part", path.display().to_string()).detail(detail)
    };
    if std::fs::read(&parts.device_state).ok().as_deref() != Some(DEVICES) {
        return Err(corrupt(&parts.device_state, "is no device state of a fake".into()));
    }
    read_state(&parts.memory).map_err(|error| corrupt(&parts.memory, error.to_string()))
}

fn read_state(path: &Path) -> io::Result<GuestState> {
    let mut content = serde_json::Deserializer::from_reader(File::open(path)?);
    Ok(GuestState::deserialize(&mut content)?)
}
