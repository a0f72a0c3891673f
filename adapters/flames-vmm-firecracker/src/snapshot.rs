//! The files of a snapshot, on their way out of a cage.
//!
//! Firecracker writes them inside, as its own user. Once whole they become the daemon's, readable and never
//! again writable: clones map them.

use crate::files;
use crate::vm::parts;
use flames_vmm::SnapshotParts;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Readable by each clone's own user, through the directory that only the daemon may enter.
const MODE: u32 = 0o444;

/// Moves both files into `folder`: both are there then, or neither.
pub(crate) async fn take_out(cage: &Path, folder: &Path, vmm_version: &str) -> io::Result<SnapshotParts> {
    let parts = parts(folder, vmm_version);
    let moved = async {
        move_file(&cage.join(files::NEW_MEMORY), &parts.memory).await?;
        move_file(&cage.join(files::NEW_STATE), &parts.device_state).await
    };
    if let Err(error) = moved.await {
        discard(cage).await;
        for file in [&parts.memory, &parts.device_state] {
            let _absent = tokio::fs::remove_file(file).await;
        }
        return Err(error);
    }
    Ok(parts)
}

/// Removes what was not finished.
pub(crate) async fn discard(cage: &Path) {
    for name in [files::NEW_MEMORY, files::NEW_STATE] {
        let _absent = tokio::fs::remove_file(cage.join(name)).await;
    }
}

async fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    std::os::unix::fs::chown(from, Some(uid), Some(gid))?;
    tokio::fs::set_permissions(from, std::fs::Permissions::from_mode(MODE)).await?;
    match tokio::fs::rename(from, to).await {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            tokio::fs::copy(from, to).await?;
            tokio::fs::remove_file(from).await
        }
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn half_a_snapshot_is_none() {
        let (cage, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(cage.path().join(files::NEW_MEMORY), "memory").unwrap();
        take_out(cage.path(), folder.path(), "1.16.1").await.unwrap_err();
        for left in [cage.path(), folder.path()] {
            assert_eq!(std::fs::read_dir(left).unwrap().count(), 0, "{}", left.display());
        }
    }

    #[tokio::test]
    async fn a_whole_snapshot_can_be_read_and_not_be_written() {
        let (cage, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(cage.path().join(files::NEW_MEMORY), "memory").unwrap();
        std::fs::write(cage.path().join(files::NEW_STATE), "state").unwrap();
        let parts = take_out(cage.path(), folder.path(), "1.16.1").await.unwrap();
        assert_eq!(std::fs::read(&parts.memory).unwrap(), b"memory");
        assert_eq!(std::fs::metadata(&parts.device_state).unwrap().permissions().mode() & 0o777, MODE);
    }
}
