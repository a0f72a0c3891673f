//! Promises about one record.

use super::{Fixture, bytes};
use crate::{ErrorKind, Key, MAX_VALUE_BYTES, Precondition, Revision, StateStoreExt};
use std::collections::HashSet;

/// What was created is what is read.
pub async fn a_created_record_is_read_back_with_its_revision(fixture: Fixture) {
    let key = fixture.key("a");
    assert_eq!(fixture.store.get(&key).await.unwrap(), None);
    let revision = fixture.store.create(key.clone(), bytes("one")).await.unwrap();
    let record = fixture.store.get(&key).await.unwrap().expect("it was created");
    assert_eq!((record.key, record.value, record.revision), (key, bytes("one"), revision));
}

/// Create-if-absent.
pub async fn create_of_an_existing_record_is_already_exists_and_leaves_it(fixture: Fixture) {
    let key = fixture.key("a");
    let revision = fixture.store.create(key.clone(), bytes("one")).await.unwrap();
    let error = fixture.store.create(key.clone(), bytes("two")).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::AlreadyExists, key.as_str()));
    let record = fixture.store.get(&key).await.unwrap().expect("it was created");
    assert_eq!((record.value, record.revision), (bytes("one"), revision));
}

/// Compare-and-swap.
pub async fn put_with_a_stale_revision_is_conflict_and_leaves_the_value(fixture: Fixture) {
    let key = fixture.key("a");
    let stale = fixture.store.create(key.clone(), bytes("one")).await.unwrap();
    let current = fixture.store.compare_and_swap(key.clone(), bytes("two"), stale).await.unwrap();
    let error = fixture.store.compare_and_swap(key.clone(), bytes("three"), stale).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Conflict, key.as_str()));
    let record = fixture.store.get(&key).await.unwrap().expect("it was created");
    assert_eq!((record.value, record.revision), (bytes("two"), current));
}

/// Compare-and-swap of nothing.
pub async fn put_with_a_revision_of_a_missing_record_is_not_found_and_creates_nothing(fixture: Fixture) {
    let key = fixture.key("a");
    let error = fixture.store.compare_and_swap(key.clone(), bytes("one"), Revision(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::NotFound, key.as_str()));
    assert_eq!(fixture.store.get(&key).await.unwrap(), None);
}

/// Compare-and-delete.
pub async fn delete_with_a_stale_revision_is_conflict_and_leaves_the_record(fixture: Fixture) {
    let key = fixture.key("a");
    let stale = fixture.store.create(key.clone(), bytes("one")).await.unwrap();
    fixture.store.put(key.clone(), bytes("two")).await.unwrap();
    let error = fixture.store.delete(key.clone(), Precondition::Revision(stale)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(fixture.store.get(&key).await.unwrap().expect("still there").value, bytes("two"));
}

/// Deleting is idempotent.
pub async fn deleting_a_missing_record_is_no_error(fixture: Fixture) {
    let key = fixture.key("a");
    fixture.store.delete(key.clone(), Precondition::None).await.unwrap();
    assert_eq!(fixture.store.get(&key).await.unwrap(), None);
}

/// A deleted key is as free as a new one.
pub async fn a_deleted_record_is_gone_and_can_be_created_again(fixture: Fixture) {
    let key = fixture.key("a");
    let revision = fixture.store.create(key.clone(), bytes("one")).await.unwrap();
    fixture.store.delete(key.clone(), Precondition::Revision(revision)).await.unwrap();
    assert_eq!(fixture.store.get(&key).await.unwrap(), None);
    fixture.store.create(key.clone(), bytes("two")).await.unwrap();
    assert_eq!(fixture.store.get(&key).await.unwrap().expect("it was created").value, bytes("two"));
}

/// One counter for the store, and it only grows.
pub async fn revisions_grow_with_every_commit_and_are_never_repeated_across_delete(fixture: Fixture) {
    let (a, b) = (fixture.key("a"), fixture.key("b"));
    let mut revisions = Vec::new();
    for round in 0..5 {
        revisions.push(fixture.store.put(a.clone(), bytes(round)).await.unwrap());
        revisions.push(fixture.store.put(b.clone(), bytes(round)).await.unwrap());
        revisions.push(fixture.store.delete(a.clone(), Precondition::None).await.unwrap());
    }
    assert!(revisions.is_sorted(), "{revisions:?}");
    assert_eq!(revisions.iter().collect::<HashSet<_>>().len(), revisions.len(), "{revisions:?}");
}

/// No ABA: what was deleted and created again is another record.
pub async fn a_revision_from_before_a_delete_never_matches_the_new_record(fixture: Fixture) {
    let key = fixture.key("a");
    let before = fixture.store.create(key.clone(), bytes("same")).await.unwrap();
    fixture.store.delete(key.clone(), Precondition::None).await.unwrap();
    let after = fixture.store.create(key.clone(), bytes("same")).await.unwrap();
    assert_ne!(before, after);
    let error = fixture.store.compare_and_swap(key.clone(), bytes("wrong"), before).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(fixture.store.get(&key).await.unwrap().expect("it was created").value, bytes("same"));
}

/// [`StateStore::revision`](crate::StateStore::revision) is never behind a commit that was acknowledged.
pub async fn the_store_revision_is_that_of_the_newest_commit(fixture: Fixture) {
    let before = fixture.store.revision().await.unwrap();
    let committed = fixture.store.put(fixture.key("a"), bytes("one")).await.unwrap();
    let after = fixture.store.revision().await.unwrap();
    assert!(before < committed && committed <= after, "{before} {committed} {after}");
}

/// The bounds of a value are inside.
pub async fn values_of_0_bytes_and_of_1_mib_are_kept_whole(fixture: Fixture) {
    let large: Vec<u8> = (0..MAX_VALUE_BYTES).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    for (name, value) in [("empty", vec![]), ("large", large)] {
        let key = fixture.key(name);
        fixture.store.create(key.clone(), value.clone().into()).await.unwrap();
        let stored = fixture.store.get(&key).await.unwrap().expect("it was created").value;
        assert!(stored == value, "{name}: {} bytes came back", stored.len());
    }
}

/// No key is changed, folded or mistaken for a pattern.
pub async fn any_utf8_key_names_a_record_of_its_own(fixture: Fixture) {
    let long = "k".repeat(crate::MAX_KEY_BYTES - fixture.prefix().len());
    let names =
        ["a", "A", "ä", "a\u{308}", "%", "_", "'", "\"; --", "\\", "\0", "\n", " ", "🔥", "..", "/", &long];
    let keys: Vec<Key> = names.iter().map(|name| fixture.key(name)).collect();
    for (number, key) in keys.iter().enumerate() {
        fixture.store.create(key.clone(), bytes(number)).await.unwrap();
    }
    for (number, key) in keys.iter().enumerate() {
        let record = fixture.store.get(key).await.unwrap().expect("it was created");
        assert_eq!((&record.key, record.value), (key, bytes(number)));
    }
}

/// Past the bound is a clear refusal.
pub async fn a_value_past_1_mib_is_refused_and_nothing_is_written(fixture: Fixture) {
    let key = fixture.key("a");
    let error = fixture.store.put(key.clone(), vec![0; MAX_VALUE_BYTES + 1].into()).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::InvalidInput, key.as_str()));
    assert_eq!(fixture.store.get(&key).await.unwrap(), None);
}
