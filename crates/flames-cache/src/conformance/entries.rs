//! Values come back until they end.

use super::{Subject, get, key, lock, long, set, time_until_gone, ttl, value};
use crate::{MAX_KEY_BYTES, MAX_VALUE_BYTES, SetIfAbsent};
use bytes::Bytes;
use std::time::{Duration, Instant};

pub async fn a_value_comes_back_as_it_was_set(subject: &Subject) {
    let every_byte: Vec<u8> = (0..=255).collect();
    subject.cache.set(&key("bytes"), value(every_byte.clone()), long()).await.unwrap();
    assert_eq!(get(subject, "bytes").await.unwrap(), every_byte);
    assert_eq!(get(subject, "bytes").await.unwrap(), every_byte, "reading does not take it away");
}

pub async fn a_missing_key_has_no_value(subject: &Subject) {
    assert_eq!(get(subject, "missing").await, None);
}

pub async fn an_empty_value_is_a_value(subject: &Subject) {
    set(subject, "empty", "", long()).await;
    assert_eq!(get(subject, "empty").await, Some(Bytes::new()));
    assert_eq!(lock(subject, "empty", long()).await, SetIfAbsent::Taken);
}

pub async fn the_largest_value_and_the_longest_key_work(subject: &Subject) {
    let (name, bytes) = ("k".repeat(MAX_KEY_BYTES), vec![7; MAX_VALUE_BYTES]);
    subject.cache.set(&key(&name), value(bytes.clone()), long()).await.unwrap();
    assert!(get(subject, &name).await.unwrap() == bytes);
}

pub async fn any_text_is_a_key_of_its_own(subject: &Subject) {
    let names =
        ["a", "A", "a ", " a", "a/", "a:b", "a*", "a?", "{a}", "ä", "a\0", "a\r\nDEL b", "'\"\\", "🔥"];
    for name in names {
        set(subject, name, &format!("value of {name}"), long()).await;
    }
    for name in names {
        assert_eq!(get(subject, name).await.unwrap(), format!("value of {name}"));
    }
}

pub async fn set_replaces_the_value(subject: &Subject) {
    set(subject, "replaced", "a longer old one", long()).await;
    set(subject, "replaced", "new", long()).await;
    assert_eq!(get(subject, "replaced").await.unwrap(), "new");
}

pub async fn set_replaces_the_time_to_live(subject: &Subject) {
    set(subject, "longer", "old", ttl(300)).await;
    set(subject, "longer", "new", long()).await;
    set(subject, "shorter", "old", long()).await;
    set(subject, "shorter", "new", ttl(300)).await;
    time_until_gone(subject, "shorter").await;
    assert_eq!(get(subject, "longer").await.unwrap(), "new");
}

pub async fn a_value_ends_when_its_time_is_over(subject: &Subject) {
    set(subject, "short", "value", ttl(200)).await;
    set(subject, "long", "value", long()).await;
    time_until_gone(subject, "short").await;
    assert!(get(subject, "long").await.is_some());
}

pub async fn a_value_ends_to_the_second_or_better(subject: &Subject) {
    let start = Instant::now();
    set(subject, "timed", "value", ttl(1500)).await;
    time_until_gone(subject, "timed").await;
    let lived = start.elapsed();
    assert!(lived > Duration::from_millis(1400), "ended after {lived:?} already");
    assert!(lived < Duration::from_millis(2500), "lived for {lived:?}");
}

pub async fn delete_removes_the_value(subject: &Subject) {
    set(subject, "deleted", "value", long()).await;
    set(subject, "kept", "value", long()).await;
    subject.cache.delete(&key("deleted")).await.unwrap();
    assert_eq!(get(subject, "deleted").await, None);
    assert!(get(subject, "kept").await.is_some());
}

pub async fn delete_of_a_missing_key_does_nothing(subject: &Subject) {
    subject.cache.delete(&key("missing")).await.unwrap();
    assert_eq!(get(subject, "missing").await, None);
}

pub async fn a_wiped_cache_is_empty_and_goes_on(subject: &Subject) {
    set(subject, "before", "value", long()).await;
    (subject.wipe)().await;
    assert_eq!(get(subject, "before").await, None);
    subject.cache.delete(&key("before")).await.unwrap();
    set(subject, "before", "again", long()).await;
    assert_eq!(get(subject, "before").await.unwrap(), "again");
}
