//! Promises about many callers at once.

use super::{Fixture, bytes};
use crate::{ErrorKind, Precondition, Record, Revision, StateStoreExt, Write};
use futures::future::join_all;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const WRITERS: usize = 8;

/// Each as a task of its own, so that a runtime with several threads really runs them at once.
pub(super) async fn in_parallel<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let handles: Vec<_> = tasks.map(tokio::spawn).collect();
    join_all(handles).await.into_iter().map(|joined| joined.expect("no task panics")).collect()
}

/// The heart of every state machine on top: each winner replaced exactly the state it had read.
pub async fn of_n_writers_on_one_record_exactly_one_wins_each_revision(fixture: Fixture) {
    const EACH: u64 = 10;
    let first = fixture.store.create(fixture.key("counter"), bytes(0)).await.unwrap();
    let fixture = Arc::new(fixture);
    let steps = in_parallel((0..WRITERS).map(|_| increment(fixture.clone(), EACH))).await.concat();
    let replaced: HashSet<Revision> = steps.iter().map(|(from, _)| *from).collect();
    let written: HashSet<Revision> = steps.iter().map(|(_, to)| *to).collect();
    assert_eq!(replaced.len(), steps.len(), "two writers replaced the same revision");
    assert_eq!(written.len(), steps.len(), "two writers got the same revision");
    let last = fixture.store.get(&fixture.key("counter")).await.unwrap().expect("created");
    assert_eq!(last.value, bytes(EACH * WRITERS as u64), "an increment was lost");
    assert_eq!(&replaced - &written, HashSet::from([first]), "the writes form one chain from the first");
    assert_eq!(&written - &replaced, HashSet::from([last.revision]), "to the last");
}

async fn increment(fixture: Arc<Fixture>, times: u64) -> Vec<(Revision, Revision)> {
    let mut steps = Vec::new();
    while (steps.len() as u64) < times {
        let record = fixture.store.get(&fixture.key("counter")).await.unwrap().expect("created");
        let value = bytes(number(&record) + 1);
        match fixture.store.compare_and_swap(record.key, value, record.revision).await {
            Ok(revision) => steps.push((record.revision, revision)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
    steps
}

fn number(record: &Record) -> i64 {
    std::str::from_utf8(&record.value).unwrap().parse().unwrap()
}

/// Create-if-absent is a lock.
pub async fn of_n_creators_exactly_one_wins(fixture: Fixture) {
    for round in 0..10 {
        let key = fixture.key(round);
        let create = |n| {
            let (store, key) = (fixture.store.clone(), key.clone());
            async move { store.create(key, bytes(n)).await }
        };
        let results = in_parallel((0..WRITERS).map(create)).await;
        let winners: Vec<usize> = (0..WRITERS).filter(|n| results[*n].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert!(results.iter().flat_map(|r| r.as_ref().err()).all(|e| e.kind() == ErrorKind::AlreadyExists));
        let record = fixture.store.get(&key).await.unwrap().expect("created");
        assert_eq!(record.value, bytes(winners[0]));
    }
}

/// Nobody sees a transfer half done.
pub async fn concurrent_transfers_keep_the_sum_in_every_page(fixture: Fixture) {
    for name in 0..4 {
        fixture.store.create(fixture.key(name), bytes(100)).await.unwrap();
    }
    let fixture = Arc::new(fixture);
    let done = AtomicBool::new(false);
    let transfers = async {
        in_parallel((0..4).map(|n| transfer(fixture.clone(), n, (n + 1) % 4))).await;
        done.store(true, Ordering::SeqCst);
    };
    let reader = async {
        while !done.load(Ordering::SeqCst) {
            let page = fixture.store.list(&fixture.prefix(), None, 10).await.unwrap();
            assert_eq!(page.records.iter().map(number).sum::<i64>(), 400, "{:?}", page.records);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(transfers, reader);
}

async fn transfer(fixture: Arc<Fixture>, from: usize, to: usize) {
    let mut done = 0;
    while done < 10 {
        let source = fixture.store.get(&fixture.key(from)).await.unwrap().expect("created");
        let target = fixture.store.get(&fixture.key(to)).await.unwrap().expect("created");
        let put = |record: &Record, amount: i64| Write::Put {
            key: record.key.clone(),
            value: bytes(number(record) + amount),
            precondition: Precondition::Revision(record.revision),
        };
        match fixture.store.commit(vec![put(&source, -1), put(&target, 1)]).await {
            Ok(_) => done += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}

/// By whoever reads.
pub async fn an_acknowledged_write_is_seen_by_the_next_read(fixture: Fixture) {
    let key = fixture.key("a");
    for round in 0..50 {
        let revision = fixture.store.put(key.clone(), bytes(round)).await.unwrap();
        let reads = join_all((0..4).map(|_| fixture.store.get(&key))).await;
        for record in reads {
            let record = record.unwrap().expect("put");
            assert_eq!((record.value, record.revision), (bytes(round), revision));
        }
        let page = fixture.store.list(&fixture.prefix(), None, 10).await.unwrap();
        assert_eq!(page.records[0].revision, revision);
    }
}
