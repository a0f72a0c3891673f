//! What happened in a pool.

use crate::support::{fixed, member, view};
use flames_pool::{Health, MemberView, Millis, PoolStatus, Reason, Tally, Tier, plan};
use std::time::Duration;

fn status(tally: &Tally) -> PoolStatus {
    let config = fixed(2);
    let ill = MemberView { health: Health::Unhealthy, ..member(2, Tier::Running, 0) };
    let mut view = view(&config, vec![member(1, Tier::Running, 4000), ill]);
    view.failures.failed(Millis(4500));
    let now = Millis(5000);
    tally.status(now, &config, &view, &plan(now, &config, &view))
}

#[test]
fn the_hit_rate_is_of_the_recent_creates_alone() {
    let mut tally = Tally::default();
    assert_eq!(tally.hit_rate(), None);
    (0..500).for_each(|_| tally.missed());
    (0..375).for_each(|_| tally.hit(Duration::from_millis(2), Duration::from_secs(1)));
    assert_eq!(tally.hit_rate(), Some(0.75));
    let status = status(&tally);
    assert_eq!((status.hits, status.misses, status.wait_ms.p99), (375, 500, 2.0));
}

#[test]
fn ready_counts_only_what_could_be_handed_out() {
    let status = status(&Tally::default());
    assert_eq!((status.ready, status.ages_ms.count, status.ages_ms.max), (1, 1, 1000.0));
    assert_eq!(status.by_tier[&Tier::Running], 2);
}

#[test]
fn the_last_failure_tells_when_the_next_try_is() {
    let mut tally = Tally::default();
    tally.failed(Millis(4500), "no room".to_owned());
    let failure = status(&tally).last_failure.unwrap();
    assert_eq!((failure.error.as_str(), failure.ago_ms, failure.next_try_in_ms), ("no room", 500, 500));
}

#[test]
fn a_status_survives_json() {
    let mut tally = Tally::default();
    tally.retired(Reason::TooOld);
    tally.refilled();
    let status = status(&tally);
    let json = serde_json::to_string(&status).unwrap();
    assert!(json.contains(r#""too-old":1"#), "{json}");
    assert_eq!(serde_json::from_str::<PoolStatus>(&json).unwrap(), status);
}
