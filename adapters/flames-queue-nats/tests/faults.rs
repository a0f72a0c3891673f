//! A real NATS server that crashes, hangs or refuses.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_queue::ErrorKind;
use flames_queue::conformance::{a_job_goes_all_its_way, calls_fail_in_bounded_time, no_job_is_lost_through};
use flames_queue_nats::{NatsQueue, NatsQueueConfig};
use flames_testkit::Nats;
use std::sync::Arc;
use std::time::{Duration, Instant};

async fn open(server: &Nats) -> Arc<NatsQueue> {
    let mut config = NatsQueueConfig::from_url(&server.url()).unwrap();
    config.call_timeout = Duration::from_secs(2);
    Arc::new(NatsQueue::open(config).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_when_the_server_is_killed_and_restarted_under_load() {
    let Some(server) = Nats::start().await else { return };
    let crash = async {
        server.server().kill9();
        server.server().restart().await;
    };
    no_job_is_lost_through(open(&server).await, 400, crash).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_fails_calls_in_bounded_time_and_serves_again_when_it_goes_on() {
    let Some(server) = Nats::start().await else { return };
    let queue = open(&server).await;
    a_job_goes_all_its_way(Arc::clone(&queue) as _).await;
    server.server().pause();
    calls_fail_in_bounded_time(Arc::clone(&queue) as _).await;
    server.server().cont();
    a_job_goes_all_its_way(queue).await;
}

#[tokio::test]
async fn wrong_credentials_are_refused_without_showing_the_password() {
    let Some(server) = Nats::start().await else { return };
    let url = format!("nats://flames:hush@127.0.0.1:{}", server.port());
    let error = NatsQueue::open(NatsQueueConfig::from_url(&url).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hush"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_at_once() {
    let started = Instant::now();
    let config = NatsQueueConfig::from_url("nats://127.0.0.1:1").unwrap();
    let error = NatsQueue::open(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}
