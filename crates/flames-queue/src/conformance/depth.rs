//! Promises about depth.

use super::Fixture;
use super::ground::{Ground, LONG, SHORT, SKEW, attempts, delay, job, pass};
use crate::{Delay, Depth, Reason};
use std::time::Duration;
use tokio::time::Instant;

/// See the name.
pub async fn depth_counts_each_state(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    for text in ["dead", "backing off", "leased", "leased too"] {
        ground.put_job(job(text).max_attempts(attempts(if text == "dead" { 1 } else { 2 }))).await;
    }
    for _ in 0..4 {
        let leased = ground.take_one(LONG).await;
        if !leased.payload.as_bytes().starts_with(b"leased") {
            ground.queue.nack(&leased.lease, &Reason::new("no"), delay(LONG)).await.expect("nack");
        }
    }
    ground.put_job(job("delayed").delay(delay(LONG))).await;
    for text in ["ready", "also ready", "ready too"] {
        ground.put(text).await;
    }
    let depth = ground.depth().await;
    assert_eq!(
        Depth { oldest_age: None, ..depth },
        Depth { ready: 3, delayed: 2, leased: 2, dead: 1, oldest_age: None }
    );
    assert!(depth.oldest_age.is_some(), "three jobs are ready, and none has an age");
}

/// See the name.
pub async fn the_oldest_age_is_that_of_the_longest_ready_job(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let before = Instant::now();
    ground.put("old").await;
    let after = Instant::now();
    pass(SHORT).await;
    ground.put("young").await;
    let least = after.elapsed();
    let age = ground.depth().await.oldest_age.expect("an age");
    assert!(age + SKEW >= least && age <= before.elapsed() + SKEW, "{age:?} for a job of {least:?}");
    ground.take(10, LONG).await;
    assert_eq!(ground.depth().await.oldest_age, None, "a leased job does not wait");
    let delayed = Ground::of(&fixture);
    delayed.put_job(job("later").delay(Delay::new(Duration::from_secs(3600)).expect("a delay"))).await;
    assert_eq!(delayed.depth().await.oldest_age, None, "a delayed job does not wait");
}

/// See the name.
pub async fn an_unused_queue_is_empty(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    assert_eq!(ground.depth().await, Depth::default());
    assert!(ground.dead().await.is_empty());
}
