//! Set-if-absent as a lock.

use super::{Subject, get, key, lock, long, time_until_gone, ttl, value};
use crate::SetIfAbsent;
use futures::future::join_all;
use std::sync::Arc;
use tokio::sync::Barrier;

pub async fn set_if_absent_stores_where_nothing_is(subject: &Subject) {
    assert_eq!(lock(subject, "free", long()).await, SetIfAbsent::Stored);
    assert_eq!(get(subject, "free").await.unwrap(), "holder");
}

pub async fn set_if_absent_leaves_what_is_there(subject: &Subject) {
    lock(subject, "taken", long()).await;
    let second = subject.cache.set_if_absent(&key("taken"), value("second"), long()).await.unwrap();
    assert_eq!(second, SetIfAbsent::Taken);
    assert_eq!(get(subject, "taken").await.unwrap(), "holder");
}

pub async fn a_lock_is_free_again_when_its_time_is_over(subject: &Subject) {
    lock(subject, "timed", ttl(200)).await;
    time_until_gone(subject, "timed").await;
    assert_eq!(lock(subject, "timed", long()).await, SetIfAbsent::Stored);
}

pub async fn a_lock_is_free_again_after_a_delete(subject: &Subject) {
    lock(subject, "given/back", long()).await;
    subject.cache.delete(&key("given/back")).await.unwrap();
    assert_eq!(lock(subject, "given/back", long()).await, SetIfAbsent::Stored);
}

pub async fn a_refused_lock_does_not_live_longer(subject: &Subject) {
    lock(subject, "timed", ttl(300)).await;
    assert_eq!(lock(subject, "timed", long()).await, SetIfAbsent::Taken);
    time_until_gone(subject, "timed").await;
}

pub async fn a_race_for_a_lock_has_exactly_one_winner(subject: &Subject) {
    for round in 0..10 {
        let start = Arc::new(Barrier::new(16));
        let racers = (0..16).map(|racer| {
            let (cache, start) = (subject.cache(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let key = key(&format!("race/{round}"));
                cache.set_if_absent(&key, value(format!("{racer}")), long()).await.unwrap()
            })
        });
        let results: Vec<_> = join_all(racers).await.into_iter().map(|ended| ended.unwrap()).collect();
        let winners: Vec<_> = (0..16).filter(|racer| results[*racer] == SetIfAbsent::Stored).collect();
        assert_eq!(winners.len(), 1, "winners of round {round}: {winners:?}");
        assert_eq!(get(subject, &format!("race/{round}")).await.unwrap(), winners[0].to_string());
    }
}

pub async fn a_lock_is_free_again_after_a_wipe(subject: &Subject) {
    lock(subject, "lost", long()).await;
    (subject.wipe)().await;
    assert_eq!(lock(subject, "lost", long()).await, SetIfAbsent::Stored);
}
