//! An S3 server in this process.
#![allow(dead_code, unreachable_pub)]

use flames_blob::BlobKey;
use flames_blob_s3::{S3BlobStore, S3Config};
use flames_testkit::S3;
use std::os::unix::fs::FileExt;

pub const BUCKET: &str = S3::BUCKET;
pub const SECRET: &str = S3::SECRET;

/// The test server, as this adapter sees it.
pub struct S3Server {
    server: S3,
    pub address: std::net::SocketAddr,
}

impl S3Server {
    pub async fn start() -> Self {
        Self::of(S3::start().await)
    }

    pub async fn start_on_disk() -> Self {
        Self::of(S3::start_on_disk().await)
    }

    pub async fn start_at(address: std::net::SocketAddr) -> Self {
        Self::of(S3::start_at(address).await)
    }

    fn of(server: S3) -> Self {
        Self { address: server.address(), server }
    }

    pub fn folder(&self) -> &std::path::Path {
        self.server.folder()
    }

    pub fn url(&self, bucket: &str) -> String {
        self.server.url(bucket)
    }

    pub async fn store(&self) -> S3BlobStore {
        S3BlobStore::open(self.config(BUCKET)).await.unwrap()
    }

    pub fn config(&self, bucket: &str) -> S3Config {
        S3Config::from_url(&self.url(bucket), |_| None).unwrap()
    }

    pub fn path(&self, key: &BlobKey) -> std::path::PathBuf {
        self.folder().join(BUCKET).join("some/prefix/blobs").join(key.as_str())
    }

    /// Parts of uploads that are not finished.
    pub fn parts(&self) -> usize {
        let names = std::fs::read_dir(self.folder()).unwrap();
        names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().contains(".part-")).count()
    }
}

/// Turns one bit of a file over.
pub fn damage(path: &std::path::Path) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
}
