//! Against a real server that is killed, paused, full, foreign or newer: bounded errors, and back without a restart.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use flames_state::{ChangeKind, Error, ErrorKind, Key, StateStore, StateStoreExt};
use flames_state_postgres::{PostgresConfig, PostgresStateStore};
use flames_testkit::Postgres;
use futures::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

fn value(number: usize) -> Bytes {
    number.to_string().into()
}

async fn open(url: &str, parameters: &str) -> Result<PostgresStateStore, Error> {
    PostgresStateStore::open(PostgresConfig::parse(&format!("{url}?{parameters}")).unwrap()).await
}

const QUICK: &str = "acquire_ms=500&answer_ms=500";

/// What a call took to fail, and how.
async fn failure<T: std::fmt::Debug>(call: impl Future<Output = Result<T, Error>>) -> (Duration, ErrorKind) {
    let started = Instant::now();
    let error = call.await.unwrap_err();
    (started.elapsed(), error.kind())
}

/// Fails the test instead of waiting for ever.
async fn eventually<T>(call: impl AsyncFn() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "not back: {error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_writers_loses_no_acknowledged_write_and_repeats_none() {
    let Some(postgres) = Postgres::start().await else { return };
    let store = Arc::new(open(&postgres.url(), QUICK).await.unwrap());
    store.create(key("counter"), value(0)).await.unwrap();
    let writers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(increment(store.clone(), Instant::now() + Duration::from_secs(3))))
        .collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        postgres.server().kill9();
        postgres.server().restart().await;
    }
    let (mut acked, mut unknown) = (0, 0);
    for writer in writers {
        let (ours, lost) = writer.await.unwrap();
        acked += ours;
        unknown += lost;
    }
    let record = eventually(async || store.get(&key("counter")).await).await.unwrap();
    let stored: usize = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
    assert!(acked > 10, "{acked} increments");
    assert!((acked..=acked + unknown).contains(&stored), "{acked} acked, {unknown} unknown, {stored} stored");
}

/// Counts what was acknowledged, and what may or may not have happened.
async fn increment(store: Arc<PostgresStateStore>, until: Instant) -> (usize, usize) {
    let (mut acked, mut unknown) = (0, 0);
    while Instant::now() < until {
        let Ok(Some(record)) = store.get(&key("counter")).await else { continue };
        let next = std::str::from_utf8(&record.value).unwrap().parse::<usize>().unwrap() + 1;
        match store
            .compare_and_swap(record.key, value(next), record.revision)
            .await
            .map_err(|error| error.kind())
        {
            Ok(_) => acked += 1,
            Err(ErrorKind::Timeout) => unknown += 1,
            Err(kind) => assert!(matches!(kind, ErrorKind::Conflict | ErrorKind::Unavailable), "{kind}"),
        }
    }
    (acked, unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_across_a_killed_server_misses_and_repeats_nothing() {
    let Some(postgres) = Postgres::start().await else { return };
    let store = open(&postgres.url(), QUICK).await.unwrap();
    let mut from = store.revision().await.unwrap();
    let writing = async {
        for n in 0..60 {
            // Put without a precondition: after an unknown outcome once more is harmless.
            eventually(async || store.put(key("a"), value(n)).await).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let watching = async {
        let mut seen = Vec::new();
        loop {
            let Ok(mut watch) = store.watch("a", from).await else { continue };
            while let Some(Ok(event)) = watch.next().await {
                seen.push(event.revision);
                from = event.revision;
                if event.changes[0].kind == ChangeKind::Put(value(59)) {
                    return seen;
                }
            }
        }
    };
    let breaking = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        postgres.server().kill9();
        postgres.server().restart().await;
    };
    let all = async { tokio::join!(writing, watching, breaking) };
    let ((), seen, ()) = tokio::time::timeout(Duration::from_secs(40), all).await.unwrap();
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0].next()), "{seen:?}");
}

#[tokio::test]
async fn a_paused_server_gives_bounded_errors_and_is_used_again_when_it_goes_on() {
    let Some(postgres) = Postgres::start().await else { return };
    let store = open(&postgres.url(), QUICK).await.unwrap();
    store.put(key("a"), value(1)).await.unwrap();
    postgres.server().pause();
    for _ in 0..3 {
        let (took, kind) = failure(store.get(&key("a"))).await;
        assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable), "{kind}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    postgres.server().cont();
    assert!(eventually(async || store.get(&key("a")).await).await.is_some());
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_within_the_bound_and_used_again_when_it_is_back() {
    let Some(postgres) = Postgres::start().await else { return };
    let store = open(&postgres.url(), QUICK).await.unwrap();
    store.put(key("a"), value(1)).await.unwrap();
    postgres.server().kill9();
    for _ in 0..3 {
        let (took, kind) = failure(store.put(key("a"), value(2))).await;
        assert_eq!(kind, ErrorKind::Unavailable);
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    postgres.server().restart().await;
    assert_eq!(eventually(async || store.get(&key("a")).await).await.unwrap().value, value(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_is_unavailable_within_the_bound_and_recovers() {
    let Some(postgres) = Postgres::start().await else { return };
    // One connection listens, one works; and somebody else holds the counter's lock.
    let parameters = "max_connections=2&acquire_ms=300&answer_ms=2000";
    let store = Arc::new(open(&postgres.url(), parameters).await.unwrap());
    let holder = tokio::task::spawn_blocking(move || {
        postgres.sql("BEGIN; UPDATE flames_state.meta SET revision = revision; SELECT pg_sleep(1.5); COMMIT");
        postgres
    });
    let slow = tokio::spawn({
        let store = store.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            store.put(key("a"), value(1)).await
        }
    });
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (took, kind) = failure(store.get(&key("a"))).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(took < Duration::from_secs(1), "{took:?}");
    slow.await.unwrap().unwrap();
    assert!(store.get(&key("a")).await.unwrap().is_some());
    drop(holder.await.unwrap());
}

#[tokio::test]
async fn wrong_credentials_and_a_missing_database_are_refused_without_the_secret() {
    let Some(postgres) = Postgres::start().await else { return };
    let wrong = format!("postgres://flames:geheim@127.0.0.1:{}/postgres", postgres.port());
    let error = open(&wrong, QUICK).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
    let missing = postgres.url().replace("/postgres", "/nowhere").replacen("/nowhere:", "/postgres:", 1);
    let error = open(&missing, QUICK).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let Some(postgres) = Postgres::start().await else { return };
    open(&postgres.url(), QUICK).await.unwrap().close().await;
    postgres.sql(
        "INSERT INTO flames_state.schema_version (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', TRUE, '', 0)",
    );
    let error = open(&postgres.url(), QUICK).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.detail_text().unwrap().contains("schema 9999"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_migrate_once_and_see_each_others_commits() {
    let Some(postgres) = Postgres::start().await else { return };
    let url = postgres.url();
    let opened = futures::future::join_all((0..4).map(|_| open(&url, "max_connections=3"))).await;
    let nodes: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let from = nodes[0].revision().await.unwrap();
    let mut watch = nodes[0].watch("", from).await.unwrap();
    let started = Instant::now();
    let revision = nodes[3].put(key("a"), value(1)).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.revision, revision);
    assert!(started.elapsed() < Duration::from_secs(5), "woken, not found by looking");
    assert_eq!(nodes[1].get(&key("a")).await.unwrap().unwrap().revision, revision);
}
