//! Promises about watches.

use super::{Fixture, HISTORY, bytes};
use crate::{Change, ChangeKind, ErrorKind, Event, Precondition, Revision, StateStoreExt, Watch, Write};
use futures::StreamExt;
use futures::future::join_all;
use std::time::Duration;
use tokio::time::timeout;

/// An event that takes longer was lost.
const SOON: Duration = Duration::from_secs(10);
/// How long to listen for what must not come.
const QUIET: Duration = Duration::from_millis(200);

impl Fixture {
    async fn watch(&self, from: Revision) -> Watch {
        self.store.watch(&self.prefix(), from).await.unwrap()
    }
}

async fn next(watch: &mut Watch) -> Event {
    timeout(SOON, watch.next()).await.expect("an event in time").expect("the stream goes on").unwrap()
}

async fn assert_quiet(watch: &mut Watch) {
    let event = timeout(QUIET, watch.next()).await;
    assert!(event.is_err(), "unexpected: {event:?}");
}

fn put(key: crate::Key, value: &'static str) -> Change {
    Change { key, kind: ChangeKind::Put(bytes(value)) }
}

/// First what happened since `from`, then what happens.
pub async fn a_watch_gives_past_and_coming_commits_in_order(fixture: Fixture) {
    let (a, b) = (fixture.key("a"), fixture.key("b"));
    let start = fixture.store.put(a.clone(), bytes("before")).await.unwrap();
    let first = fixture.store.put(a.clone(), bytes("1")).await.unwrap();
    let second = fixture.store.put(b.clone(), bytes("2")).await.unwrap();
    let mut watch = fixture.watch(start).await;
    assert_eq!(next(&mut watch).await, Event { revision: first, changes: vec![put(a.clone(), "1")] });
    assert_eq!(next(&mut watch).await, Event { revision: second, changes: vec![put(b, "2")] });
    assert_quiet(&mut watch).await;
    let third = fixture.store.delete(a.clone(), Precondition::None).await.unwrap();
    let deleted = Change { key: a, kind: ChangeKind::Delete };
    assert_eq!(next(&mut watch).await, Event { revision: third, changes: vec![deleted] });
    assert_quiet(&mut watch).await;
}

/// A watcher never sees half a commit; checks and deletes of nothing are no changes.
pub async fn a_watch_gives_a_commit_as_one_event_in_the_order_of_its_writes(fixture: Fixture) {
    let start = fixture.store.put(fixture.key("c"), bytes("old")).await.unwrap();
    let write =
        |name| Write::Put { key: fixture.key(name), value: bytes(name), precondition: Precondition::None };
    let delete = |name| Write::Delete { key: fixture.key(name), precondition: Precondition::None };
    let check = Write::Check { key: fixture.key("x"), precondition: Precondition::Absent };
    let writes = vec![write("b"), delete("c"), check, delete("missing"), write("a")];
    let revision = fixture.store.commit(writes).await.unwrap();
    let deleted = Change { key: fixture.key("c"), kind: ChangeKind::Delete };
    let changes = vec![put(fixture.key("b"), "b"), deleted, put(fixture.key("a"), "a")];
    let mut watch = fixture.watch(start).await;
    assert_eq!(next(&mut watch).await, Event { revision, changes });
    assert_quiet(&mut watch).await;
}

/// Part of a commit may be under the prefix and part not.
pub async fn a_watch_sees_only_its_prefix(fixture: Fixture) {
    let start = fixture.store.revision().await.unwrap();
    let mut watch = fixture.store.watch(fixture.key("in/").as_str(), start).await.unwrap();
    for name in ["in", "in0", "IN/a", "other/in/a"] {
        fixture.store.put(fixture.key(name), bytes("x")).await.unwrap();
    }
    let write =
        |name| Write::Put { key: fixture.key(name), value: bytes("x"), precondition: Precondition::None };
    let revision = fixture.store.commit(vec![write("out"), write("in/a")]).await.unwrap();
    assert_eq!(next(&mut watch).await, Event { revision, changes: vec![put(fixture.key("in/a"), "x")] });
    assert_quiet(&mut watch).await;
}

/// While others write, and however often the watcher comes back.
pub async fn a_watch_resumed_from_its_last_event_misses_and_repeats_nothing(fixture: Fixture) {
    const WRITERS: usize = 4;
    const EACH: usize = 40;
    let mut from = fixture.store.revision().await.unwrap();
    let writers = join_all((0..WRITERS).map(|writer| write_many(&fixture, writer, EACH)));
    let watcher = async {
        let mut seen = Vec::new();
        while seen.len() < WRITERS * EACH {
            let mut watch = fixture.watch(from).await;
            for _ in 0..=(seen.len() % 5).min(WRITERS * EACH - seen.len() - 1) {
                let event = next(&mut watch).await;
                from = event.revision;
                seen.push(from);
            }
        }
        seen
    };
    let (committed, seen) = tokio::join!(writers, watcher);
    let mut committed = committed.concat();
    committed.sort();
    assert_eq!(seen, committed);
    assert_quiet(&mut fixture.watch(from).await).await;
}

async fn write_many(fixture: &Fixture, writer: usize, count: usize) -> Vec<Revision> {
    let mut revisions = Vec::new();
    for n in 0..count {
        let key = fixture.key(format!("{writer}/{n}"));
        revisions.push(fixture.store.put(key, bytes(n)).await.unwrap());
    }
    revisions
}

/// Seeing nothing is not falling behind.
pub async fn a_watch_under_a_quiet_prefix_outlives_the_history(fixture: Fixture) {
    let start = fixture.store.revision().await.unwrap();
    let mut watch = fixture.store.watch(fixture.key("quiet/").as_str(), start).await.unwrap();
    for _ in 0..6 {
        join_all((0..8).map(|writer| write_noise(&fixture, writer, HISTORY / 16))).await;
        assert_quiet(&mut watch).await;
    }
    let revision = fixture.store.put(fixture.key("quiet/a"), bytes("x")).await.unwrap();
    assert_eq!(next(&mut watch).await.revision, revision);
}

async fn write_noise(fixture: &Fixture, writer: u64, count: u64) {
    for n in 0..count {
        fixture.store.put(fixture.key(format!("noise/{writer}")), bytes(n)).await.unwrap();
    }
}

/// The history is bounded, and a watcher is told instead of being given a part.
pub async fn a_watch_from_before_the_history_is_not_found(fixture: Fixture) {
    let start = fixture.store.revision().await.unwrap();
    let mut rounds = 0;
    let error = loop {
        join_all((0..8).map(|writer| write_noise(&fixture, writer, HISTORY / 8))).await;
        match fixture.store.watch(&fixture.prefix(), start).await {
            Err(error) => break error,
            Ok(_) => rounds += 1,
        }
        assert!(rounds < 8, "the history has no end");
    };
    assert_eq!((error.kind(), error.id()), (ErrorKind::NotFound, start.to_string().as_str()));
    let newest = fixture.store.revision().await.unwrap();
    let mut recent = fixture.watch(Revision(newest.0 - HISTORY / 2)).await;
    assert_eq!(
        next(&mut recent).await.revision,
        Revision(newest.0 - HISTORY / 2 + 1),
        "the kept part is whole"
    );
}

/// A revision nobody has reached is a mistake of the caller.
pub async fn a_watch_from_the_future_is_invalid(fixture: Fixture) {
    let newest = fixture.store.revision().await.unwrap();
    let error =
        fixture.store.watch(&fixture.prefix(), Revision(newest.0 + 1_000_000)).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
