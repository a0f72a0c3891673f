//! The promise the others add up to: under load and crashes no job is lost and none is held twice.

use super::Fixture;
use super::ground::{Ground, attempts, job, request, text};
use crate::{Delay, ErrorKind, LeasedJob, Reason};
use futures::stream::{StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const CONSUMERS: u64 = 8;
const BATCH: u16 = 25;
const VISIBILITY: Duration = Duration::from_millis(1500);
/// A backend that needs longer for the load it asked for hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Eight consumers take jobs in batches, and now and then give one back, or crash and forget all they hold.
pub async fn eight_crashing_consumers_do_every_job_and_never_hold_one_together(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let ledger = Arc::new(Ledger::default());
    let work = async {
        enqueue_all(&ground, fixture.load).await;
        let consumers = (0..CONSUMERS).map(|seed| {
            tokio::spawn(consume(
                ground.clone(),
                Arc::clone(&ledger),
                StdRng::seed_from_u64(seed),
                fixture.load,
            ))
        });
        futures::future::join_all(consumers).await
    };
    let consumers = tokio::time::timeout(DEADLINE, work).await;
    let done = ledger.done();
    let consumers =
        consumers.unwrap_or_else(|_| panic!("{done} of {} jobs done by the deadline", fixture.load));
    consumers.into_iter().for_each(|consumer| consumer.expect("a consumer"));
    assert_eq!(done, fixture.load, "jobs were lost");
    let depth = ground.depth().await;
    assert_eq!((depth.ready, depth.delayed, depth.leased, depth.dead), (0, 0, 0, 0), "jobs are left over");
}

async fn enqueue_all(ground: &Ground, count: usize) {
    let jobs = (0..count).map(|number| {
        let job = job(&number.to_string()).max_attempts(attempts(100));
        ground.queue.enqueue(&ground.name, job)
    });
    futures::stream::iter(jobs).buffer_unordered(32).try_for_each(async |_| Ok(())).await.expect("enqueue");
}

async fn consume(ground: Ground, ledger: Arc<Ledger>, mut random: StdRng, all: usize) {
    while ledger.done() < all {
        let asked_at = Instant::now();
        let wait = Duration::from_millis(200);
        let batch = ground
            .queue
            .lease(&ground.name, request("consumer", BATCH, VISIBILITY, wait))
            .await
            .expect("lease");
        batch.iter().for_each(|job| ledger.hold(text(job), asked_at + VISIBILITY));
        for job in batch {
            if random.random_bool(0.002) {
                break; // a crash: this job and the rest of the batch are forgotten
            }
            settle(&ground, &ledger, job, random.random_bool(0.02)).await;
        }
    }
}

async fn settle(ground: &Ground, ledger: &Ledger, job: LeasedJob, give_back: bool) {
    if give_back {
        ledger.release(text(&job));
        let nacked = ground.queue.nack(&job.lease, &Reason::new("try again"), Delay::NONE).await;
        return assert!(nacked.is_ok() || is_conflict(nacked.err()), "a nack fails only with a conflict");
    }
    match ground.queue.ack(&job.lease).await {
        Ok(()) => ledger.finish(text(&job)),
        Err(error) => assert!(is_conflict(Some(error)), "an ack fails only with a conflict"),
    }
}

fn is_conflict(error: Option<crate::Error>) -> bool {
    error.is_some_and(|error| error.kind() == ErrorKind::Conflict)
}

/// Who holds what until when at least, and what is done.
#[derive(Debug, Default)]
struct Ledger {
    held: Mutex<HashMap<String, Instant>>,
    done: Mutex<HashSet<String>>,
}

impl Ledger {
    fn hold(&self, job: &str, at_least_until: Instant) {
        assert!(!self.done.lock().unwrap().contains(job), "job {job} came back after its ack");
        let former = self.held.lock().unwrap().insert(job.to_owned(), at_least_until);
        assert!(former.is_none_or(|until| until <= Instant::now()), "job {job} is held by two consumers");
    }

    fn release(&self, job: &str) {
        self.held.lock().unwrap().remove(job);
    }

    fn finish(&self, job: &str) {
        self.release(job);
        assert!(self.done.lock().unwrap().insert(job.to_owned()), "job {job} was acked twice");
    }

    fn done(&self) -> usize {
        self.done.lock().unwrap().len()
    }
}
