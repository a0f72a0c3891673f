//! One table for all blob stores: 1 KiB and 64 MiB, in and out. S3 is served by s3s-fs in this process, so
//! its numbers hold the server's work too.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use bytes::Bytes;
use common::S3Server;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flames_blob::{BlobKey, BlobStore, BlobStoreExt, MemoryBlobStore, PutOptions};
use flames_blob_fs::{FsBlobStore, FsConfig};
use futures::TryStreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

fn blobs(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = runtime.block_on(S3Server::start());
    let fs = runtime.block_on(FsBlobStore::open(FsConfig { root: folder.path().to_owned() })).unwrap();
    let s3 = runtime.block_on(server.store());
    let stores: [Arc<dyn BlobStore>; 3] = [Arc::new(MemoryBlobStore::new()), Arc::new(fs), Arc::new(s3)];
    for (size, text) in [(1 << 10, "1 KiB"), (64 << 20, "64 MiB")] {
        for store in &stores {
            put_and_get(criterion, &runtime, store, size, text);
        }
    }
}

fn put_and_get(
    criterion: &mut Criterion,
    runtime: &Runtime,
    store: &Arc<dyn BlobStore>,
    size: usize,
    text: &str,
) {
    let key = BlobKey::parse("bench/blob").unwrap();
    let bytes = Bytes::from(vec![7; size]);
    let mut group = criterion.benchmark_group(format!("blob {text}"));
    group.throughput(Throughput::Bytes(size as u64)).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.bench_function(BenchmarkId::new("put", store.adapter()), |bencher| {
        bencher.to_async(runtime).iter(|| store.put_bytes(&key, PutOptions::REPLACE, bytes.clone()));
    });
    group.bench_function(BenchmarkId::new("get", store.adapter()), |bencher| {
        bencher.to_async(runtime).iter(|| async {
            let blob = store.get(&key, None).await.unwrap();
            blob.body.try_fold(0, |read, chunk| async move { Ok(read + chunk.len()) }).await.unwrap()
        });
    });
}

criterion_group!(benches, blobs);
criterion_main!(benches);
