//! Which key is which file.

use flames_blob::BlobKey;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// No key holds a `+`, so a blob's file never has the name of a folder.
const BLOB_SUFFIX: &str = "+blob";

/// The folders of a store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    blobs: PathBuf,
    incoming: PathBuf,
}

impl Layout {
    /// Makes the folders that are missing.
    pub(crate) fn create(root: &Path) -> io::Result<Self> {
        let layout = Self { blobs: root.join("blobs"), incoming: root.join("incoming") };
        fs::create_dir_all(&layout.blobs)?;
        fs::create_dir_all(&layout.incoming)?;
        sync_folder(root)?;
        Ok(layout)
    }

    pub(crate) fn incoming(&self) -> &Path {
        &self.incoming
    }

    /// The folder of the blobs beneath `key`, of all without one.
    pub(crate) fn folder(&self, key: Option<&BlobKey>) -> PathBuf {
        key.map_or_else(|| self.blobs.clone(), |key| self.blobs.join(key.as_str()))
    }

    /// The file of a blob.
    pub(crate) fn file(&self, key: &BlobKey) -> PathBuf {
        self.blobs.join(format!("{key}{BLOB_SUFFIX}"))
    }

    /// Makes the folder that `file` goes into, durably.
    pub(crate) fn make_room(&self, file: &Path) -> io::Result<()> {
        let missing: Vec<_> = self.own_folders(file).take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => folder.parent().map_or(Ok(()), sync_folder)?,
            }
        }
        Ok(())
    }

    /// Removes the folders that held nothing but `file`. One that a put uses meanwhile is not empty, or the
    /// put makes it again.
    pub(crate) fn prune(&self, file: &Path) {
        for folder in self.own_folders(file) {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }

    /// From the folder of `file` up to, without, the folder of all blobs.
    fn own_folders<'a>(&'a self, file: &'a Path) -> impl Iterator<Item = &'a Path> {
        file.ancestors().skip(1).take_while(|folder| *folder != self.blobs)
    }
}

/// The last segment of the key that a file of this name belongs to.
pub(crate) fn segment_of(file_name: &str) -> Option<&str> {
    file_name.strip_suffix(BLOB_SUFFIX)
}

/// Makes what was created, renamed or removed in a folder survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
