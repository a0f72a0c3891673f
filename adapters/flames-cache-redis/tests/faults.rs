//! What goes wrong with a server that dies, stops or refuses.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{config, open};
use flames_cache::{CacheKey, CacheStore, CacheValue, Error, ErrorKind, SetIfAbsent, Ttl};
use flames_cache_redis::{RedisCacheStore, RedisConfig};
use flames_testkit::{Port, Redis};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// No call may take longer, whatever the server does.
const BOUND: Duration = Duration::from_secs(6);

fn key(text: &str) -> CacheKey {
    CacheKey::parse(text).unwrap()
}

fn value(text: &'static str) -> CacheValue {
    CacheValue::new(text).unwrap()
}

fn hour() -> Ttl {
    Ttl::new(Duration::from_secs(3600)).unwrap()
}

fn is_down(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) && error.is_retryable()
}

/// Calls until one succeeds, each within the bound.
async fn until_up(cache: &RedisCacheStore) {
    for _ in 0..100 {
        match tokio::time::timeout(BOUND, cache.get(&key("any"))).await.unwrap() {
            Ok(_) => return,
            Err(error) => assert!(is_down(&error), "{error:?}"),
        }
    }
    panic!("the server is up and the cache does not find it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_and_locks_hold_in_each_life_of_a_server_that_is_killed_and_restarted() {
    let Some(server) = Redis::start().await else { return };
    let cache = Arc::new(open(&server, "killed:").await);
    let (stop, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> =
        (0..8).map(|_| tokio::spawn(work(cache.clone(), stop.clone(), failures.clone()))).collect();

    until_counted(&cache, 200).await;
    server.server().kill9();
    while failures.load(Ordering::SeqCst) < 8 {
        tokio::task::yield_now().await;
    }
    server.server().restart().await;
    until_up(&cache).await;
    until_counted(&cache, 200).await;
    stop.store(true, Ordering::SeqCst);

    let mut sums: BTreeMap<i64, usize> = BTreeMap::new();
    let mut locks = 0;
    for worker in join_all(workers).await {
        let done = worker.unwrap();
        done.sums.into_iter().for_each(|sum| *sums.entry(sum).or_default() += 1);
        locks += done.locks;
    }
    let repeated: Vec<_> = sums.iter().filter(|(_, times)| **times > 2).collect();
    assert!(repeated.is_empty(), "sums returned more often than the server had lives: {repeated:?}");
    assert!((1..=2).contains(&locks), "the lock was given {locks} times in two lives");
}

#[derive(Default)]
struct Done {
    sums: Vec<i64>,
    locks: usize,
}

async fn work(cache: Arc<RedisCacheStore>, stop: Arc<AtomicBool>, failures: Arc<AtomicUsize>) -> Done {
    let mut done = Done::default();
    while !stop.load(Ordering::SeqCst) {
        let start = Instant::now();
        let counted = cache.increment(&key("counter"), 1, hour()).await;
        let locked = cache.set_if_absent(&key("lock"), value("mine"), hour()).await;
        assert!(start.elapsed() < 2 * BOUND, "two calls took {:?}", start.elapsed());
        done.locks += usize::from(locked.as_ref().is_ok_and(|outcome| *outcome == SetIfAbsent::Stored));
        for error in [counted.as_ref().err(), locked.as_ref().err()].into_iter().flatten() {
            assert!(is_down(error), "{error:?}");
            failures.fetch_add(1, Ordering::SeqCst);
        }
        done.sums.extend(counted);
    }
    done
}

async fn until_counted(cache: &RedisCacheStore, sum: i64) {
    let counted = async || -> Option<i64> {
        let digits = cache.get(&key("counter")).await.ok()??;
        std::str::from_utf8(&digits).unwrap().parse().ok()
    };
    while counted().await.is_none_or(|count| count < sum) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_paused_server_is_given_up_in_bounded_time_and_used_again_when_it_goes_on() {
    let Some(server) = Redis::start().await else { return };
    let cache = open(&server, "paused:").await;
    cache.set(&key("before"), value("pause"), hour()).await.unwrap();
    server.server().pause();
    for _ in 0..3 {
        let start = Instant::now();
        let error = cache.get(&key("before")).await.unwrap_err();
        assert!(is_down(&error), "{error:?}");
        assert!(start.elapsed() < BOUND, "took {:?}", start.elapsed());
    }
    server.server().cont();
    until_up(&cache).await;
    assert_eq!(cache.get(&key("before")).await.unwrap().unwrap(), "pause");
}

#[tokio::test]
async fn many_calls_to_a_paused_server_all_end_in_bounded_time() {
    let Some(server) = Redis::start().await else { return };
    let cache = open(&server, "paused:").await;
    server.server().pause();
    let start = Instant::now();
    let name = key("any");
    let results = join_all((0..1000).map(|_| cache.get(&name))).await;
    assert!(results.iter().all(|result| result.as_ref().is_err_and(is_down)));
    assert!(start.elapsed() < BOUND, "took {:?}", start.elapsed());
    server.server().cont();
    until_up(&cache).await;
}

#[tokio::test]
async fn opening_without_a_server_is_unavailable_in_bounded_time() {
    let port = Port::reserve();
    let start = Instant::now();
    let url = format!("redis://:topsecret@127.0.0.1:{}", port.number());
    let error = RedisCacheStore::open(RedisConfig::from_url(&url).unwrap()).await.unwrap_err();
    assert!(is_down(&error), "{error:?}");
    assert!(error.to_string().contains(&port.number().to_string()), "names the server: {error}");
    assert!(!format!("{error:?}").contains("topsecret"));
    assert!(start.elapsed() < BOUND);
}

#[tokio::test]
async fn opening_at_a_paused_server_is_given_up_in_bounded_time() {
    let Some(server) = Redis::start().await else { return };
    server.server().pause();
    let start = Instant::now();
    let error = RedisCacheStore::open(config(&server, "x")).await.unwrap_err();
    assert!(is_down(&error), "{error:?}");
    assert!(start.elapsed() < BOUND, "took {:?}", start.elapsed());
    server.server().cont();
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let Some(server) = Redis::start().await else { return };
    for user in [":topsecret@", "nobody:topsecret@", ""] {
        let url = format!("redis://{user}127.0.0.1:{}", server.port());
        let opened = RedisCacheStore::open(RedisConfig::from_url(&url).unwrap()).await;
        let error = match opened {
            Ok(cache) => cache.get(&key("any")).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert!(!format!("{error:?}").contains("topsecret"));
    }
}

#[tokio::test]
async fn stores_with_different_prefixes_do_not_see_each_other() {
    let Some(server) = Redis::start().await else { return };
    let (one, two) = (open(&server, "one:").await, open(&server, "two:").await);
    one.set(&key("shared"), value("of one"), hour()).await.unwrap();
    assert_eq!(two.get(&key("shared")).await.unwrap(), None);
    two.delete(&key("shared")).await.unwrap();
    assert_eq!(one.get(&key("shared")).await.unwrap().unwrap(), "of one");
}

#[tokio::test]
async fn the_password_is_shown_nowhere() {
    let Some(server) = Redis::start().await else { return };
    let cache = open(&server, "x").await;
    let secret = server.url().split([':', '@']).nth(2).unwrap().to_owned();
    assert!(secret.len() > 5);
    assert!(!format!("{cache:?}{:?}", config(&server, "x")).contains(&secret));
}

#[tokio::test]
async fn a_server_without_memory_is_unavailable() {
    let Some(server) = Redis::start().await else { return };
    let cache = open(&server, "full:").await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd("CONFIG");
    let () = command.arg("SET").arg("maxmemory").arg("1").query_async(&mut connection).await.unwrap();
    let error = cache.set(&key("too/much"), value("x"), hour()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}
