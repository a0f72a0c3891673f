//! A put on its way: a file in `incoming` that nobody else can take for a blob.

use crate::layout::{Layout, sync_folder};
use crate::trailer;
use flames_blob::{BlobMeta, Durability, PutMode, PutOptions};
use std::fs::{self, DirEntry, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

/// Dropping it removes the file; so an aborted put cleans up after itself. The lock tells
/// [`collect`] that the put is alive, and goes with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: tokio::fs::File,
    path: TempPath,
}

/// A file with the whole body, without its trailer and not yet visible.
#[derive(Debug)]
pub(crate) struct Written {
    path: TempPath,
    /// Keeps the lock until the file has its name.
    file: File,
}

/// A folder that a delete prunes while a put needs it is made again at most so often.
const PUBLISH_ATTEMPTS: usize = 100;

impl Incoming {
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let (file, path) = tempfile::Builder::new().prefix("put-").tempfile_in(folder)?.into_parts();
        file.lock()?;
        Ok(Self { file: tokio::fs::File::from_std(file), path })
    }

    pub(crate) async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk).await
    }

    /// Waits for what was written, and leaves the rest to a thread that may block.
    pub(crate) async fn written(mut self) -> io::Result<Written> {
        self.file.flush().await?;
        Ok(Written { path: self.path, file: self.file.into_std().await })
    }
}

impl Written {
    /// Adds the trailer and gives the file its name, both durably if that is asked for. With [`PutMode::CreateOnly`]
    /// fails with `AlreadyExists` when the name is taken: the kernel decides, so of many exactly one succeeds.
    pub(crate) fn publish(
        mut self,
        layout: &Layout,
        target: &Path,
        meta: &BlobMeta,
        options: PutOptions,
    ) -> io::Result<()> {
        self.file.write_all(&trailer::encode(meta.size, &meta.sha256))?;
        if options.durability == Durability::Power {
            self.file.sync_all()?;
        }
        let Self { mut path, file: _locked } = self;
        for _ in 1..PUBLISH_ATTEMPTS {
            match rename(path, layout, target, options.mode) {
                Ok(()) if options.durability == Durability::Process => return Ok(()),
                Ok(()) => return target.parent().map_or(Ok(()), sync_folder),
                Err((error, back)) if error.kind() == io::ErrorKind::NotFound => path = back,
                Err((error, _)) => return Err(error),
            }
        }
        Err(io::Error::other("the folder is removed again and again"))
    }
}

fn rename(
    path: TempPath,
    layout: &Layout,
    target: &Path,
    mode: PutMode,
) -> Result<(), (io::Error, TempPath)> {
    if let Err(error) = layout.make_room(target) {
        return Err((error, path));
    }
    let renamed = match mode {
        PutMode::CreateOnly => path.persist_noclobber(target),
        PutMode::Replace => path.persist(target),
    };
    renamed.map_err(|failed| (failed.error, failed.path))
}

/// Removes the files of dead puts that were not written to for `older_than`.
pub(crate) fn collect(folder: &Path, older_than: Duration, now: SystemTime) -> io::Result<u64> {
    let mut collected = 0;
    for entry in fs::read_dir(folder)? {
        collected += u64::from(remove_if_dead(&entry?, older_than, now)?);
    }
    Ok(collected)
}

fn remove_if_dead(entry: &DirEntry, older_than: Duration, now: SystemTime) -> io::Result<bool> {
    let file = match File::open(entry.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false), // its put ended just now
        opened => opened?,
    };
    let age = now.duration_since(file.metadata()?.modified()?).unwrap_or_default();
    if age < older_than || matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Ok(false);
    }
    match fs::remove_file(entry.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}
