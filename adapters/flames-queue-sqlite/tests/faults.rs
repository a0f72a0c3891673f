//! A file that another process holds, that is damaged or too new; and a process that is killed.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_queue::{
    Batch, ConsumerName, ErrorKind, LeaseRequest, NewJob, Payload, QueueName, Visibility, Wait, WorkQueue,
};
use flames_queue_sqlite::{SqliteQueue, SqliteQueueConfig};
use sqlx::{Connection, Executor, SqliteConnection};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Tells the test below that it is the child.
const CHILD_FILE: &str = "FLAMES_TEST_QUEUE_FILE";

fn work() -> QueueName {
    QueueName::new("work").unwrap()
}

async fn open(path: &Path) -> flames_queue::Result<SqliteQueue> {
    SqliteQueue::open(SqliteQueueConfig::new(path)).await
}

async fn direct(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap()
}

fn request() -> LeaseRequest {
    let (max, visibility) = (Batch::MAX, Visibility::new(Duration::from_secs(60)).unwrap());
    LeaseRequest { consumer: ConsumerName::new("c").unwrap(), max, visibility, wait: Wait::NONE }
}

/// The child adds jobs and prints each acknowledged one, until it is killed in the middle of it.
#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    if let Ok(path) = std::env::var(CHILD_FILE) {
        return add_jobs_forever(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let acknowledged = jobs_before_kill(&path, 200).await;
    let queue = open(&path).await.unwrap();
    let mut found = std::collections::HashSet::new();
    loop {
        let jobs = queue.lease(&work(), request()).await.unwrap();
        if jobs.is_empty() {
            break;
        }
        found.extend(jobs.iter().map(|job| String::from_utf8(job.payload.as_bytes().to_vec()).unwrap()));
    }
    let lost: Vec<_> = acknowledged.iter().filter(|job| !found.contains(*job)).collect();
    assert!(acknowledged.len() >= 200 && lost.is_empty(), "lost {lost:?}");
}

async fn add_jobs_forever(path: &Path) {
    let queue = open(path).await.unwrap();
    for number in 0_u64.. {
        queue.enqueue(&work(), NewJob::new(Payload::new(format!("job-{number}")).unwrap())).await.unwrap();
        println!("job-{number}");
    }
}

async fn jobs_before_kill(path: &Path, count: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_was_acknowledged_survives_kill_9", "--nocapture"])
        .env(CHILD_FILE, path)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut jobs = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        jobs.extend(line.starts_with("job-").then_some(line));
        if jobs.len() == count {
            child.kill().await.unwrap();
        }
    }
    jobs
}

#[tokio::test]
async fn leases_and_dead_letters_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path).await.unwrap();
    queue.enqueue(&work(), NewJob::new(Payload::default())).await.unwrap();
    let leased = queue.lease(&work(), request()).await.unwrap().remove(0);
    drop(queue);
    let queue = open(&path).await.unwrap();
    assert!(queue.lease(&work(), request()).await.unwrap().is_empty(), "the lease was forgotten");
    queue.ack(&leased.lease).await.unwrap();
}

#[tokio::test]
async fn a_file_that_another_process_holds_is_unavailable_in_bounded_time_and_then_works_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path).await.unwrap();
    let mut other = direct(&path).await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let started = Instant::now();
    let error = queue.enqueue(&work(), NewJob::new(Payload::default())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    other.execute("ROLLBACK").await.unwrap();
    queue.enqueue(&work(), NewJob::new(Payload::default())).await.unwrap();
    assert_eq!(queue.depth(&work()).await.unwrap().ready, 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    drop(open(&path).await.unwrap());
    let future = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                  VALUES (9999, 'from the future', true, x'', 0)";
    direct(&path).await.execute(future).await.unwrap();
    let error = open(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("9999 is newer than this program"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt_and_a_missing_folder_invalid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    tokio::fs::write(&path, vec![b'x'; 4096]).await.unwrap();
    assert_eq!(open(&path).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let error = open(&folder.path().join("missing/queue.db")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("missing/queue.db"), "{error}");
}
