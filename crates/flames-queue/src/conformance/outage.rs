//! Promises that need a server to break: for the tests of adapters that have one.

use super::ground::{Ground, attempts, job, request, text};
use super::unique_prefix;
use crate::{DedupKey, QueueName, WorkQueue};
use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const CONSUMERS: usize = 4;
const VISIBILITY: Duration = Duration::from_secs(2);
/// No call may take longer, whatever the server does.
const BOUND: Duration = Duration::from_secs(15);
/// The whole story, outage included.
const DEADLINE: Duration = Duration::from_secs(90);

/// Producers add `jobs` jobs and consumers do them; when a quarter is done, `outage` breaks the server and mends
/// it again. In the end every job was done, and the queue is empty.
pub async fn no_job_is_lost_through(
    queue: Arc<dyn WorkQueue>,
    jobs: usize,
    outage: impl Future<Output = ()>,
) {
    let ground = Ground { queue, name: QueueName::new(unique_prefix("q")).unwrap() };
    let done = Arc::new(Mutex::new(HashSet::new()));
    let producer = tokio::spawn(produce(ground.clone(), jobs));
    let consumers: Vec<_> =
        (0..CONSUMERS).map(|_| tokio::spawn(consume(ground.clone(), Arc::clone(&done), jobs))).collect();
    until(&done, jobs / 4).await;
    outage.await;
    producer.await.expect("the producer");
    for consumer in consumers {
        consumer.await.expect("a consumer");
    }
    assert_eq!(done.lock().unwrap().len(), jobs);
    let started = Instant::now();
    while ground.depth().await != crate::Depth::default() {
        assert!(started.elapsed() < DEADLINE, "left over: {:?}", ground.depth().await);
        // Done, but the ack was lost: done once more.
        for leased in ground.take(100, VISIBILITY).await {
            ground.queue.ack(&leased.lease).await.expect("ack");
        }
    }
}

/// While the server is silent, each call fails within a bounded time with an error worth a retry.
pub async fn calls_fail_in_bounded_time(queue: Arc<dyn WorkQueue>) {
    let ground = Ground { queue, name: QueueName::new(unique_prefix("q")).unwrap() };
    let (queue, name) = (&ground.queue, &ground.name);
    let enqueue = bounded(queue.enqueue(name, job("lost"))).await.map(|_| ());
    let lease =
        bounded(queue.lease(name, request("nobody", 1, VISIBILITY, Duration::ZERO))).await.map(|_| ());
    let depth = bounded(queue.depth(name)).await.map(|_| ());
    for result in [enqueue, lease, depth] {
        let error = result.expect_err("the server is silent");
        assert!(error.is_retryable(), "{error:?}");
    }
}

/// The server is back: a job goes all its way, without a restart of this process.
pub async fn a_job_goes_all_its_way(queue: Arc<dyn WorkQueue>) {
    let ground = Ground { queue, name: QueueName::new(unique_prefix("q")).unwrap() };
    let started = Instant::now();
    while let Err(error) = ground.queue.enqueue(&ground.name, job("after")).await {
        assert!(error.is_retryable() && started.elapsed() < DEADLINE, "{error:?}");
        sleep(Duration::from_millis(50)).await;
    }
    let leased = ground.take_one(VISIBILITY).await;
    ground.queue.ack(&leased.lease).await.expect("ack");
}

/// With a key each, so that a repeated enqueue after a lost answer adds nothing.
async fn produce(ground: Ground, jobs: usize) {
    for number in 0..jobs {
        let job = job(&number.to_string())
            .dedup_key(DedupKey::new(format!("key-{number}")).unwrap())
            .max_attempts(attempts(100));
        let started = Instant::now();
        while let Err(error) = bounded(ground.queue.enqueue(&ground.name, job.clone())).await {
            assert!(error.is_retryable() && started.elapsed() < DEADLINE, "{error:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn consume(ground: Ground, done: Arc<Mutex<HashSet<String>>>, jobs: usize) {
    let started = Instant::now();
    while done.lock().unwrap().len() < jobs {
        assert!(started.elapsed() < DEADLINE, "{} of {jobs} done", done.lock().unwrap().len());
        let request = request("consumer", 5, VISIBILITY, Duration::from_millis(200));
        match bounded(ground.queue.lease(&ground.name, request)).await {
            Ok(leased) => {
                for job in leased {
                    done.lock().unwrap().insert(text(&job).to_owned());
                    // A lost ack is what the lease is for: the job comes again.
                    let _acked = bounded(ground.queue.ack(&job.lease)).await;
                }
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn until(done: &Mutex<HashSet<String>>, count: usize) {
    let started = Instant::now();
    while done.lock().unwrap().len() < count {
        assert!(started.elapsed() < DEADLINE, "only {} done", done.lock().unwrap().len());
        sleep(Duration::from_millis(5)).await;
    }
}

async fn bounded<T>(call: impl Future<Output = crate::Result<T>>) -> crate::Result<T> {
    timeout(BOUND, call).await.expect("a call took longer than any may")
}
