//! Promises about leases.

use super::Fixture;
use super::concurrency::in_parallel;
use crate::{ErrorKind, Key, Lease, LeaseTtl};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Long enough that no test ends before it.
const LONG: Duration = Duration::from_secs(60);
/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);
/// A store's clock is not ours to the millisecond.
const SLACK: Duration = Duration::from_millis(50);

fn ttl(time: Duration) -> LeaseTtl {
    LeaseTtl::parse(time).unwrap()
}

fn holder(name: &str) -> Key {
    Key::parse(name).unwrap()
}

impl Fixture {
    async fn acquire(&self, by: &str, time: Duration) -> crate::Result<Lease> {
        self.store.acquire_lease(&self.key("lease"), &holder(by), ttl(time)).await
    }
}

/// Also to its own holder: a second process under the same name is another holder.
pub async fn a_held_lease_is_refused_and_names_its_holder(fixture: Fixture) {
    let lease = fixture.acquire("node-1", LONG).await.unwrap();
    assert_eq!((&lease.name, lease.holder.as_str()), (&fixture.key("lease"), "node-1"));
    assert!(lease.is_valid());
    for by in ["node-2", "node-1"] {
        let error = fixture.acquire(by, LONG).await.unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::Conflict, fixture.key("lease").as_str()));
        assert!(error.detail_text().is_some_and(|detail| detail.contains("node-1")), "{error}");
    }
    fixture.store.acquire_lease(&fixture.key("another"), &holder("node-2"), ttl(LONG)).await.unwrap();
}

/// Not before, and not much later.
pub async fn a_lease_ends_when_its_time_is_over(fixture: Fixture) {
    let lease = fixture.acquire("node-1", SHORT).await.unwrap();
    sleep_until(lease.valid_until - 2 * SLACK).await;
    let early = fixture.acquire("node-2", LONG).await;
    // Only a verdict from while the lease was surely valid counts.
    assert!(early.is_err() || Instant::now() >= lease.valid_until, "taken before its time was over");
    if early.is_err() {
        sleep_until(lease.valid_until + 4 * SLACK).await;
        fixture.acquire("node-2", LONG).await.unwrap();
    }
    assert!(!lease.is_valid());
}

/// Even when nobody has taken it: the holder must know that it lost it.
pub async fn a_lease_that_is_over_cannot_be_renewed(fixture: Fixture) {
    let lease = fixture.acquire("node-1", SHORT).await.unwrap();
    sleep_until(lease.valid_until + 4 * SLACK).await;
    let error = fixture.store.renew_lease(&lease, ttl(LONG)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    fixture.acquire("node-2", LONG).await.unwrap();
}

/// The token tells, not the name.
pub async fn a_lease_is_renewed_only_by_its_holder(fixture: Fixture) {
    let first = fixture.acquire("node-1", LONG).await.unwrap();
    fixture.store.release_lease(&first).await.unwrap();
    let second = fixture.acquire("node-1", LONG).await.unwrap();
    let error = fixture.store.renew_lease(&first, ttl(LONG)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    fixture.store.renew_lease(&second, ttl(LONG)).await.unwrap();
}

/// Renewal counts from now.
pub async fn a_renewed_lease_outlives_its_first_time(fixture: Fixture) {
    let lease = fixture.acquire("node-1", SHORT).await.unwrap();
    let renewed = fixture.store.renew_lease(&lease, ttl(LONG)).await.unwrap();
    assert_eq!((&renewed.name, &renewed.holder, renewed.token), (&lease.name, &lease.holder, lease.token));
    assert!(renewed.valid_until > lease.valid_until);
    sleep(SHORT + SLACK).await;
    let error = fixture.acquire("node-2", LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

/// Release does not wait for the time.
pub async fn a_released_lease_is_free_at_once(fixture: Fixture) {
    let lease = fixture.acquire("node-1", LONG).await.unwrap();
    fixture.store.release_lease(&lease).await.unwrap();
    fixture.acquire("node-2", LONG).await.unwrap();
}

/// Who is late releases nothing, and is told nothing: there is nothing for it to do.
pub async fn a_late_release_leaves_the_next_holder_alone(fixture: Fixture) {
    let late = fixture.acquire("node-1", LONG).await.unwrap();
    fixture.store.release_lease(&late).await.unwrap();
    let current = fixture.acquire("node-1", LONG).await.unwrap();
    fixture.store.release_lease(&late).await.unwrap();
    let error = fixture.acquire("node-2", LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    fixture.store.renew_lease(&current, ttl(LONG)).await.unwrap();
}

/// So that what a lease protects can fence off an earlier holder.
pub async fn lease_tokens_grow_with_every_acquisition(fixture: Fixture) {
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let lease = fixture.acquire("node-1", LONG).await.unwrap();
        tokens.push(lease.token);
        fixture.store.release_lease(&lease).await.unwrap();
    }
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
}

/// No double lease.
pub async fn of_many_takers_exactly_one_gets_the_lease(fixture: Fixture) {
    let fixture = Arc::new(fixture);
    let mut tokens = HashSet::new();
    for _ in 0..10 {
        let take = |n| {
            let fixture = fixture.clone();
            async move { fixture.acquire(&format!("node-{n}"), LONG).await }
        };
        let results = in_parallel((0..8).map(take)).await;
        let won: Vec<Lease> = results.into_iter().filter_map(Result::ok).collect();
        let [lease] = &won[..] else { panic!("{} takers won: {won:?}", won.len()) };
        assert!(tokens.insert(lease.token), "token {} twice", lease.token);
        fixture.store.release_lease(lease).await.unwrap();
    }
}
