//! Lists are ordered, complete and stable.

use super::{Subject, content, key, put};
use crate::{BlobEntry, BlobKey, BlobStore, BlobStoreExt, ListLimit, PutOptions};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// In the order of their bytes, with what tempts an adapter into another order: `-` and `.` sort before `/`,
/// digits and letters behind it.
const ORDERED: [&str; 9] = ["A", "Z/z", "a-b", "a-b.c/d", "a.b", "a/b", "a/b-c", "a0", "a_b"];

pub async fn a_list_is_ordered_by_the_bytes_of_the_keys(subject: &Subject) {
    put_all(subject, ORDERED.iter().rev()).await;
    let page = subject.store.list(None, None, ListLimit::MAX).await.unwrap();
    assert_eq!(names(&page.entries), ORDERED);
    assert_eq!(page.next, None);
}

pub async fn a_list_of_nothing_is_an_empty_page(subject: &Subject) {
    assert_eq!(subject.store.list(None, None, ListLimit::MAX).await.unwrap(), crate::Page::default());
    put_all(subject, ["a/b"]).await;
    for folder in ["none", "a/b", "a/b/c"] {
        let page = subject.store.list(Some(&key(folder)), None, ListLimit::MAX).await.unwrap();
        assert_eq!(page, crate::Page::default(), "beneath {folder}");
    }
}

pub async fn a_list_under_a_folder_leaves_out_its_neighbours(subject: &Subject) {
    put_all(subject, ["a-b/x", "a.b", "a/x", "a/y/z", "a0/x", "ab", "b/a/x"]).await;
    let page = subject.store.list(Some(&key("a")), None, ListLimit::MAX).await.unwrap();
    assert_eq!(names(&page.entries), ["a/x", "a/y/z"]);
    let page = subject.store.list(Some(&key("a/y")), None, ListLimit::MAX).await.unwrap();
    assert_eq!(names(&page.entries), ["a/y/z"]);
}

pub async fn a_page_has_at_most_its_limit(subject: &Subject) {
    put_all(subject, ["a", "b", "c"]).await;
    let page = subject.store.list(None, None, ListLimit::new(2).unwrap()).await.unwrap();
    assert_eq!((names(&page.entries), page.next), (vec!["a".to_owned(), "b".to_owned()], Some(key("b"))));
    let exact = subject.store.list(None, None, ListLimit::new(3).unwrap()).await.unwrap();
    assert_eq!(exact.entries.len(), 3);
}

pub async fn pages_hold_every_blob_exactly_once(subject: &Subject) {
    let all: Vec<String> = (0..23).map(|n| format!("folder/{}/{n:02}", n % 5)).collect();
    put_all(subject, &all).await;
    put_all(subject, ["before", "z/behind"]).await;
    for limit in [1, 2, 7, 23, 24] {
        let found = walk(&subject.store, Some(&key("folder")), limit, async |_| {}).await;
        let sorted: Vec<_> = all.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        assert_eq!(found, sorted, "in pages of {limit}");
    }
}

pub async fn pages_stay_stable_while_others_write(subject: &Subject) {
    let untouched: Vec<String> = (10..30).map(|n| format!("{n}")).collect();
    put_all(subject, &untouched).await;
    put_all(subject, ["11-gone", "29-gone"]).await;
    let store = &subject.store;
    let disturb = async |page: usize| {
        put_all(
            subject,
            [format!("0{page}-early"), format!("{}-between", 10 + page), format!("9{page}-late")],
        )
        .await;
        store.delete(&key("11-gone")).await.unwrap();
        store.delete(&key("29-gone")).await.unwrap();
    };
    let found = walk(store, None, 3, disturb).await;
    for name in &untouched {
        assert_eq!(found.iter().filter(|other| *other == name).count(), 1, "{name} in {found:?}");
    }
    assert!(found.is_sorted(), "{found:?}");
}

pub async fn a_list_can_start_behind_a_key_that_does_not_exist(subject: &Subject) {
    put_all(subject, ["a/a", "a/c", "a/c/d", "b"].iter().filter(|name| **name != "a/c")).await;
    for (after, wanted) in
        [("a/b", &["a/c/d", "b"][..]), ("a", &["a/a", "a/c/d", "b"]), ("a/c/d", &["b"]), ("c", &[])]
    {
        let page = subject.store.list(None, Some(&key(after)), ListLimit::MAX).await.unwrap();
        assert_eq!(names(&page.entries), wanted, "behind {after}");
    }
    let page = subject.store.list(Some(&key("a")), Some(&key("a/b")), ListLimit::MAX).await.unwrap();
    assert_eq!(names(&page.entries), ["a/c/d"]);
    let page = subject.store.list(Some(&key("a")), Some(&key("0")), ListLimit::MAX).await.unwrap();
    assert_eq!(names(&page.entries), ["a/a", "a/c/d"]);
}

pub async fn a_list_tells_size_and_time(subject: &Subject) {
    put(subject, "sized", &content(1234, 1)).await;
    let page = subject.store.list(None, None, ListLimit::MAX).await.unwrap();
    assert_eq!(page.entries[0].size, 1234);
    let age = SystemTime::now().duration_since(page.entries[0].modified).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "put just now, says it is {age:?} old");
}

async fn put_all<Name: AsRef<str>>(subject: &Subject, names: impl IntoIterator<Item = Name>) {
    for name in names {
        let bytes = Bytes::from_static(b"x");
        subject.store.put_bytes(&key(name.as_ref()), PutOptions::REPLACE, bytes).await.unwrap();
    }
}

fn names(entries: &[BlobEntry]) -> Vec<String> {
    entries.iter().map(|entry| entry.key.to_string()).collect()
}

async fn walk(
    store: &Arc<dyn BlobStore>,
    under: Option<&BlobKey>,
    limit: usize,
    between: impl AsyncFn(usize),
) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = None;
    for page_number in 0..100 {
        let page = store.list(under, after.as_ref(), ListLimit::new(limit).unwrap()).await.unwrap();
        assert!(page.entries.len() <= limit);
        found.extend(names(&page.entries));
        match page.next {
            None => return found,
            next => after = next,
        }
        between(page_number).await;
    }
    panic!("the list does not end: {found:?}");
}
