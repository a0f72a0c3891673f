//! Promises about commits of several writes.

use super::{Fixture, bytes};
use crate::{ErrorKind, Key, MAX_WRITES, Precondition, Revision, StateStoreExt, Write};
use bytes::Bytes;
use futures::TryStreamExt;

fn put(key: Key, value: &'static str, precondition: Precondition) -> Write {
    Write::Put { key, value: Bytes::from_static(value.as_bytes()), precondition }
}

/// A commit is one step of the store.
pub async fn a_commit_applies_all_its_writes_at_one_revision(fixture: Fixture) {
    let [a, b, c] = ["a", "b", "c"].map(|name| fixture.key(name));
    let old = fixture.store.create(a.clone(), bytes("old")).await.unwrap();
    fixture.store.create(c.clone(), bytes("old")).await.unwrap();
    let writes = vec![
        put(a.clone(), "new", Precondition::Revision(old)),
        put(b.clone(), "new", Precondition::Absent),
        Write::Delete { key: c.clone(), precondition: Precondition::None },
    ];
    let revision = fixture.store.commit(writes).await.unwrap();
    for key in [&a, &b] {
        let record = fixture.store.get(key).await.unwrap().expect("it was put");
        assert_eq!((record.value, record.revision), (bytes("new"), revision));
    }
    assert_eq!(fixture.store.get(&c).await.unwrap(), None);
}

/// All or nothing, whichever write fails and wherever it stands.
pub async fn a_commit_with_one_failing_write_changes_nothing_and_names_its_key(fixture: Fixture) {
    let [a, b, c] = ["a", "b", "c"].map(|name| fixture.key(name));
    let stale = fixture.store.create(a.clone(), bytes("old")).await.unwrap();
    fixture.store.put(a.clone(), bytes("old")).await.unwrap();
    let before: Vec<_> = fixture.store.list_all(&fixture.prefix()).try_collect().await.unwrap();
    for (failing, kind) in [
        (put(a.clone(), "new", Precondition::Absent), ErrorKind::AlreadyExists),
        (put(a.clone(), "new", Precondition::Revision(stale)), ErrorKind::Conflict),
        (Write::Delete { key: a.clone(), precondition: Precondition::Revision(stale) }, ErrorKind::Conflict),
        (Write::Check { key: a.clone(), precondition: Precondition::Absent }, ErrorKind::AlreadyExists),
    ] {
        for position in 0..3 {
            let mut writes =
                vec![put(b.clone(), "new", Precondition::None), put(c.clone(), "new", Precondition::Absent)];
            writes.insert(position, failing.clone());
            let error = fixture.store.commit(writes).await.unwrap_err();
            assert_eq!((error.kind(), error.id()), (kind, a.as_str()), "{failing:?} at {position}");
            let after: Vec<_> = fixture.store.list_all(&fixture.prefix()).try_collect().await.unwrap();
            assert_eq!(after, before, "{failing:?} at {position}");
        }
    }
}

/// A check is a precondition without a write.
pub async fn a_check_guards_a_commit_and_leaves_its_record(fixture: Fixture) {
    let [guard, target] = ["guard", "target"].map(|name| fixture.key(name));
    let revision = fixture.store.create(guard.clone(), bytes("one")).await.unwrap();
    let guarded = |expected: Revision, value| {
        let check = Write::Check { key: guard.clone(), precondition: Precondition::Revision(expected) };
        vec![put(target.clone(), value, Precondition::None), check]
    };
    fixture.store.commit(guarded(revision, "first")).await.unwrap();
    assert_eq!(fixture.store.get(&guard).await.unwrap().expect("created").revision, revision);
    fixture.store.put(guard.clone(), bytes("two")).await.unwrap();
    let error = fixture.store.commit(guarded(revision, "second")).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Conflict, guard.as_str()));
    assert_eq!(fixture.store.get(&target).await.unwrap().expect("put").value, bytes("first"));
}

/// No writes, too many, or one key twice.
pub async fn a_commit_past_its_bounds_is_invalid_and_writes_nothing(fixture: Fixture) {
    let write = |name: usize| put(fixture.key(name), "new", Precondition::None);
    let many = |count: usize| (0..count).map(write).collect::<Vec<_>>();
    for writes in [vec![], many(MAX_WRITES + 1), vec![write(1), write(2), write(1)]] {
        let error = fixture.store.commit(writes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let page = fixture.store.list(&fixture.prefix(), None, 1).await.unwrap();
        assert_eq!(page.records, []);
    }
    fixture.store.commit(many(MAX_WRITES)).await.unwrap();
}
