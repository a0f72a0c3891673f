//! The files of a snapshot, on their way out of a cage.
//!
//! Firecracker writes them inside, as its own user. Once whole they become the daemon's.

use crate::files;
use flames_vmm::jail::{Access, open_to_others};
use flames_vmm::{Error, Result, SnapshotParts, UnfinishedParts};
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
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

    /// Lays a copy of an earlier memory where the new one is to be: Firecracker writes into it what has changed since.
    /// On file systems that can, the copy shares its blocks.
    pub(crate) async fn lay_base(&self, base: File) -> io::Result<()> {
        let (memory, cage) = (self.memory.clone(), self.memory.parent().map(Path::to_owned));
        let copied = tokio::task::spawn_blocking(move || {
            let owner = std::fs::metadata(cage.unwrap_or_default())?;
            let mut copy = File::options().write(true).create_new(true).mode(MODE).open(&memory)?;
            if rustix::fs::ioctl_ficlone(&copy, &base).is_err() {
                // From the start, wherever an earlier copy left off.
                (&base).rewind()?;
                io::copy(&mut &base, &mut copy)?;
            }
            chown(&memory, Some(owner.uid()), Some(owner.gid()))
        });
        let copied = copied.await.map_err(io::Error::other).flatten();
        if copied.is_err() {
            let _nothing_there = std::fs::remove_file(&self.memory);
        }
        copied
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
    async fn a_base_is_copied_whole_each_time_and_stays_as_it_is() {
        let (cage, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let base = folder.path().join("base");
        std::fs::write(&base, "memory").unwrap();
        let file = File::open(&base).unwrap();
        for _ in 0..2 {
            let inside = Inside::new(cage.path());
            inside.lay_base(file.try_clone().unwrap()).await.unwrap();
            assert_eq!(std::fs::read(&inside.memory).unwrap(), b"memory");
            std::fs::write(&inside.memory, "altered").unwrap();
            assert!(inside.lay_base(file.try_clone().unwrap()).await.is_err(), "one is there");
        }
        assert_eq!(std::fs::read(&base).unwrap(), b"memory");
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
