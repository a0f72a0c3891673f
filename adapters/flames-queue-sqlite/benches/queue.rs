//! enqueue, lease, ack: one worker, and sixteen at once.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use flames_queue::WorkQueue;
use flames_queue::conformance::enqueue_lease_ack;
use flames_queue_sqlite::{SqliteQueue, SqliteQueueConfig};
use std::sync::Arc;

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap(); // on a disk, which /tmp may not be
    let config = SqliteQueueConfig::new(folder.path().join("queue.db"));
    let queue: Arc<dyn WorkQueue> = Arc::new(runtime.block_on(SqliteQueue::open(config)).unwrap());
    let mut group = criterion.benchmark_group("queue-sqlite");
    for workers in [1, 16] {
        group.bench_function(format!("enqueue-lease-ack x{workers}"), |bencher| {
            bencher
                .to_async(&runtime)
                .iter_custom(|cycles| enqueue_lease_ack(Arc::clone(&queue), cycles, workers));
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
