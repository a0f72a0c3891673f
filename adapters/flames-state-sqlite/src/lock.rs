//! One process per database: the kernel frees the lock when the process ends, however it ends.

use crate::error::Subject;
use flames_state::{ErrorKind, Result};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Held while the store is open. The file stays: removing it would let two processes lock two files.
#[derive(Debug)]
pub(crate) struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    pub(crate) fn acquire(database: &Path) -> Result<Self> {
        let subject = Subject::new("open", "database", database.display().to_string());
        let file = File::create(lock_path(database)).map_err(|error| {
            let detail = format!("its folder must exist and be writable: {error}");
            subject.error(ErrorKind::PermissionDenied).detail(detail).source(error)
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(subject
                .error(ErrorKind::Conflict)
                .detail("another process, or another store of this one, has it open")),
            Err(TryLockError::Error(error)) => Err(subject.error(ErrorKind::Unavailable).source(error)),
        }
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}
