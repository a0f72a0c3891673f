//! The files of a snapshot: written once and whole, and looked at before they are used.

use crate::spec::{MiB, SnapshotParts};
use flames_provider::{Error, ErrorKind, Result};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The parts of a snapshot while a driver writes them. Unless it is finished, both files go when it is dropped.
#[derive(Debug)]
pub struct UnfinishedParts {
    memory: PathBuf,
    device_state: PathBuf,
    /// Those that were made here.
    to_remove: Vec<PathBuf>,
}

const MEMORY: &str = "memory";
const DEVICE_STATE: &str = "device_state";
/// They hold whatever the guest knew.
const MODE: u32 = 0o600;

impl UnfinishedParts {
    /// Makes both files, empty, in the folder `into`. Their paths are absolute: a VMM runs in another folder.
    ///
    /// # Errors
    /// `AlreadyExists` if one is there; `Unavailable` if it cannot be made. Nothing is left behind.
    pub fn create(into: &Path) -> Result<Self> {
        let into =
            std::path::absolute(into).map_err(|error| Self::cannot_write(into, &error).source(error))?;
        let (memory, device_state) = (into.join(MEMORY), into.join(DEVICE_STATE));
        let mut parts = Self { memory, device_state, to_remove: Vec::new() };
        for path in [parts.memory.clone(), parts.device_state.clone()] {
            create_new(&path)?;
            parts.to_remove.push(path);
        }
        Ok(parts)
    }

    /// Where the guest's memory goes.
    pub fn memory(&self) -> &Path {
        &self.memory
    }

    /// Where the device state goes.
    pub fn device_state(&self) -> &Path {
        &self.device_state
    }

    /// Declares both files complete. `vmm_version` is the exact version of the VMM that wrote them.
    pub fn finish(mut self, vmm_version: impl Into<String>) -> SnapshotParts {
        self.to_remove.clear();
        let (memory, device_state) = (self.memory.clone(), self.device_state.clone());
        SnapshotParts { memory, device_state, vmm_version: vmm_version.into() }
    }

    /// The error for a part that cannot be written, which names the file and the mend.
    pub fn cannot_write(path: &Path, reason: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Unavailable, "snapshot part", path.display().to_string())
            .detail(format!("cannot write it: {reason}; free space there, or choose another disk"))
    }
}

impl Drop for UnfinishedParts {
    fn drop(&mut self) {
        for path in &self.to_remove {
            // Whoever asked for the snapshot is told of the first fault; a file that stays is one more of it.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn create_new(path: &Path) -> Result<()> {
    match File::options().write(true).create_new(true).mode(MODE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let id = path.display().to_string();
            Err(Error::new(ErrorKind::AlreadyExists, "snapshot part", id)
                .detail("parts are written once; choose an empty folder"))
        }
        Err(error) => Err(UnfinishedParts::cannot_write(path, &error).source(error)),
    }
}

impl SnapshotParts {
    /// Refuses parts from which the VMM of this `version` could not continue a guest that has this much memory.
    /// Drivers call it first. It reads no content: whether that was altered, a hash kept elsewhere must tell.
    ///
    /// # Errors
    /// `Conflict` for another version; `Corrupt` for a part that is missing, empty, or of another size.
    pub async fn check(&self, memory: MiB, version: &str) -> Result<()> {
        self.check_version(version)?;
        let found = file(&self.memory).await?.len();
        if found != memory.bytes() {
            let detail = format!("is {found} bytes long and must be {}; boot instead", memory.bytes());
            return Err(corrupt(&self.memory, detail));
        }
        if file(&self.device_state).await?.len() == 0 {
            return Err(corrupt(&self.device_state, "is empty; boot instead".into()));
        }
        Ok(())
    }

    /// The part of [`SnapshotParts::check`] that looks at no file.
    ///
    /// # Errors
    /// `Conflict` for another version.
    pub fn check_version(&self, version: &str) -> Result<()> {
        if self.vmm_version == version {
            return Ok(());
        }
        let id = self.device_state.display().to_string();
        Err(Error::new(ErrorKind::Conflict, "snapshot part", id).detail(format!(
            "was written by version {} of the VMM, and this is {version}; boot instead, and take it anew",
            self.vmm_version
        )))
    }
}

async fn file(path: &Path) -> Result<Metadata> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) if metadata.is_file() => Ok(metadata),
        Ok(_) => Err(corrupt(path, "is no regular file; boot instead".into())),
        Err(error) => Err(corrupt(path, format!("cannot be used: {error}; boot instead")).source(error)),
    }
}

fn corrupt(path: &Path, detail: String) -> Error {
    Error::new(ErrorKind::Corrupt, "snapshot part", path.display().to_string()).detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn parts_that_are_not_finished_go_and_finished_ones_stay_and_are_private() {
        let folder = tempfile::tempdir().unwrap();
        drop(UnfinishedParts::create(folder.path()).unwrap());
        assert!(names(folder.path()).is_empty());
        let parts = UnfinishedParts::create(folder.path()).unwrap().finish("1");
        for path in [parts.memory, parts.device_state] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        }
    }

    #[test]
    fn a_part_that_is_there_is_neither_overwritten_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(DEVICE_STATE), "precious").unwrap();
        let error = UnfinishedParts::create(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()), [DEVICE_STATE]);
        assert_eq!(std::fs::read(folder.path().join(DEVICE_STATE)).unwrap(), b"precious");
    }
}
