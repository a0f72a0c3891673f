//! All state stores in one table: memory, SQLite on the disk, PostgreSQL with `fsync`.
//!
//! Run with `cargo bench -p flames-state-postgres`. SQLite's file is in the temporary folder (`TMPDIR`), as is
//! the file of the plain `fsync` that it is to be compared with.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flames_state::{Key, MemoryStateStore, Precondition, Revision, StateStore, StateStoreExt, Write};
use flames_state_postgres::{PostgresConfig, PostgresStateStore};
use flames_state_sqlite::{SqliteConfig, SqliteStateStore};
use flames_testkit::{Durability, Postgres};
use futures::future::join_all;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

type Store = Arc<dyn StateStore>;

/// The size of a sandbox's record.
const VALUE: Bytes = Bytes::from_static(&[b'x'; 512]);
const WRITERS: u64 = 16;

fn key(name: impl std::fmt::Display) -> Key {
    Key::parse(name.to_string()).unwrap()
}

fn benchmarks(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    plain_fsync(criterion, dir.path());
    measure(criterion, &runtime, "memory", &(Arc::new(MemoryStateStore::new()) as Store));
    let sqlite = SqliteStateStore::open(SqliteConfig::new(dir.path().join("state.db")));
    measure(criterion, &runtime, "sqlite", &(Arc::new(runtime.block_on(sqlite).unwrap()) as Store));
    if let Some(postgres) = runtime.block_on(Postgres::start_with(Durability::Machine)) {
        let store = PostgresStateStore::open(PostgresConfig::parse(&postgres.url()).unwrap());
        measure(criterion, &runtime, "postgres", &(Arc::new(runtime.block_on(store).unwrap()) as Store));
    }
}

/// What the disk gives: append 4 KiB, fsync.
fn plain_fsync(criterion: &mut Criterion, dir: &std::path::Path) {
    let mut file = std::fs::File::create(dir.join("fsync")).unwrap();
    criterion.bench_function("disk/append 4 KiB and fdatasync", |bencher| {
        bencher.iter(|| {
            file.write_all(&[0; 4096]).unwrap();
            file.sync_data().unwrap();
        });
    });
}

fn measure(criterion: &mut Criterion, runtime: &Runtime, name: &str, store: &Store) {
    runtime.block_on(fill(store));
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let first = key("list/0500");
    group.bench_function("get", |bencher| bencher.to_async(runtime).iter(|| store.get(&first)));
    let counter = AtomicU64::new(runtime.block_on(store.put(key("counter"), VALUE)).unwrap().0);
    group.bench_function("compare-and-swap", |bencher| {
        bencher.to_async(runtime).iter(|| swap(store, key("counter"), &counter));
    });
    group.bench_function("list of 1,000", |bencher| {
        bencher.to_async(runtime).iter(|| async { store.list("list/", None, 1000).await.unwrap() });
    });
    group.bench_function("conditional commit of 3", |bencher| {
        bencher.to_async(runtime).iter(|| commit_of_three(store));
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("compare-and-swap, 16 writers", |bencher| {
        bencher.to_async(runtime).iter_custom(|swaps| many_swaps(store.clone(), swaps));
    });
    group.finish();
}

async fn fill(store: &Store) {
    for n in 0..1000 {
        store.put(key(format!("list/{n:04}")), VALUE).await.unwrap();
    }
    for name in ["a", "b"] {
        store.put(key(format!("three/{name}")), VALUE).await.unwrap();
    }
}

async fn swap(store: &Store, key: Key, revision: &AtomicU64) {
    let expected = Revision(revision.load(Ordering::Relaxed));
    let swapped = store.compare_and_swap(key, VALUE, expected).await.unwrap();
    revision.store(swapped.0, Ordering::Relaxed);
}

/// Two records replaced and a third guarded, as a hand-over from the warm pool does.
async fn commit_of_three(store: &Store) {
    let put = |name: &str, precondition| Write::Put { key: key(name), value: VALUE, precondition };
    let check = Write::Check { key: key("three/missing"), precondition: Precondition::Absent };
    store
        .commit(vec![put("three/a", Precondition::None), put("three/b", Precondition::None), check])
        .await
        .unwrap();
}

/// Each writer on a record of its own, so that none loses.
async fn many_swaps(store: Store, swaps: u64) -> Duration {
    let revisions = join_all((0..WRITERS).map(|n| store.put(key(format!("writer/{n}")), VALUE))).await;
    let started = Instant::now();
    let writers = (0..WRITERS).zip(revisions).map(|(n, revision)| {
        let (store, revision) = (store.clone(), AtomicU64::new(revision.unwrap().0));
        tokio::spawn(async move {
            for _ in 0..swaps.div_ceil(WRITERS) {
                swap(&store, key(format!("writer/{n}")), &revision).await;
            }
        })
    });
    join_all(writers).await;
    started.elapsed()
}

criterion_group!(state, benchmarks);
criterion_main!(state);
