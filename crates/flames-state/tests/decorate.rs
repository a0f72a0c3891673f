//! What the decorators do beyond being transparent (which the suite shows).
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use flames_provider::decorate::{Call, CallMetrics, Fault, FaultPlan, RetryPolicy, When};
use flames_state::decorate::{WithFaults, WithMetrics, WithRetry};
use flames_state::{ErrorKind, Key, LeaseTtl, MemoryStateStore, StateStore, StateStoreExt};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

fn key() -> Key {
    Key::parse("k").unwrap()
}

fn faulty(plan: FaultPlan) -> WithFaults<MemoryStateStore> {
    WithFaults::new(MemoryStateStore::new(), Arc::new(plan))
}

fn retried(plan: FaultPlan) -> WithRetry<WithFaults<MemoryStateStore>> {
    WithRetry::new(faulty(plan), RetryPolicy::default())
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_once_is_made_again() {
    for fault in [Fault::Error(ErrorKind::Unavailable), Fault::LostAck] {
        let store = retried(FaultPlan::seeded(1).rule("get", When::Nth(1), fault));
        assert_eq!(store.get(&key()).await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_not_executed_is_made_again() {
    let plan = FaultPlan::seeded(1).rule("commit", When::Nth(1), Fault::Error(ErrorKind::Unavailable));
    let store = retried(plan);
    let revision = store.create(key(), Bytes::new()).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), revision);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_acknowledgement_is_lost_is_not_made_twice() {
    let store = retried(FaultPlan::seeded(1).rule("commit", When::Nth(1), Fault::LostAck));
    let error = store.put(key(), Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(store.revision().await.unwrap().0, 1, "it happened, once");
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_acknowledgement_is_lost_is_free_again_when_its_time_is_over() {
    let store = retried(FaultPlan::seeded(1).rule("acquire_lease", When::Nth(1), Fault::LostAck));
    let ttl = LeaseTtl::parse(Duration::from_secs(5)).unwrap();
    assert_eq!(store.acquire_lease(&key(), &key(), ttl).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(store.acquire_lease(&key(), &key(), ttl).await.unwrap_err().kind(), ErrorKind::Conflict);
    tokio::time::sleep(Duration::from_secs(5)).await;
    store.acquire_lease(&key(), &key(), ttl).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_an_answer_and_not_tried_again() {
    let mut registry = Registry::default();
    let metrics = CallMetrics::register(&mut registry);
    let inner = WithMetrics::new(MemoryStateStore::new(), metrics.clone());
    let store = WithRetry::new(inner, RetryPolicy::default());
    store.create(key(), Bytes::new()).await.unwrap();
    store.create(key(), Bytes::new()).await.unwrap_err();
    let commit = Call { interface: "state", adapter: "memory", operation: "commit" };
    assert_eq!((metrics.count(&commit, "ok"), metrics.count(&commit, "already exists")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_down_is_given_up_after_the_last_attempt() {
    let plan = FaultPlan::seeded(1).rule("*", When::Always, Fault::Error(ErrorKind::Unavailable));
    assert_eq!(retried(plan).get(&key()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
