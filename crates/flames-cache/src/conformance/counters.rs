//! Counters.

use super::{Subject, count, get, key, long, set, time_until_gone, ttl};
use crate::ErrorKind;
use futures::future::join_all;
use std::collections::BTreeSet;

pub async fn a_counter_starts_at_zero_and_adds(subject: &Subject) {
    assert_eq!(count(subject, "counter", 5).await, 5);
    assert_eq!(count(subject, "counter", 7).await, 12);
    assert_eq!(count(subject, "counter", 0).await, 12);
}

pub async fn a_counter_counts_down_below_zero(subject: &Subject) {
    assert_eq!(count(subject, "counter", -3).await, -3);
    assert_eq!(count(subject, "counter", -4).await, -7);
    assert_eq!(count(subject, "counter", 10).await, 3);
}

pub async fn a_counter_reads_as_its_digits(subject: &Subject) {
    count(subject, "counter", -120).await;
    assert_eq!(get(subject, "counter").await.unwrap(), "-120");
}

pub async fn a_number_that_was_set_can_be_counted_on(subject: &Subject) {
    set(subject, "counter", "41", long()).await;
    assert_eq!(count(subject, "counter", 1).await, 42);
}

pub async fn increment_keeps_the_time_of_the_first(subject: &Subject) {
    let counter = key("window");
    subject.cache.increment(&counter, 1, ttl(400)).await.unwrap();
    assert_eq!(subject.cache.increment(&counter, 1, long()).await.unwrap(), 2);
    time_until_gone(subject, "window").await;
}

pub async fn a_counter_starts_again_when_its_time_is_over(subject: &Subject) {
    subject.cache.increment(&key("window"), 8, ttl(200)).await.unwrap();
    time_until_gone(subject, "window").await;
    assert_eq!(count(subject, "window", 1).await, 1);
}

pub async fn increment_of_a_text_is_invalid_and_leaves_it(subject: &Subject) {
    for text in ["text", "", "1.5", " 1", "01"] {
        set(subject, "text", text, long()).await;
        let error = subject.cache.increment(&key("text"), 1, long()).await.unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::InvalidInput, "text"));
        assert_eq!(get(subject, "text").await.unwrap(), text);
    }
}

pub async fn increment_past_the_largest_number_is_invalid_and_leaves_it(subject: &Subject) {
    for (start, by) in [(i64::MAX, 1), (i64::MIN, -1)] {
        set(subject, "full", &start.to_string(), long()).await;
        let error = subject.cache.increment(&key("full"), by, long()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(get(subject, "full").await.unwrap(), start.to_string());
    }
}

pub async fn increments_at_the_same_time_are_all_counted(subject: &Subject) {
    let tasks = (0..16).map(|_| {
        let cache = subject.cache();
        tokio::spawn(async move {
            let mut sums = Vec::new();
            for _ in 0..50 {
                sums.push(cache.increment(&key("shared"), 1, long()).await.unwrap());
            }
            sums
        })
    });
    let sums: Vec<i64> = join_all(tasks).await.into_iter().flat_map(|ended| ended.unwrap()).collect();
    let different: BTreeSet<i64> = sums.iter().copied().collect();
    assert_eq!(different, (1..=800).collect(), "each sum is returned once");
    assert_eq!(get(subject, "shared").await.unwrap(), "800");
}

pub async fn counters_of_different_keys_do_not_disturb_each_other(subject: &Subject) {
    join_all((1..=20).map(|n| async move {
        for _ in 0..n {
            count(subject, &format!("counter/{n}"), 1).await;
        }
    }))
    .await;
    for n in 1..=20 {
        assert_eq!(get(subject, &format!("counter/{n}")).await.unwrap(), n.to_string());
    }
}

pub async fn a_counter_starts_again_after_a_wipe(subject: &Subject) {
    count(subject, "lost", 8).await;
    (subject.wipe)().await;
    assert_eq!(count(subject, "lost", 1).await, 1);
}
