//! Promises about getting a job and settling it.

use super::Fixture;
use super::ground::{Ground, LONG, PATIENCE, SHORT, SKEW, delay, job, pass, text};
use crate::{Delay, Nacked, NewJob, Payload, Reason};
use bytes::Bytes;
use tokio::time::Instant;

/// See the name.
pub async fn an_enqueued_job_is_leased_with_its_payload_and_its_first_attempt(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let id = ground.put("work").await;
    let leased = ground.take_one(LONG).await;
    assert_eq!((text(&leased), leased.attempt), ("work", 1));
    assert_eq!((&leased.lease.job, &leased.lease.queue), (&id, &ground.name));
    assert!(leased.lease.expires_at > leased.enqueued_at, "a lease of a minute ends before the job began");
}

/// See the name.
pub async fn the_smallest_and_the_largest_payload_arrive_whole(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let large: Bytes = (0..Payload::MAX_LEN).map(|index| u8::try_from(index % 251).unwrap_or(0)).collect();
    for bytes in [Bytes::new(), large] {
        ground.put_job(NewJob::new(Payload::new(bytes.clone()).expect("within the limit"))).await;
        let leased = ground.take_one(LONG).await;
        assert!(
            leased.payload.as_bytes() == &bytes,
            "{} bytes did not arrive as they were sent",
            bytes.len()
        );
    }
}

/// See the name.
pub async fn queues_do_not_see_each_others_jobs(fixture: Fixture) {
    let (here, there) = (Ground::of(&fixture), Ground::of(&fixture));
    here.put("here").await;
    there.assert_nothing_ready("the job is in another queue").await;
    assert_eq!(there.depth().await.ready, 0);
    assert_eq!(text(&here.take_one(LONG).await), "here");
}

/// See the name.
pub async fn a_lease_takes_no_more_jobs_than_asked_for(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    for number in 0..5 {
        ground.put(&number.to_string()).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 5 {
        let taken = ground.take(2, LONG).await;
        assert!(
            (1..=2).contains(&taken.len()),
            "asked for 1 or 2 of {} jobs, got {}",
            5 - seen.len(),
            taken.len()
        );
        assert!(taken.iter().all(|job| seen.insert(text(job).to_owned())), "a job was leased twice");
    }
    ground.assert_nothing_ready("all five are taken").await;
}

/// See the name.
pub async fn an_acked_job_never_comes_back(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("once").await;
    let leased = ground.take_one(SHORT).await;
    ground.queue.ack(&leased.lease).await.expect("ack");
    assert_eq!(ground.depth().await.leased, 0);
    pass(SHORT * 2).await;
    ground.assert_nothing_ready("it was acked").await;
    assert_eq!(ground.depth().await, crate::Depth::default());
}

/// See the name.
pub async fn a_nacked_job_without_backoff_is_ready_at_once_for_its_next_attempt(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let id = ground.put("again").await;
    let first = ground.take_one(LONG).await;
    let nacked = ground.queue.nack(&first.lease, &Reason::new("not now"), Delay::NONE).await.expect("nack");
    assert_eq!(nacked, Nacked::WillRetry);
    let second = ground.take_one(LONG).await;
    assert_eq!((&second.lease.job, second.attempt, text(&second)), (&id, 2, "again"));
}

/// See the name.
pub async fn a_nacked_job_is_not_leased_before_its_backoff_is_over(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    ground.put("later").await;
    let first = ground.take_one(LONG).await;
    let nacked_at = Instant::now();
    ground.queue.nack(&first.lease, &Reason::new("busy"), delay(SHORT)).await.expect("nack");
    let second = ground.take_one(LONG).await;
    assert!(
        nacked_at.elapsed() + SKEW >= SHORT,
        "leased {:?} after a nack with {SHORT:?}",
        nacked_at.elapsed()
    );
    assert!(nacked_at.elapsed() < PATIENCE / 2, "the backoff took {:?}", nacked_at.elapsed());
    assert_eq!(second.attempt, 2);
}

/// See the name.
pub async fn a_delayed_job_is_not_leased_before_its_delay_is_over(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let enqueued_at = Instant::now();
    ground.put_job(job("delayed").delay(delay(SHORT))).await;
    ground.put("ready").await;
    assert_eq!(text(&ground.take_one(LONG).await), "ready", "a delayed job held up a ready one");
    let leased = ground.take_one(LONG).await;
    assert_eq!((text(&leased), leased.attempt), ("delayed", 1), "waiting is no attempt");
    assert!(enqueued_at.elapsed() + SKEW >= SHORT, "leased after {:?}", enqueued_at.elapsed());
}
