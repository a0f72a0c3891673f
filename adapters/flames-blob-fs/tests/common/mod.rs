//! What the tests share.
#![allow(dead_code, unreachable_pub)]

use flames_blob::BlobKey;
use flames_blob_fs::{FsBlobStore, FsConfig};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;

pub async fn fresh_store() -> (TempDir, FsBlobStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    (folder, store)
}

pub async fn open(root: &Path) -> FsBlobStore {
    FsBlobStore::open(FsConfig { root: root.to_owned() }).await.unwrap()
}

/// Turns one bit of the body over.
pub fn damage(root: &Path, key: &BlobKey) {
    let path = root.join("blobs").join(format!("{key}+blob"));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
}

pub fn incoming_files(root: &Path) -> usize {
    std::fs::read_dir(root.join("incoming")).unwrap().count()
}
