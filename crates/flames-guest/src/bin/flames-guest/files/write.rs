//! Writing a file: few, large writes, and the right owner from the start.

use super::metadata::{self, Metadata};
use super::{blocking, http_failure, no_space};
use crate::http::Failure;
use crate::users::User;
use bytes::Bytes;
use nix::libc::O_NONBLOCK;
use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, fchown};
use std::fs::{DirBuilder, File};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that is being uploaded.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: Arc<File>,
    gathered: Gathered,
    fate: Fate,
}

/// What a failed upload leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The file was there before: it stays, with what was written.
    Keep,
    /// The upload made it: it goes.
    Remove,
    /// The upload is whole.
    Done,
}

/// What came and was not written yet, as it came: nothing is copied.
///
/// A small file is one write, and so one event for who watches it.
#[derive(Debug, Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Gathered {
    /// Fewer writes than this gain nothing.
    const BYTES: usize = 512 << 10;
    /// Pieces may be as small as a client likes, and each holds the buffer that it came in.
    const PIECES: usize = 64;

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    fn is_enough(&self) -> bool {
        self.bytes >= Self::BYTES || self.pieces.len() >= Self::PIECES
    }

    fn write_to(&self, mut file: &File) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = self.pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        // Nothing at its beginning is empty, lest a write of nothing looks like a full disk.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Makes or empties the file. Missing directories are made, owned by the user like the file.
    pub(super) async fn create(path: PathBuf, user: User) -> Result<Self, Failure> {
        let target = path.clone();
        let opened = blocking(move || open(&target, &user)).await.and_then(|opened| opened);
        let (file, fate) = opened.map_err(|error| http_failure(&path, &error))?;
        Ok(Self { path, file: Arc::new(file), gathered: Gathered::default(), fate })
    }

    pub(super) async fn write(&mut self, piece: Bytes) -> Result<(), Failure> {
        self.gathered.push(piece);
        if self.gathered.is_enough() { self.flush().await } else { Ok(()) }
    }

    /// Writes the rest and stores the metadata.
    pub(super) async fn finish(mut self, metadata: Metadata) -> Result<PathBuf, Failure> {
        self.flush().await?;
        let is_new = self.fate == Fate::Remove;
        let file = Arc::clone(&self.file);
        let stored = blocking(move || {
            if is_new && metadata.is_empty() { Ok(()) } else { metadata::replace(&file, &metadata) }
        });
        stored.await.and_then(|stored| stored).map_err(|error| http_failure(&self.path, &error))?;
        self.fate = Fate::Done;
        Ok(self.path.clone())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let (file, gathered) = (Arc::clone(&self.file), std::mem::take(&mut self.gathered));
        if gathered.bytes == 0 {
            return Ok(());
        }
        let written = blocking(move || gathered.write_to(&file)).await.and_then(|written| written);
        written.map_err(|error| http_failure(&self.path, &error))
    }
}

impl Drop for Writer {
    /// Half of a new file is worse than none.
    fn drop(&mut self) {
        if self.fate == Fate::Remove {
            // Somebody else may have removed it already.
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path, user: &User) -> io::Result<(File, Fate)> {
    if let Some(parent) = path.parent() {
        make_parents(parent, user)?;
    }
    let mut options = File::options();
    options.write(true).mode(0o644).custom_flags(O_NONBLOCK);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = options.create(true).open(path)?;
            Ok((emptied(file, user)?, Fate::Keep))
        }
        created => {
            let file = created?;
            give_to(&file, user)?;
            Ok((file, Fate::Remove))
        }
    }
}

/// Only a regular file is emptied: writing into a device or a pipe is no upload.
fn emptied(file: File, user: &User) -> io::Result<File> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    file.set_len(0)?;
    if (found.uid(), found.gid()) != (user.uid.as_raw(), user.gid.as_raw()) {
        give_to(&file, user)?;
    }
    Ok(file)
}

/// Makes the directory and what is missing above it, each with mode 0755 and owned by the user.
pub(crate) fn make_parents(dir: &Path, user: &User) -> io::Result<()> {
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = dir.parent() {
        make_parents(parent, user)?;
    }
    match DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()), // somebody was faster
        made => made?,
    }
    give_to(&File::open(dir)?, user)
}

/// Without root's rights everything belongs to the agent's own user anyway.
pub(super) fn give_to(file: &File, user: &User) -> io::Result<()> {
    if Uid::effective().is_root() {
        fchown(file, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Refuses an upload that says it is larger than what is free, before a byte is written.
pub(super) fn check_space(path: &Path, announced: Option<u64>) -> Result<(), Failure> {
    let Some(announced) = announced else { return Ok(()) };
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    match statvfs(existing) {
        Ok(space) if space.blocks_available().saturating_mul(space.fragment_size()) < announced => {
            Err(no_space())
        }
        // Where the question cannot be answered, the writes themselves will tell.
        Ok(_) | Err(_) => Ok(()),
    }
}
