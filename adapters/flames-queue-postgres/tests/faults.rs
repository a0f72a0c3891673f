//! A real PostgreSQL that crashes, hangs, is full or refuses.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_queue::conformance::{a_job_goes_all_its_way, calls_fail_in_bounded_time, no_job_is_lost_through};
use flames_queue::{Error, ErrorKind, NewJob, Payload, QueueName, WorkQueue};
use flames_queue_postgres::{PostgresQueue, PostgresQueueConfig};
use flames_testkit::Postgres;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn config(url: &str) -> PostgresQueueConfig {
    let mut config = PostgresQueueConfig::from_url(url).unwrap();
    config.acquire_timeout = Duration::from_secs(1);
    config.call_timeout = Duration::from_secs(2);
    config
}

async fn open(server: &Postgres) -> Arc<PostgresQueue> {
    Arc::new(PostgresQueue::open(config(&server.url())).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_when_the_server_is_killed_and_restarted_under_load() {
    let Some(server) = Postgres::start().await else { return };
    let crash = async {
        server.server().kill9();
        server.server().restart().await;
    };
    no_job_is_lost_through(open(&server).await, 400, crash).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_fails_calls_in_bounded_time_and_serves_again_when_it_goes_on() {
    let Some(server) = Postgres::start().await else { return };
    let queue = open(&server).await;
    a_job_goes_all_its_way(Arc::clone(&queue) as _).await;
    server.server().pause();
    calls_fail_in_bounded_time(Arc::clone(&queue) as _).await;
    server.server().cont();
    a_job_goes_all_its_way(queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_answers_unavailable_in_bounded_time() {
    let Some(server) = Postgres::start().await else { return };
    let mut config = config(&server.url());
    config.max_connections = 1;
    let queue = Arc::new(PostgresQueue::open(config).await.unwrap());
    let errors = std::thread::scope(|scope| {
        scope.spawn(|| server.sql("BEGIN; LOCK TABLE flames_queue.job; SELECT pg_sleep(4); COMMIT"));
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(crowd(&queue)))
    });
    assert!(errors.iter().all(Error::is_retryable), "{errors:?}");
    assert!(errors.iter().any(|error| error.kind() == ErrorKind::Unavailable), "{errors:?}");
    a_job_goes_all_its_way(queue).await;
}

/// What eight callers get while the table is locked.
async fn crowd(queue: &PostgresQueue) -> Vec<Error> {
    tokio::time::sleep(Duration::from_millis(500)).await; // until the lock is held
    let name = QueueName::new("crowd").unwrap();
    let calls = (0..8).map(|_| queue.enqueue(&name, NewJob::new(Payload::default())));
    let started = Instant::now();
    let results = futures::future::join_all(calls).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    results.into_iter().filter_map(Result::err).collect()
}

#[tokio::test]
async fn nodes_that_start_together_migrate_once() {
    let Some(server) = Postgres::start().await else { return };
    let url = server.new_database();
    let opened = futures::future::join_all((0..4).map(|_| PostgresQueue::open(config(&url)))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    assert_eq!(server.sql_in(&url, "SELECT count(*) FROM flames_queue.schema_version").trim(), "1");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let Some(server) = Postgres::start().await else { return };
    open(&server).await;
    server.sql(
        "INSERT INTO flames_queue.schema_version (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '', 0)",
    );
    let error = PostgresQueue::open(config(&server.url())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("9999 is newer than this program"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_and_a_missing_database_are_told_apart_without_showing_the_password() {
    let Some(server) = Postgres::start().await else { return };
    let at = |credentials: &str, database: &str| {
        format!("postgres://{credentials}@127.0.0.1:{}/{database}", server.port())
    };
    let wrong = PostgresQueue::open(config(&at("flames:hush", "postgres"))).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::PermissionDenied, "{wrong:?}");
    assert!(!format!("{wrong} {wrong:?}").contains("hush"));
    let missing =
        PostgresQueue::open(config(&server.url().replace("/postgres", "/nowhere"))).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidInput, "{missing:?}");
    assert!(missing.to_string().contains("does not exist"), "{missing}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_in_bounded_time() {
    let started = Instant::now();
    let error = PostgresQueue::open(config("postgres://flames:hush@127.0.0.1:1/postgres")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
