//! Writable disks: a sparse ext4 file per run, copied from an empty one that is made once per size.
//!
//! The file system has no journal. It is the upper layer of a sandbox that dies with its VM, or is captured
//! together with its memory inside one pause: there is no crash to recover from, and a journal would write
//! everything twice and delay each mount.

use crate::paths::{DataDir, io_error, make_private_dir};
use flames_vmm::{Error, ErrorKind, MiB, Result};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;
use tokio::sync::Mutex;

/// The smallest disk that leaves room for anything.
pub(crate) const MIN_DISK: MiB = MiB(16);
/// The largest: beyond it a typing error is likelier than a wish.
pub(crate) const MAX_DISK: MiB = MiB(1 << 20);

/// Makes disks below one data directory.
#[derive(Debug)]
pub(crate) struct Disks {
    blanks: PathBuf,
    data: PathBuf,
    reserve_bytes: u64,
    /// One `mke2fs` at a time: two creates of a new size must not both make its blank.
    making: Mutex<()>,
}

impl Disks {
    /// Disks of a data directory that leave `reserve_bytes` of its file system free.
    pub(crate) fn new(data: &DataDir, reserve_bytes: u64) -> Self {
        Self { blanks: data.disks(), data: data.root().to_owned(), reserve_bytes, making: Mutex::new(()) }
    }

    /// Refuses a disk that cannot be had, before anything is written.
    ///
    /// # Errors
    /// `InvalidInput` for a size out of range; `Unavailable` when the reserve is reached.
    pub(crate) fn admit(&self, size: MiB) -> Result<()> {
        check_size(size)?;
        self.check_room()
    }

    /// Refuses to write anything when the reserve is reached.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) fn check_room(&self) -> Result<()> {
        check_room(&self.data, self.available_bytes()?, self.reserve_bytes)
    }

    /// Makes a disk at `path`, which must not exist, as a copy of another.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unavailable` without room.
    pub(crate) async fn copy(&self, from: &Path, path: &Path) -> Result<()> {
        let (from, path) = (from.to_owned(), path.to_owned());
        blocking("disk", move || copy_sparse(&from, &path)).await
    }

    /// Bytes that are free on the data directory's file system.
    ///
    /// # Errors
    /// `Unavailable` when the file system does not tell.
    pub(crate) fn available_bytes(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.data);
        let stat = stat.map_err(|error| io_error("file system", &self.data, "statvfs", error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes a disk at `path`, which must not exist.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unavailable` without `mke2fs` or room.
    pub(crate) async fn create(&self, path: &Path, size: MiB) -> Result<()> {
        let blank = self.blank(size).await?;
        let path = path.to_owned();
        blocking("disk", move || copy_sparse(&blank, &path)).await
    }

    /// The empty disk of a size, made if this is the first of its size.
    async fn blank(&self, size: MiB) -> Result<PathBuf> {
        let blank = self.blanks.join(format!("{}.ext4", size.0));
        if blank.is_file() {
            return Ok(blank);
        }
        let _making = self.making.lock().await;
        if !blank.is_file() {
            make_private_dir(&self.blanks)?;
            make_blank(&blank, size).await?;
        }
        Ok(blank)
    }
}

fn check_size(size: MiB) -> Result<()> {
    if (MIN_DISK..=MAX_DISK).contains(&size) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "disk size", size.to_string())
        .detail(format!("must be between {MIN_DISK} and {MAX_DISK}")))
}

fn check_room(data: &Path, available: u64, reserve: u64) -> Result<()> {
    if available > reserve {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "file system", data.display().to_string()).detail(format!(
        "only {} MiB are free and {} MiB are kept in reserve: free some space or lower the reserve",
        available >> 20,
        reserve >> 20
    )))
}

/// Formats under a temporary name and renames: a blank that can be seen is whole.
async fn make_blank(blank: &Path, size: MiB) -> Result<()> {
    let temporary = blank.with_extension(format!("{}.tmp", std::process::id()));
    let outcome = format(&temporary, size).await.and_then(|()| {
        std::fs::rename(&temporary, blank).map_err(|error| io_error("disk", blank, "rename", error))
    });
    if outcome.is_err() {
        // Best effort: the first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    outcome
}

async fn format(path: &Path, size: MiB) -> Result<()> {
    let _ = std::fs::remove_file(path); // of a daemon that died here with our pid
    let file = create_private(path)?;
    file.set_len(size.bytes()).map_err(|error| io_error("disk", path, "set length", error))?;
    drop(file);
    // assume_storage_prezeroed: the file is a hole, so its inode tables are zero already; without it, either
    // mke2fs writes them or each guest's kernel does, in every sandbox again.
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal,^resize_inode"])
        .args(["-E", "assume_storage_prezeroed=1,nodiscard,root_owner=0:0"])
        .arg(path)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| io_error("program", "mke2fs", "start", error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "disk", path.display().to_string())
        .operation("mke2fs")
        .detail(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Copies a file without its holes: by reference where the file system can, else extent by extent.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).map_err(|error| io_error("disk", from, "open", error))?;
    let target = create_private(to)?;
    let copied = rustix::fs::ioctl_ficlone(&target, &source).or_else(|_| copy_extents(&source, &target));
    copied.map_err(|error| {
        let _ = std::fs::remove_file(to); // half a disk is no disk
        io_error("disk", to, "copy", error.into())
    })
}

fn copy_extents(source: &File, target: &File) -> Result<(), Errno> {
    let size = rustix::fs::fstat(source)?.st_size.unsigned_abs();
    rustix::fs::ftruncate(target, size)?;
    let mut offset = 0;
    while let Some((start, end)) = next_extent(source, offset)? {
        copy_range(source, target, start, end)?;
        offset = end;
    }
    Ok(())
}

fn next_extent(file: &File, offset: u64) -> Result<Option<(u64, u64)>, Errno> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => Ok(Some((start, rustix::fs::seek(file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None), // only a hole is left
        Err(error) => Err(error),
    }
}

fn copy_range(source: &File, target: &File, start: u64, end: u64) -> Result<(), Errno> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let left = usize::try_from(end - from).unwrap_or(usize::MAX);
        if rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), left)? == 0 {
            return Err(Errno::IO); // the source shrank: it must not
        }
    }
    Ok(())
}

/// A new file that its owner alone may read or write.
fn create_private(path: &Path) -> Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file: OwnedFd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| io_error("disk", path, "create", error.into()))?;
    Ok(File::from(file))
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    resource: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(Error::new(ErrorKind::Internal, resource, "").detail("the worker failed").source(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn disks() -> (tempfile::TempDir, Disks) {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path().join("data")).unwrap();
        let disks = Disks::new(&data, 0);
        (root, disks)
    }

    #[tokio::test]
    async fn a_disk_is_private_sparse_and_of_the_size_asked_for() {
        let (root, disks) = disks();
        let path = root.path().join("disk.ext4");
        disks.create(&path, MiB(512)).await.unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(metadata.len(), MiB(512).bytes());
        assert!(metadata.blocks() * 512 < 4 << 20, "{} bytes on disk", metadata.blocks() * 512);
        let check = std::process::Command::new("e2fsck").args(["-fn"]).arg(&path).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }

    #[tokio::test]
    async fn an_existing_disk_is_never_overwritten() {
        let (root, disks) = disks();
        let path = root.path().join("disk.ext4");
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(disks.create(&path, MIN_DISK).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_copied_disk_equals_its_blank_byte_for_byte() {
        let (root, disks) = disks();
        let path = root.path().join("disk.ext4");
        disks.create(&path, MIN_DISK).await.unwrap();
        let blank = disks.blank(MIN_DISK).await.unwrap();
        assert!(std::fs::read(path).unwrap() == std::fs::read(blank).unwrap());
    }

    #[test]
    fn sizes_at_the_bounds_pass_and_beyond_them_do_not() {
        for good in [MIN_DISK, MAX_DISK] {
            check_size(good).unwrap();
        }
        for bad in [MiB(0), MiB(MIN_DISK.0 - 1), MiB(MAX_DISK.0 + 1), MiB(u32::MAX)] {
            assert_eq!(check_size(bad).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_full_file_system_refuses_before_anything_is_written() {
        let (root, disks) = disks();
        let full = Disks { reserve_bytes: u64::MAX, ..disks };
        let error = full.admit(MIN_DISK).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.detail_text().unwrap().contains("reserve"));
        assert_eq!(std::fs::read_dir(root.path().join("data/disks")).unwrap().count(), 0);
    }
}
