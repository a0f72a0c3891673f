//! Promises about lists.

use super::{Fixture, bytes};
use crate::{
    ErrorKind, Key, MAX_PAGE_RECORDS, MAX_VALUE_BYTES, Precondition, Record, StateStore, StateStoreExt,
};
use futures::TryStreamExt;
use std::sync::Arc;

async fn all_pages(store: &dyn StateStore, prefix: &str, limit: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = store.list(prefix, after.as_ref(), limit).await.unwrap();
        assert!(page.records.len() <= limit);
        records.extend(page.records);
        match page.next {
            Some(next) => assert!(after.replace(next.clone()) < Some(next), "the cursor goes forward"),
            None => return records,
        }
    }
}

fn keys(records: &[Record]) -> Vec<&Key> {
    records.iter().map(|record| &record.key).collect()
}

/// By bytes, not by a language's rules.
pub async fn a_list_is_ordered_by_bytes_and_holds_only_its_prefix(fixture: Fixture) {
    let mut inside: Vec<Key> = ["in/B", "in/a", "in/Z", "in/ä", "in/", "in/%", "in/a\0", "in/🔥"]
        .iter()
        .map(|name| fixture.key(name))
        .collect();
    let outside = ["in", "in0", "im/z", "IN/a", "other"].map(|name| fixture.key(name));
    for key in inside.iter().chain(&outside) {
        fixture.store.create(key.clone(), bytes("x")).await.unwrap();
    }
    inside.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let listed = all_pages(&fixture.store, fixture.key("in/").as_str(), 100).await;
    assert_eq!(keys(&listed), inside.iter().collect::<Vec<_>>());
    assert!(listed.iter().all(|record| record.value == bytes("x")));
    let percent = all_pages(&fixture.store, fixture.key("in/%").as_str(), 100).await;
    assert_eq!(keys(&percent), [&fixture.key("in/%")], "a prefix is no pattern");
}

/// Whatever the page size.
pub async fn pages_join_to_the_whole_list_without_gap_or_repeat(fixture: Fixture) {
    let wanted: Vec<Key> = (0..50).map(|n| fixture.key(format!("{n:03}"))).collect();
    for key in &wanted {
        fixture.store.create(key.clone(), bytes(key)).await.unwrap();
    }
    for limit in [1, 7, 25, 50, MAX_PAGE_RECORDS] {
        let listed = all_pages(&fixture.store, &fixture.prefix(), limit).await;
        assert_eq!(keys(&listed), wanted.iter().collect::<Vec<_>>(), "pages of {limit}");
    }
    let streamed: Vec<Record> = fixture.store.list_all(&fixture.prefix()).try_collect().await.unwrap();
    assert_eq!(keys(&streamed), wanted.iter().collect::<Vec<_>>());
}

/// Records that nobody touches appear exactly once, whatever happens around them.
pub async fn pages_stay_stable_while_others_write(fixture: Fixture) {
    let steady: Vec<Key> = (0..20).map(|n| fixture.key(format!("{n:03}/steady"))).collect();
    for key in &steady {
        fixture.store.create(key.clone(), bytes("x")).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after: Option<Key> = None;
    for round in 0.. {
        disturb(&fixture, round).await;
        let page = fixture.store.list(&fixture.prefix(), after.as_ref(), 3).await.unwrap();
        seen.extend(page.records.into_iter().map(|record| record.key));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
    seen.retain(|key| key.as_str().ends_with("steady"));
    assert_eq!(seen, steady);
}

/// Creates before, behind and around the cursor, and deletes what the last round made.
async fn disturb(fixture: &Fixture, round: usize) {
    for n in [0, round, 19] {
        let made = fixture.key(format!("{n:03}/a{round}"));
        fixture.store.put(made, bytes("x")).await.unwrap();
        if let Some(last) = round.checked_sub(1) {
            let key = fixture.key(format!("{n:03}/a{last}"));
            fixture.store.delete(key, Precondition::None).await.unwrap();
        }
    }
}

/// A page is bounded in bytes too, and says that more follow.
pub async fn a_list_of_large_values_comes_in_pages(fixture: Fixture) {
    for n in 0..8 {
        fixture.store.create(fixture.key(n), vec![n; MAX_VALUE_BYTES].into()).await.unwrap();
    }
    let listed = all_pages(&fixture.store, &fixture.prefix(), 100).await;
    assert_eq!(keys(&listed), (0..8).map(|n| fixture.key(n)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    assert!((0..8).zip(&listed).all(|(n, record)| record.value == vec![n; MAX_VALUE_BYTES]));
}

/// A cursor outside the prefix is only a bound.
pub async fn a_list_behind_a_key_before_the_prefix_starts_at_the_prefix(fixture: Fixture) {
    let store: &Arc<dyn StateStore> = &fixture.store;
    for name in ["a", "b/1", "b/2", "c"] {
        store.create(fixture.key(name), bytes("x")).await.unwrap();
    }
    let behind = async |name: &str| {
        let prefix = fixture.key("b/");
        let page = store.list(prefix.as_str(), Some(&fixture.key(name)), 10).await.unwrap();
        page.records.into_iter().map(|record| record.key).collect::<Vec<_>>()
    };
    assert_eq!(behind("a").await, [fixture.key("b/1"), fixture.key("b/2")]);
    assert_eq!(behind("b/1").await, [fixture.key("b/2")]);
    assert_eq!(behind("c").await, []);
}

/// Zero and too many.
pub async fn a_page_limit_out_of_bounds_is_invalid(fixture: Fixture) {
    for limit in [0, MAX_PAGE_RECORDS + 1] {
        let error = fixture.store.list(&fixture.prefix(), None, limit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
