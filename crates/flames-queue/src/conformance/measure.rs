//! What the benchmarks of all backends measure.

use super::ground::{Ground, LONG, job};
use super::unique_prefix;
use crate::{QueueName, WorkQueue};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The time `cycles` times enqueue, lease and ack take, with `workers` of them at once on one queue.
pub async fn enqueue_lease_ack(queue: Arc<dyn WorkQueue>, cycles: u64, workers: u64) -> Duration {
    let ground = Ground { queue, name: QueueName::new(unique_prefix("q")).unwrap() };
    ground.depth().await; // makes what the queue needs on its server
    let started = Instant::now();
    let workers = (0..workers).map(|worker| {
        let share = cycles / workers + u64::from(worker < cycles % workers);
        tokio::spawn(cycle(ground.clone(), share))
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("a worker");
    }
    started.elapsed()
}

async fn cycle(ground: Ground, times: u64) {
    for _ in 0..times {
        ground.queue.enqueue(&ground.name, job("measured")).await.expect("enqueue");
        let leased = ground.take_one(LONG).await;
        ground.queue.ack(&leased.lease).await.expect("ack");
    }
}
