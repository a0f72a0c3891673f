//! Promises about dedup keys.

use super::Fixture;
use super::ground::{Ground, LONG, job, pass};
use crate::{DedupKey, Enqueued, JobId, Novelty};
use std::time::Duration;

/// See the name.
pub async fn a_duplicate_within_the_window_is_not_added_and_names_the_first(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let first = put(&ground, "first", "key").await;
    let second = put(&ground, "second", "key").await;
    assert_eq!(first.novelty, Novelty::Fresh);
    assert_eq!(second, Enqueued { id: first.id, novelty: Novelty::Duplicate });
    assert_eq!(put(&ground, "third", "other key").await.novelty, Novelty::Fresh);
    assert_eq!(ground.depth().await.ready, 2);
}

/// See the name.
pub async fn a_duplicate_of_a_finished_job_within_the_window_is_not_added(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let first = put(&ground, "first", "key").await;
    let leased = ground.take_one(LONG).await;
    ground.queue.ack(&leased.lease).await.expect("ack");
    assert_eq!(put(&ground, "second", "key").await, Enqueued { id: first.id, novelty: Novelty::Duplicate });
    ground.assert_nothing_ready("the work was done within the window").await;
}

/// See the name.
pub async fn a_dedup_key_is_free_again_after_its_window(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let first = put(&ground, "first", "key").await;
    pass(fixture.dedup_window.get() + Duration::from_millis(500)).await;
    let second = put(&ground, "second", "key").await;
    assert_eq!(second.novelty, Novelty::Fresh);
    assert_ne!(first.id, second.id);
    assert_eq!(ground.depth().await.ready, 2);
}

/// See the name.
pub async fn a_dedup_key_means_nothing_in_another_queue(fixture: Fixture) {
    let (here, there) = (Ground::of(&fixture), Ground::of(&fixture));
    put(&here, "here", "key").await;
    assert_eq!(put(&there, "there", "key").await.novelty, Novelty::Fresh);
}

/// See the name.
pub async fn concurrent_enqueues_with_one_dedup_key_add_one_job(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let writers = (0..8).map(|number| {
        let ground = ground.clone();
        tokio::spawn(async move { put(&ground, &number.to_string(), "key").await })
    });
    let answers: Vec<_> = futures::future::join_all(writers)
        .await
        .into_iter()
        .map(|answer| answer.expect("a writer"))
        .collect();
    let fresh: Vec<_> = answers.iter().filter(|answer| answer.novelty == Novelty::Fresh).collect();
    assert_eq!(fresh.len(), 1, "{answers:?}");
    let ids: std::collections::HashSet<&JobId> = answers.iter().map(|answer| &answer.id).collect();
    assert_eq!(ids.len(), 1, "duplicates name other jobs than the first: {answers:?}");
    assert_eq!(ground.depth().await.ready, 1);
}

async fn put(ground: &Ground, text: &str, key: &str) -> Enqueued {
    let job = job(text).dedup_key(DedupKey::new(key).expect("a legal key"));
    ground.queue.enqueue(&ground.name, job).await.expect("enqueue")
}
