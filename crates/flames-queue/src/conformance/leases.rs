//! Promises about who holds a job, and until when.

use super::Fixture;
use super::ground::{Ground, LONG, SHORT, SKEW, assert_conflict, pass, visibility};
use crate::{Delay, Reason};
use tokio::time::Instant;

/// See the name.
pub async fn a_leased_job_is_not_leased_to_another_consumer(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("mine").await;
    let mine = ground.take_one(LONG).await;
    assert!(ground.wait_for_one("other", LONG, SHORT).await.is_none(), "two consumers hold one job");
    ground.queue.ack(&mine.lease).await.expect("ack");
}

/// See the name.
pub async fn eight_consumers_race_for_one_job_and_exactly_one_gets_it(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    for round in 0..5 {
        ground.put(&round.to_string()).await;
        let racers = (0..8).map(|number| {
            let ground = ground.clone();
            tokio::spawn(async move { ground.wait_for_one(&format!("racer-{number}"), LONG, SHORT).await })
        });
        let answers = futures::future::join_all(racers).await;
        let winners = answers.into_iter().filter_map(|answer| answer.expect("a racer")).count();
        assert_eq!(winners, 1, "in round {round}");
    }
}

/// See the name.
pub async fn an_expired_lease_hands_the_job_to_another_consumer(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let id = ground.put("handed over").await;
    let leased_at = Instant::now();
    ground.take_one(SHORT).await;
    let other = ground.take_one(LONG).await;
    assert!(leased_at.elapsed() + SKEW >= SHORT, "handed over after {:?}", leased_at.elapsed());
    assert_eq!((&other.lease.job, other.attempt), (&id, 2));
    ground.queue.ack(&other.lease).await.expect("ack by the new holder");
}

/// See the name.
pub async fn an_ack_after_expiry_is_a_conflict_and_the_job_stays(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("late").await;
    let late = ground.take_one(SHORT).await;
    pass(SHORT + SKEW).await;
    assert_conflict(ground.queue.ack(&late.lease).await, "an ack after expiry");
    assert_eq!(ground.take_one(LONG).await.attempt, 2);
}

/// See the name.
pub async fn an_ack_by_the_former_holder_is_a_conflict_and_the_new_lease_holds(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("handed over").await;
    let former = ground.take_one(SHORT).await;
    let current = ground.take_one(LONG).await;
    assert_conflict(ground.queue.ack(&former.lease).await, "an ack by the former holder");
    assert_conflict(
        ground.queue.extend(&former.lease, visibility(LONG)).await,
        "an extend by the former holder",
    );
    let reason = Reason::new("late");
    assert_conflict(
        ground.queue.nack(&former.lease, &reason, Delay::NONE).await,
        "a nack by the former holder",
    );
    ground.assert_nothing_ready("the current holder has it").await;
    ground.queue.ack(&current.lease).await.expect("ack by the current holder");
}

/// See the name.
pub async fn a_second_ack_is_a_conflict(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("once").await;
    let leased = ground.take_one(LONG).await;
    ground.queue.ack(&leased.lease).await.expect("ack");
    assert_conflict(ground.queue.ack(&leased.lease).await, "a second ack");
}

/// See the name.
pub async fn an_ack_after_a_nack_is_a_conflict(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("given back").await;
    let leased = ground.take_one(LONG).await;
    ground.queue.nack(&leased.lease, &Reason::new("no"), Delay::NONE).await.expect("nack");
    assert_conflict(ground.queue.ack(&leased.lease).await, "an ack after a nack");
    assert_eq!(ground.take_one(LONG).await.attempt, 2);
}

/// See the name.
pub async fn a_nack_after_expiry_is_a_conflict(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("late").await;
    let late = ground.take_one(SHORT).await;
    pass(SHORT + SKEW).await;
    assert_conflict(
        ground.queue.nack(&late.lease, &Reason::new("late"), Delay::NONE).await,
        "a nack after expiry",
    );
}

/// See the name.
pub async fn an_extend_after_expiry_is_a_conflict(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("late").await;
    let late = ground.take_one(SHORT).await;
    pass(SHORT + SKEW).await;
    assert_conflict(ground.queue.extend(&late.lease, visibility(LONG)).await, "an extend after expiry");
    assert_eq!(ground.take_one(LONG).await.attempt, 2);
}

/// See the name.
pub async fn an_extended_lease_outlives_its_first_end(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("long work").await;
    let leased = ground.take_one(SHORT).await;
    let extended = ground.queue.extend(&leased.lease, visibility(LONG)).await.expect("extend");
    assert!(extended.expires_at > leased.lease.expires_at, "the lease does not say that it is longer");
    assert!(
        ground.wait_for_one("other", LONG, SHORT * 2).await.is_none(),
        "handed over in spite of the extend"
    );
    ground.queue.ack(&extended).await.expect("ack after the first end");
}

/// See the name.
pub async fn an_extend_may_shorten_a_lease(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("short work").await;
    let leased = ground.take_one(LONG).await;
    ground.queue.extend(&leased.lease, visibility(SHORT / 4)).await.expect("extend");
    assert_eq!(ground.take_one(LONG).await.attempt, 2);
}

/// See the name.
pub async fn a_killed_consumer_loses_nothing(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let id = ground.put("interrupted").await;
    let (holds, held) = tokio::sync::oneshot::channel();
    let consumer = tokio::spawn({
        let ground = ground.clone();
        async move {
            let leased = ground.take_one(SHORT).await;
            let _ = holds.send(());
            std::future::pending::<()>().await;
            drop(leased);
        }
    });
    held.await.expect("the consumer got the job");
    consumer.abort();
    let taken_over = ground.take_one(LONG).await;
    assert_eq!((&taken_over.lease.job, taken_over.attempt), (&id, 2));
}
