//! What is acknowledged survives, and a file that is not ours to use is refused.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use flames_state::{ErrorKind, Key, LeaseTtl, Record, Revision, StateStore, StateStoreExt};
use flames_state_sqlite::{SqliteConfig, SqliteStateStore};
use futures::TryStreamExt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

async fn open(path: &Path) -> SqliteStateStore {
    SqliteStateStore::open(SqliteConfig::new(path)).await.unwrap()
}

async fn open_error(path: &Path) -> flames_state::Error {
    SqliteStateStore::open(SqliteConfig::new(path)).await.err().unwrap()
}

#[tokio::test]
async fn a_closed_store_opens_again_with_its_records_leases_and_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = open(&path).await;
    let first = store.create(key("a"), Bytes::from_static(b"1")).await.unwrap();
    let ttl = LeaseTtl::parse(Duration::from_secs(60)).unwrap();
    let lease = store.acquire_lease(&key("l"), &key("me"), ttl).await.unwrap();
    store.close().await;
    let store = open(&path).await;
    let record = Record { key: key("a"), value: Bytes::from_static(b"1"), revision: first };
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(record));
    assert_eq!(store.revision().await.unwrap(), first);
    let taken = store.acquire_lease(&key("l"), &key("you"), ttl).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    store.renew_lease(&lease, ttl).await.unwrap();
    assert!(store.put(key("b"), Bytes::new()).await.unwrap() > first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_starts_over_under_writers_that_never_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = open(&path).await;
    let log = || std::fs::metadata(dir.path().join("state.db-wal")).unwrap().len();
    // A value is in the log twice, in its record and in its event.
    let (values, mut written) = (Bytes::from(vec![7; 64 * 1024]), 0);
    while written < 64 << 20 || log() * 2 > written {
        assert!(written < 4 << 30, "the log has {} bytes after {written}: it never started over", log());
        let puts = (0..64).map(|n| store.put(key(&n.to_string()), values.clone()));
        for put in futures::future::join_all(puts).await {
            put.unwrap();
        }
        written += 64 * 2 * 64 * 1024;
    }
}

/// Not a promise but the victim of the next test: writes, says what was acknowledged, and is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below as a child process"]
async fn victim() {
    let path = std::env::var_os("VICTIM_DATABASE").unwrap();
    let store = std::sync::Arc::new(open(Path::new(&path)).await);
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let revision = store.create(key(&format!("{writer}/{n}")), Bytes::new()).await.unwrap();
                println!("acked {writer}/{n} {revision}");
            }
        })
    });
    futures::future::join_all(writers).await;
}

#[tokio::test]
async fn what_was_acknowledged_before_kill9_is_there_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env("VICTIM_DATABASE", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acked = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        acked.extend(line.split_once("acked ").map(|(_, rest)| rest.to_owned()));
        if acked.len() == 200 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acked.len() >= 200);
    let store = open(&path).await;
    let records: Vec<Record> = store.list_all("").try_collect().await.unwrap();
    for line in &acked {
        let (name, revision) = line.split_once(' ').unwrap();
        let revision = Revision(revision.parse().unwrap());
        assert!(
            records.iter().any(|record| record.key == key(name) && record.revision == revision),
            "lost {line}"
        );
    }
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused_until_the_first_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let first = open(&path).await;
    let error = open_error(&path).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.detail_text().unwrap().contains("has it open"), "{error}");
    first.close().await;
    open(&path).await.close().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    open(&path).await.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    let before = std::fs::read(&path).unwrap();
    let error = open_error(&path).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.detail_text().unwrap().contains("schema 9999"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let text = "this is no database, but long enough to look at. ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    assert_eq!(open_error(&path).await.kind(), ErrorKind::Corrupt);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_missing_folder_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = open_error(&dir.path().join("missing/state.db")).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.detail_text().unwrap().contains("folder must exist"), "{error}");
}
