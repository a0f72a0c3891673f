//! enqueue, lease, ack: one worker, and sixteen at once.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use flames_queue::WorkQueue;
use flames_queue::conformance::enqueue_lease_ack;
use flames_queue_postgres::{PostgresQueue, PostgresQueueConfig};
use flames_testkit::{Durability, Postgres};
use std::sync::Arc;

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(server) = runtime.block_on(Postgres::start_with(Durability::Machine)) else { return };
    let config = PostgresQueueConfig::from_url(&server.url()).unwrap();
    let queue: Arc<dyn WorkQueue> = Arc::new(runtime.block_on(PostgresQueue::open(config)).unwrap());
    let mut group = criterion.benchmark_group("queue-postgres");
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
