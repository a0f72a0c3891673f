//! A folder of snapshots: each is written once under a hidden name, renamed into place, and never changed (hazard C7).
//!
//! ```text
//! <root>/<id>/        manifest.json, memory, device_state, disk.ext4, agent.erofs, image.erofs, lock
//!        └ removed    nobody may start from it any more; its last user takes the folder away
//! <root>/.<id>.partial/   being written
//! ```
//!
//! Who uses a snapshot holds an [`Arc`] of it, and the process holds a shared lock on its `lock` file while there is
//! one: so neither this daemon nor another that shares the folder removes what somebody maps.

use super::manifest::{Captured, HostFacts, Manifest};
use super::{AGENT_DISK, DEVICE_STATE, DISK, IMAGE_DISK, Keep, MEMORY};
use crate::paths::{io_error, make_private_dir};
use crate::template::write_json;
use crate::{SnapshotId, SnapshotInfo};
use flames_vmm::{Error, ErrorKind, Result, SnapshotParts};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const MANIFEST: &str = "manifest.json";
const LOCK: &str = "lock";
const REMOVED: &str = "removed";

/// The snapshots of one folder.
#[derive(Debug)]
pub(crate) struct Snapshots {
    root: PathBuf,
    known: Mutex<HashMap<SnapshotId, Arc<Snapshot>>>,
}

/// A snapshot that somebody uses.
#[derive(Debug)]
pub(crate) struct Snapshot {
    dir: PathBuf,
    pub(crate) manifest: Manifest,
    lock: File,
}

/// A snapshot that is being written. Dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Partial {
    dir: PathBuf,
    id: SnapshotId,
    lock: Option<File>,
}

impl Snapshots {
    /// Opens a folder and clears away what a daemon that died was writing or had removed.
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        make_private_dir(&root)?;
        let this = Self { root, known: Mutex::default() };
        for dir in this.dirs(|name| name.starts_with('.'))? {
            remove_if_unused(&dir);
        }
        Ok(this)
    }

    /// Begins to write a snapshot.
    ///
    /// # Errors
    /// `AlreadyExists` for an id in use, also by a snapshot that was removed and is still mapped.
    pub(crate) fn begin(&self, id: &SnapshotId) -> Result<Partial> {
        if self.dir(id).exists() {
            return Err(Error::new(ErrorKind::AlreadyExists, "snapshot", id.as_str()));
        }
        let dir = self.root.join(format!(".{id}.partial"));
        std::fs::create_dir(&dir).map_err(|error| io_error("snapshot", &dir, "create", error))?;
        let mut partial = Partial { dir, id: id.clone(), lock: None };
        partial.lock = Some(lock_shared(&partial.dir)?);
        Ok(partial)
    }

    /// Makes a snapshot visible whose parts are all written.
    pub(crate) fn publish(
        &self,
        mut partial: Partial,
        keep: Keep,
        created_unix: u64,
        captured: Captured,
    ) -> Result<Arc<Snapshot>> {
        let manifest = Manifest::seal(&partial.dir, partial.id.clone(), keep, created_unix, captured)?;
        write_json(&partial.dir.join(MANIFEST), &manifest)?;
        if keep == Keep::UntilRemoved {
            sync(&partial.dir.join(MANIFEST))?;
            sync(&partial.dir)?;
        }
        let dir = self.dir(&partial.id);
        std::fs::rename(&partial.dir, &dir).map_err(|error| io_error("snapshot", &dir, "rename", error))?;
        let lock = partial.lock.take();
        partial.dir.clone_from(&dir); // from here on a failure takes the visible folder away
        if keep == Keep::UntilRemoved {
            sync(&self.root)?;
        }
        let lock = lock.ok_or_else(|| Error::new(ErrorKind::Internal, "snapshot", partial.id.as_str()))?;
        let snapshot = Arc::new(Snapshot { dir, manifest, lock });
        self.known().insert(partial.id.clone(), Arc::clone(&snapshot));
        partial.keep();
        Ok(snapshot)
    }

    /// The snapshot with an id.
    ///
    /// # Errors
    /// `NotFound`, also for one that was removed; `Corrupt` or `Unsupported` for its manifest.
    pub(crate) fn find(&self, id: &SnapshotId) -> Result<Arc<Snapshot>> {
        if self.dir(id).join(REMOVED).exists() {
            return Err(missing(id));
        }
        self.attach(id)
    }

    /// The same for a run that already maps it: also one that was removed.
    pub(crate) fn attach(&self, id: &SnapshotId) -> Result<Arc<Snapshot>> {
        if let Some(snapshot) = self.known().get(id) {
            return Ok(Arc::clone(snapshot));
        }
        let dir = self.dir(id);
        if !dir.is_dir() {
            return Err(missing(id));
        }
        let lock = lock_shared(&dir)?;
        let manifest = Manifest::read(&dir.join(MANIFEST))?;
        let snapshot = Arc::new(Snapshot { dir, manifest, lock });
        if !snapshot.is_removed() {
            self.known().insert(id.clone(), Arc::clone(&snapshot));
        }
        Ok(snapshot)
    }

    /// Every snapshot that was not removed, by id. One that cannot be read is told in the log and left out.
    pub(crate) fn list(&self) -> Result<Vec<SnapshotInfo>> {
        let mut all: Vec<SnapshotInfo> = self.all()?.iter().map(info).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// The same as a list to work with.
    pub(crate) fn all(&self) -> Result<Vec<Arc<Snapshot>>> {
        let mut found = Vec::new();
        for id in self.ids()? {
            match self.find(&id) {
                Ok(snapshot) => found.push(snapshot),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(snapshot = %id, %error, "a snapshot cannot be used"),
            }
        }
        Ok(found)
    }

    /// Lets nobody start from a snapshot any more; its last user takes the folder away.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn remove(&self, id: &SnapshotId) -> Result<()> {
        let dir = self.dir(id);
        if !dir.is_dir() || dir.join(REMOVED).exists() {
            return Err(missing(id));
        }
        let marker = dir.join(REMOVED);
        File::create(&marker).map_err(|error| io_error("snapshot", &marker, "create", error))?;
        let known = self.known().remove(id);
        match known {
            Some(last_or_not) => drop(last_or_not),
            None => remove_if_unused(&dir),
        }
        Ok(())
    }

    /// Takes away what was removed and is used by nobody: after a restart, once every run has attached to its own.
    pub(crate) fn collect(&self) -> Result<()> {
        let removed = self.dirs(|name| !name.starts_with('.'))?;
        removed.iter().filter(|dir| dir.join(REMOVED).exists()).for_each(|dir| remove_if_unused(dir));
        Ok(())
    }

    fn dir(&self, id: &SnapshotId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn ids(&self) -> Result<Vec<SnapshotId>> {
        let dirs = self.dirs(|name| !name.starts_with('.'))?;
        let id = |dir: &PathBuf| SnapshotId::parse(dir.file_name()?.to_str()?).ok();
        Ok(dirs.iter().filter_map(id).collect())
    }

    fn dirs(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let broken = |error| io_error("snapshots", &self.root, "list", error);
        let entries = std::fs::read_dir(&self.root).map_err(broken)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(broken));
        let is_wanted = |path: &PathBuf| {
            path.is_dir() && path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted)
        };
        paths.filter(|path| path.as_ref().is_ok_and(is_wanted) || path.is_err()).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SnapshotId, Arc<Snapshot>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    /// Where the parts go.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// Keeps a read-only disk of the guest for as long as the snapshot lives: by a link where that is possible.
    pub(crate) fn keep_image(&self, name: &str, image: &Path) -> Result<()> {
        let link = self.dir.join(name);
        let image = std::fs::canonicalize(image).map_err(|error| io_error("image", image, "find", error))?;
        match std::fs::hard_link(&image, &link) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(io_error("image", &image, "link", error))
            }
            // Another file system, or one without links.
            Err(_) => std::fs::copy(&image, &link)
                .map(drop)
                .map_err(|error| io_error("image", &image, "copy", error)),
        }
    }

    /// The folder is somebody else's to remove from here on.
    fn keep(mut self) {
        self.dir = PathBuf::new();
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.dir.as_os_str().is_empty()
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "half a snapshot was left behind");
        }
    }
}

impl Snapshot {
    pub(crate) fn id(&self) -> &SnapshotId {
        &self.manifest.id
    }

    /// Where it lies.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the driver needs.
    pub(crate) fn parts(&self) -> SnapshotParts {
        SnapshotParts {
            memory: self.dir.join(MEMORY),
            device_state: self.dir.join(DEVICE_STATE),
            vmm_version: self.manifest.host.vmm_version.clone(),
        }
    }

    /// The writable disk as it was.
    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// The agent's disk that the guest has mounted.
    pub(crate) fn agent_disk(&self) -> PathBuf {
        self.dir.join(AGENT_DISK)
    }

    /// The template's image that the guest has mounted.
    pub(crate) fn image_disk(&self) -> PathBuf {
        self.dir.join(IMAGE_DISK)
    }

    /// Refuses what this host cannot restore, or what is not what was written.
    pub(crate) fn check(&self, host: &HostFacts) -> Result<()> {
        self.manifest.check_host(host)?;
        self.manifest.check_parts(&self.dir)
    }

    fn is_removed(&self) -> bool {
        self.dir.join(REMOVED).exists()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // The lock turns exclusive only if no other process has the snapshot.
        if self.is_removed() && flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_dir(&self.dir);
        }
    }
}

/// What there is to tell, with how many use it besides the list itself and whoever asks.
pub(crate) fn info(snapshot: &Arc<Snapshot>) -> SnapshotInfo {
    snapshot.manifest.info(Arc::strong_count(snapshot).saturating_sub(2))
}

fn lock_shared(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let broken = |error| io_error("snapshot", &path, "lock", error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(broken)?;
    flock(&file, FlockOperation::NonBlockingLockShared).map_err(|error| broken(error.into()))?;
    Ok(file)
}

/// Removes a folder that no process has locked.
fn remove_if_unused(dir: &Path) {
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK));
    let is_free = |lock: &File| flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    match lock {
        Ok(lock) if is_free(&lock) => remove_dir(dir),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cannot tell whether a snapshot is in use")
        }
    }
}

fn remove_dir(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "a snapshot's folder was left behind");
        }
        _ => {}
    }
}

fn sync(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| io_error("snapshot", path, "sync", error))
}

fn missing(id: &SnapshotId) -> Error {
    Error::new(ErrorKind::NotFound, "snapshot", id.as_str())
}

#[cfg(test)]
mod tests;
