//! Promises about a lease call that waits for a job.

use super::Fixture;
use super::ground::{Ground, LONG, PATIENCE, SHORT, SKEW, delay, job, pass, request, text};
use crate::{Delay, LeasedJob, Reason};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A wake-up that takes longer was a poll, or luck. Generous to a busy machine.
const PROMPT: Duration = Duration::from_secs(3);

/// See the name.
pub async fn a_lease_without_wait_answers_nothing_from_an_empty_queue_at_once(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let asked_at = Instant::now();
    ground.assert_nothing_ready("nobody has added anything").await;
    assert!(asked_at.elapsed() < PROMPT, "took {:?}", asked_at.elapsed());
}

/// See the name.
pub async fn a_waiting_lease_gives_up_when_its_wait_is_over(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let asked_at = Instant::now();
    assert!(ground.wait_for_one("waiter", LONG, SHORT).await.is_none());
    assert!(asked_at.elapsed() + SKEW >= SHORT, "gave up after {:?}", asked_at.elapsed());
    assert!(asked_at.elapsed() < SHORT + PROMPT, "gave up after {:?}", asked_at.elapsed());
}

/// See the name.
pub async fn a_waiting_lease_is_woken_by_an_enqueue(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let waiter = wait(&ground);
    pass(SHORT).await;
    let enqueued_at = Instant::now();
    ground.put("wake up").await;
    assert_eq!(text(&woken(waiter, enqueued_at).await), "wake up");
}

/// See the name.
pub async fn a_waiting_lease_is_woken_when_a_delay_ends(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let waiter = wait(&ground);
    pass(SHORT / 4).await;
    let enqueued_at = Instant::now();
    ground.put_job(job("delayed").delay(delay(SHORT))).await;
    woken(waiter, enqueued_at + SHORT).await;
    assert!(enqueued_at.elapsed() + SKEW >= SHORT, "woken after {:?}", enqueued_at.elapsed());
}

/// See the name.
pub async fn a_waiting_lease_is_woken_when_a_lease_expires(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("handed over").await;
    let leased_at = Instant::now();
    ground.take_one(SHORT).await;
    let handed_over = woken(wait(&ground), leased_at + SHORT).await;
    assert!(leased_at.elapsed() + SKEW >= SHORT, "handed over after {:?}", leased_at.elapsed());
    assert_eq!(handed_over.attempt, 2);
}

/// See the name.
pub async fn a_waiting_lease_is_woken_by_a_nack(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("given back").await;
    let leased = ground.take_one(LONG).await;
    let waiter = wait(&ground);
    pass(SHORT / 4).await;
    let nacked_at = Instant::now();
    ground.queue.nack(&leased.lease, &Reason::new("not mine"), Delay::NONE).await.expect("nack");
    assert_eq!(woken(waiter, nacked_at).await.attempt, 2);
}

/// See the name.
pub async fn a_dropped_waiting_lease_loses_no_job(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    for number in 0..5 {
        let queue = std::sync::Arc::clone(&ground.queue);
        let name = ground.name.clone();
        let waiter = tokio::spawn(async move {
            queue.lease(&name, request("dropped", 1, SHORT, PATIENCE)).await.map(|_| ())
        });
        pass(Duration::from_millis(10 * number)).await;
        ground.put(&number.to_string()).await;
        waiter.abort();
        let _aborted_or_done = waiter.await;
    }
    for _ in 0..5 {
        ground.take_one(LONG).await;
    }
}

fn wait(ground: &Ground) -> JoinHandle<Option<LeasedJob>> {
    let ground = ground.clone();
    tokio::spawn(async move { ground.wait_for_one("waiter", LONG, PATIENCE).await })
}

/// What the waiter got, if it got it promptly after `event`.
async fn woken(waiter: JoinHandle<Option<LeasedJob>>, event: Instant) -> LeasedJob {
    let leased = waiter.await.expect("the waiter lives").expect("the waiter was not woken");
    assert!(event.elapsed() < PROMPT, "woken {:?} after the event", event.elapsed());
    leased
}
