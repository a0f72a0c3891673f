//! The files of a snapshot, on their way out of a cage.
//!
//! Firecracker writes them inside, as its own user. Once whole they become the daemon's.

use crate::files;
use flames_vmm::jail::{Access, open_to_others};
use flames_vmm::{Error, Result, SnapshotParts, UnfinishedParts};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// What was written inside a cage. Removed when dropped, unless it was taken out.
#[derive(Debug)]
pub(crate) struct Inside {
    memory: PathBuf,
    device_state: PathBuf,
}

/// They hold whatever the guest knew.
const MODE: u32 = 0o600;

impl Inside {
    pub(crate) fn new(cage: &Path) -> Self {
        Self { memory: cage.join(files::NEW_MEMORY), device_state: cage.join(files::NEW_STATE) }
    }

    /// Moves both files to where `parts` wants them: both are there then, or neither.
    pub(crate) async fn take_out(self, parts: UnfinishedParts, vmm_version: &str) -> Result<SnapshotParts> {
        move_file(&self.memory, parts.memory()).await?;
        move_file(&self.device_state, parts.device_state()).await?;
        Ok(parts.finish(vmm_version))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        for path in [&self.memory, &self.device_state] {
            let _gone_already = std::fs::remove_file(path);
        }
    }
}

async fn move_file(from: &Path, to: &Path) -> Result<()> {
    try_move(from, to)
        .await
        .map_err(|error| -> Error { UnfinishedParts::cannot_write(to, &error).source(error) })
}

async fn try_move(from: &Path, to: &Path) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    chown(from, Some(uid), Some(gid))?;
    tokio::fs::set_permissions(from, std::fs::Permissions::from_mode(MODE)).await?;
    match tokio::fs::rename(from, to).await {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            tokio::fs::copy(from, to).await.map(drop)
        }
        renamed => renamed,
    }
}

/// Lets each clone's own user read the parts.
pub(crate) fn make_readable(parts: &SnapshotParts) -> io::Result<()> {
    [&parts.memory, &parts.device_state].into_iter().try_for_each(|path| open_to_others(path, Access::Read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(folder: &Path) -> bool {
        std::fs::read_dir(folder).unwrap().count() == 0
    }

    #[tokio::test]
    async fn half_a_snapshot_is_none() {
        let (cage, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(cage.path().join(files::NEW_MEMORY), "memory").unwrap();
        let parts = UnfinishedParts::create(folder.path()).unwrap();
        Inside::new(cage.path()).take_out(parts, "1.16.1").await.unwrap_err();
        assert!(is_empty(cage.path()) && is_empty(folder.path()));
    }

    #[tokio::test]
    async fn a_whole_snapshot_is_the_daemons_and_clones_may_read_it_when_there_is_one() {
        let (cage, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(cage.path().join(files::NEW_MEMORY), "memory").unwrap();
        std::fs::write(cage.path().join(files::NEW_STATE), "state").unwrap();
        let parts = UnfinishedParts::create(folder.path()).unwrap();
        let parts = Inside::new(cage.path()).take_out(parts, "1.16.1").await.unwrap();
        let mode = || std::fs::metadata(&parts.memory).unwrap().permissions().mode() & 0o777;
        assert_eq!((std::fs::read(&parts.memory).unwrap().as_slice(), mode()), (&b"memory"[..], MODE));
        assert!(is_empty(cage.path()));
        make_readable(&parts).unwrap();
        assert_eq!(mode(), 0o644);
    }
}
