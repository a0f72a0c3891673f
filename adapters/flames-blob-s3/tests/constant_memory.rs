//! A blob much larger than the memory that streams it, in a process of its own with the server in it.
//!
//! `FLAMES_TEST_S3_BLOB_MIB` sets the size, 256 without it. Not `FLAMES_TEST_BLOB_MIB`: this server puts the
//! parts of an upload together by copying them, and of 5 GiB that takes longer than a client waits for a sign
//! of life.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bytes::Bytes;
use flames_blob::{BlobKey, BlobStore, ByteRange, PutOptions};
use futures::{StreamExt, TryStreamExt, stream};

/// What client and server together may grow by while a blob of any size streams.
const ALLOWED_KIB: u64 = 160 << 10;

#[tokio::test]
async fn a_big_blob_streams_in_and_out_in_constant_memory() {
    let mib = std::env::var("FLAMES_TEST_S3_BLOB_MIB").map_or(256, |text| text.parse().unwrap());
    let server = common::S3Server::start_on_disk().await;
    let store = server.store().await;
    let key = BlobKey::parse("big").unwrap();
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let before = peak_kib();

    let chunks = stream::iter((0..mib).map(move |_| Ok(chunk.clone()))).boxed();
    let meta = store.put(&key, PutOptions::CREATE_ONLY, chunks).await.unwrap();
    assert_eq!(meta.size, mib << 20);
    let blob = store.get(&key, None).await.unwrap();
    let read =
        blob.body.try_fold(0, |size, chunk| async move { Ok(size + chunk.len() as u64) }).await.unwrap();
    assert_eq!(read, mib << 20);
    let last = store.get(&key, Some(ByteRange::starting_at(read - 1))).await.unwrap();
    assert_eq!(last.body.try_collect::<Vec<_>>().await.unwrap(), [Bytes::from_static(&[7])]);

    let grown = peak_kib() - before;
    println!("{mib} MiB in and out, the process grew by {grown} KiB");
    assert!(grown < ALLOWED_KIB, "grew by {grown} KiB for a blob of {mib} MiB");
}

/// The largest resident size that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
